from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.models.schedules import RateAndMomentumSchedule

SCHEDULE = {"name": "RateAndMomentumSchedule", "decay": 2.0, "min_lr": 0.03, "final_momentum": 0.7}
SGD: dict[str, Any] = {"name": "SGD", "lr": 0.8, "momentum": 0.5, "schedule": {**SCHEDULE, "momentum_iterations": 4}}


def build(spec: dict[str, Any]) -> tuple[torch.optim.Optimizer, Any]:
    torch.manual_seed(0)
    optimizer = build_optimizer(spec, nn.Linear(2, 1).parameters())
    return optimizer, build_schedule(spec, optimizer)


def advance(optimizer: torch.optim.Optimizer, schedule: Any, iterations: int) -> list[tuple[float, float]]:
    """Rate and momentum of each iteration, on gradients of one."""
    used = []
    for _ in range(iterations):
        group = optimizer.param_groups[0]
        used.append((group["lr"], group["momentum"]))
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        schedule.step()
    return used


def test_rate_and_momentum_are_those_computed_by_hand() -> None:
    rates, momenta = zip(*advance(*build(SGD), 7), strict=True)
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.05, 0.03, 0.03])
    assert momenta == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.7, 0.7])


def test_the_numbers_of_gan_2014_after_its_250_epochs() -> None:
    schedule = {**SCHEDULE, "decay": 1.000004, "min_lr": 1e-6, "momentum_iterations": 125_000}
    _, built = build({**SGD, "lr": 0.1, "schedule": schedule})
    built.last_epoch = 125_000
    # 0.1 * exp(-125000 * ln 1.000004) = 0.1 * exp(-0.499999)
    assert built.get_lr() == pytest.approx([0.0606531], rel=1e-5)
    built.last_epoch = 10**9
    assert built.get_lr() == [1e-6]


def test_a_resumed_schedule_goes_on_to_the_bit() -> None:
    whole_optimizer, whole = build(SGD)
    expected = advance(whole_optimizer, whole, 6)
    first_optimizer, first = build(SGD)
    used = advance(first_optimizer, first, 3)
    second_optimizer, second = build(SGD)
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    for parameter, trained in zip(
        second_optimizer.param_groups[0]["params"], first_optimizer.param_groups[0]["params"], strict=True
    ):
        parameter.data.copy_(trained)
    assert used + advance(second_optimizer, second, 3) == expected
    for resumed, parameter in zip(
        second_optimizer.param_groups[0]["params"], whole_optimizer.param_groups[0]["params"], strict=True
    ):
        assert torch.equal(resumed, parameter)


def test_torchs_own_schedules_are_found_first() -> None:
    _, schedule = build({**SGD, "schedule": {"name": "StepLR", "step_size": 2}})
    assert type(schedule) is torch.optim.lr_scheduler.StepLR
    assert type(build(SGD)[1]) is RateAndMomentumSchedule


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({**SGD, "schedule": {"name": "RateAndMomentum"}}, "no schedule 'RateAndMomentum'"),
        ({**SGD, "schedule": {"name": "Tensor"}}, "no schedule 'Tensor'"),
        ({**SGD, "schedule": SCHEDULE}, "Schedule RateAndMomentumSchedule"),
        ({**SGD, "schedule": {**SGD["schedule"], "decay": 0.5}}, "decay and momentum_iterations must be at least 1"),
        ({"name": "Adam", "lr": 0.1, "schedule": SGD["schedule"]}, "Adam has no momentum: use SGD"),
    ],
)
def test_mistakes_in_a_schedule_are_one_line(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_a_rate_that_stays_and_then_falls_to_zero() -> None:
    """Of 10 iterations the first 6 at the full rate, then a quarter of it less in each; 0 after the end."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = build_schedule(
        {"schedule": {"name": "ConstantThenLinear", "total_iters": 10, "constant_share": 0.6}}, optimizer
    )
    assert schedule is not None
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.4] * 7 + [0.3, 0.2, 0.1, 0.0, 0.0])


@pytest.mark.parametrize("options", [{"total_iters": 0}, {"total_iters": 10, "constant_share": 1.0}])
def test_a_fall_without_iterations_is_refused(options: dict[str, float]) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(UserError, match="total_iters must be at least 1"):
        build_schedule({"schedule": {"name": "ConstantThenLinear", **options}}, optimizer)


@pytest.mark.parametrize(
    ("total", "expected"),
    [(None, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4]), (6, [0.1, 0.2, 0.8 / 3, 0.2, 0.4 / 3, 0.2 / 3, 0.0])],
)
def test_a_rate_that_warms_up(total: int | None, expected: list[float]) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = build_schedule(
        {"schedule": {"name": "LinearWarmUp", "warmup_iters": 4, "total_iters": total}}, optimizer
    )
    assert schedule is not None
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected)


def test_a_warm_up_without_iterations_is_refused() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(UserError, match="warmup_iters and total_iters must be at least 1"):
        build_schedule({"schedule": {"name": "LinearWarmUp", "warmup_iters": 0}}, optimizer)


def test_the_falling_power_is_that_of_dann() -> None:
    spec = {"name": "SGD", "lr": 0.01, "schedule": {"name": "FallingPower", "total_iters": 4}}
    optimizer, schedule = build(spec)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    # 0.01 / (1 + 10 p)^0.75 at p = 0, 1/4, 1/2, 3/4 and 1: of 1, 3.5, 6, 8.5 and 11
    assert rates == pytest.approx([0.01, 0.00390795, 0.00260847, 0.00200877, 0.00165560, 0.00165560], rel=1e-4)
    with pytest.raises(UserError, match=r"total_iters must be at least 1, not 0 \(trainer\.max_steps\)"):
        build({**spec, "schedule": {"name": "FallingPower", "total_iters": 0}})
