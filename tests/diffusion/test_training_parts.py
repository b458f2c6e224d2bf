"""Laws of training times, and couplings."""

from __future__ import annotations

import itertools

import pytest
import torch

from lightning_gen.diffusion.coupling import build_coupling
from lightning_gen.diffusion.schedules import build_schedule
from lightning_gen.diffusion.times import build_time_law
from lightning_gen.errors import UserError

NUMBER = 40000


def drawn(spec: dict[str, object], schedule: str) -> torch.Tensor:
    torch.manual_seed(0)
    return build_time_law(spec).draw(NUMBER, build_schedule({"name": schedule}))


def test_uniform_times_are_those_of_the_steps() -> None:
    steps = drawn({"name": "uniform"}, "linear") * 1000
    assert torch.equal(steps, steps.round())
    assert steps.min() == 1
    assert steps.max() == 1000
    assert steps.mean().item() == pytest.approx(500.5, abs=4 * 289 / NUMBER**0.5)


@pytest.mark.parametrize(("schedule", "spec"), [("straight", {}), ("linear", {"continuous": True})])
def test_uniform_times_of_continuous_time_are_any(schedule: str, spec: dict[str, object]) -> None:
    times = drawn({"name": "uniform", **spec}, schedule)
    assert len(times.unique()) > NUMBER * 0.99
    assert 0 < times.min() < times.max() <= 1
    counts = torch.histc(times, 10, 0, 1) / NUMBER
    torch.testing.assert_close(counts, torch.full((10,), 0.1, dtype=torch.float64), rtol=0, atol=0.008)


@pytest.mark.parametrize("schedule", ["edm", "straight"])
def test_log_normal_times_have_log_normal_levels(schedule: str) -> None:
    levels = build_schedule({"name": schedule}).at(drawn({"name": "log_normal"}, schedule))
    logs = (levels.sigma / levels.alpha).log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=4 * 1.2 / NUMBER**0.5)
    assert logs.std().item() == pytest.approx(1.2, rel=0.02)
    assert ((logs < -1.2 + 1.2).double().mean()).item() == pytest.approx(0.8413, abs=0.008)


def test_log_normal_times_of_a_chain_are_its_steps() -> None:
    times = drawn({"name": "log_normal", "mean": 0.0, "std": 5.0}, "cosine")
    assert torch.equal((times * 1000).round(), times * 1000)
    assert times.min().item() == 0.001
    assert times.max().item() == 1
    levels = build_schedule({"name": "cosine"}).at(times)
    assert (levels.sigma > levels.alpha).double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_logit_normal_times_have_normal_logits() -> None:
    logits = torch.logit(drawn({"name": "logit_normal", "mean": 0.5, "std": 0.7}, "straight"))
    assert logits.mean().item() == pytest.approx(0.5, abs=0.02)
    assert logits.std().item() == pytest.approx(0.7, rel=0.02)


def test_mistakes_in_times_name_the_key() -> None:
    with pytest.raises(UserError, match="Unknown law of training times 'log-normal'"):
        build_time_law({"name": "log-normal"})
    with pytest.raises(UserError, match=r"model.times: uniform has no option mean"):
        build_time_law({"name": "uniform", "mean": 1})
    with pytest.raises(UserError, match=r"model.times.std must be above 0, not 0"):
        build_time_law({"name": "log_normal", "std": 0})


def cost(images: torch.Tensor, noise: torch.Tensor) -> float:
    return (images - noise).square().sum().item()


@pytest.mark.parametrize("seed", range(5))
def test_optimal_transport_is_the_assignment_of_least_squared_distance(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    images, noise = torch.randn(2, 4, 1, 2, 3, generator=rng)
    paired = build_coupling({"name": "optimal_transport"}).pair(images, noise)
    least = min(cost(images, noise[list(order)]) for order in itertools.permutations(range(4)))
    assert cost(images, paired) == pytest.approx(least, rel=1e-6)
    assert cost(images, paired) < cost(images, noise)
    assert sorted(paired.flatten().tolist()) == sorted(noise.flatten().tolist())


def test_optimal_transport_keeps_the_noise_of_a_class_in_it() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 2])
    images = torch.randn(7, 2, generator=rng) + 5 * labels[:, None]
    noise = torch.randn(7, 2, generator=rng)
    paired = build_coupling({"name": "optimal_transport"}).pair(images, noise, labels)
    for label in range(3):
        own = labels == label
        assert sorted(paired[own].tolist()) == sorted(noise[own].tolist())
        orders = itertools.permutations(range(int(own.sum())))
        least = min(cost(images[own], noise[own][list(order)]) for order in orders)
        assert cost(images[own], paired[own]) == pytest.approx(least, rel=1e-6)
    assert not torch.equal(build_coupling({"name": "optimal_transport"}).pair(images, noise), paired)


def test_independent_pairs_stay() -> None:
    images, noise = torch.randn(2, 4, 3)
    assert build_coupling({"name": "independent"}).pair(images, noise) is noise
    with pytest.raises(UserError, match="Unknown coupling 'ot'"):
        build_coupling({"name": "ot"})
