from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.diffusion.samplers import ancestral
from lightning_gen.diffusion.samplers.ancestral import sample_ddim, sample_ddpm
from lightning_gen.diffusion.samplers.base import Sampler, build_sampler
from lightning_gen.diffusion.schedules import Level, build_schedule
from lightning_gen.errors import UserError
from tests.diffusion.laws import MEAN, STD, flow_gaussian, gaussian_denoise, marginal_std, two_point_denoise

SCHEDULES = ["linear", "cosine", "sigmoid", "edm", "straight"]
DETERMINISTIC = ["ddim", "euler", "heun", "dpm_solver_pp_2m", "ode"]
SAMPLERS = ["ddpm", *DETERMINISTIC]

QUANTILES = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]


def sampled(name: str, schedule: str, steps: int, noise: Tensor = QUANTILES) -> Tensor:
    return Sampler(name, steps)(gaussian_denoise, noise, build_schedule({"name": schedule}), None)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "error"), [("ddim", 0.01), ("euler", 0.01), ("heun", 0.002), ("dpm_solver_pp_2m", 0.002), ("ode", 0.001)]
)
def test_every_quantile_of_a_gaussian_is_reached(name: str, schedule: str, error: float) -> None:
    """The solvers are linear maps of the noise: mean and deviation are those of a line through two of its points."""
    images = sampled(name, schedule, 500)
    expected = flow_gaussian(QUANTILES, build_schedule({"name": schedule}))
    slope = (images[-1] - images[0]) / 6
    torch.testing.assert_close(images, slope * QUANTILES + (images[-1] + images[0]) / 2, rtol=0, atol=1e-9)
    assert slope.item() == pytest.approx(((expected[-1] - expected[0]) / 6).item(), abs=error / 3)
    assert (images - expected).abs().max() < error
    # The data's own law, but for the little that is left of the image at the end of some schedules.
    assert (images - (MEAN + STD * QUANTILES)).abs().max() < error + 0.006


@pytest.mark.parametrize("schedule", ["edm", "straight"])
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm_solver_pp_2m", 2)])
def test_errors_fall_at_the_order_of_the_method(name: str, schedule: str, order: int) -> None:
    expected = flow_gaussian(QUANTILES, build_schedule({"name": schedule}))
    steps = [256, 512, 1024, 2048]
    errors = [(sampled(name, schedule, number) - expected).abs().max().log() for number in steps]
    number = torch.tensor(steps, dtype=torch.float64).log()
    slope = torch.linalg.lstsq(torch.stack([number, torch.ones(4).double()], 1), torch.stack(errors)).solution[0]
    assert -slope.item() == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_two_points_are_drawn_as_two_points(name: str, schedule: str) -> None:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 1, generator=rng, dtype=torch.float64)
    images = Sampler(name, 60)(two_point_denoise, noise, build_schedule({"name": schedule}), rng)
    near = (images.abs() - 1).abs() < 1e-3
    assert near.double().mean() > 0.99
    assert (images > 0).double().mean().item() == pytest.approx(0.5, abs=0.04)
    if name != "ddpm":
        assert torch.equal(images.sign(), noise.sign())


class Basis:
    """Stands in for `normal_like`: each call gives the next axis, so that a sample is a vector of factors of its draws.

    Axis 0 is the constant 1, axis 1 the noise that sampling begins with.
    """

    def __init__(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.axes = torch.eye(size, dtype=torch.float64)
        self.next = 2
        monkeypatch.setattr(ancestral, "normal_like", self.draw)

    @property
    def start(self) -> Tensor:
        return self.axes[1:2]

    def draw(self, like: Tensor, rng: Any) -> Tensor:
        self.next += 1
        return self.axes[self.next - 1 : self.next]

    def denoise(self, noisy: Tensor, level: Level[float]) -> Tensor:
        """`gaussian_denoise` of the vector."""
        zero = torch.zeros(1, dtype=torch.float64)
        constant = gaussian_denoise(zero, level)
        return noisy * (gaussian_denoise(zero + 1, level) - constant) + constant * self.axes[0]


def moments(sample: Tensor) -> tuple[float, float]:
    return sample[0, 0].item(), sample[0, 1:].norm().item()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("options", [{}, {"eta": 0.5}, {"eta": 1.0}])
def test_moments_of_samplers_that_draw_noise_approach_the_gaussians(
    schedule: str, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = []
    for steps in (125, 250, 500):
        basis = Basis(steps + 2, monkeypatch)
        sampler = Sampler("ddim" if options else "ddpm", steps, **options)
        mean, std = moments(sampler(basis.denoise, basis.start, build_schedule({"name": schedule}), torch.Generator()))
        assert basis.next == steps + 1, "a draw in every step but the last"
        assert mean == pytest.approx(MEAN, abs=0.004)
        errors.append(abs(std - STD))
    assert errors[2] < 0.01
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.35)


def test_large_variances_are_exact_for_standard_normal_data_and_small_ones_for_a_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ho et al. 2020, section 3.2."""
    schedule = build_schedule({"name": "linear", "num_steps": 50})
    basis = Basis(60, monkeypatch)
    normal = sample_ddpm(
        lambda noisy, level: level.alpha * noisy, basis.start, schedule, torch.Generator(), steps=50, variance="large"
    )
    # The image is the estimate at the first level, where the noisy images have variance 1.
    assert moments(normal) == pytest.approx((0, schedule.levels(50)[-2].alpha), abs=1e-12)

    basis = Basis(60, monkeypatch)
    stds = []

    def point(noisy: Tensor, level: Level[float]) -> Tensor:
        stds.append((moments(noisy)[1], level.sigma))
        return 0 * noisy

    sample_ddpm(point, basis.start, schedule, torch.Generator(), steps=50, variance="small")
    begun = 1 - stds[0][1] ** 2
    for found, sigma in stds:
        assert found**2 == pytest.approx(sigma**2, abs=begun)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
def test_ddim_with_eta_1_is_ddpm_with_small_variances(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = build_schedule({"name": schedule, "num_steps": 40})
    basis = Basis(42, monkeypatch)
    ddpm = sample_ddpm(basis.denoise, basis.start, chain, torch.Generator(), steps=40, variance="small")
    basis = Basis(42, monkeypatch)
    ddim = sample_ddim(basis.denoise, basis.start, chain, torch.Generator(), steps=40, eta=1.0)
    torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-12)
    large = sample_ddpm(Basis(42, monkeypatch).denoise, basis.start, chain, torch.Generator(), steps=40)
    assert moments(large)[1] > moments(ddpm)[1] + 1e-4


def test_ddim_finds_the_noise_after_the_estimate_was_clipped() -> None:
    schedule = build_schedule({"name": "cosine"})
    first, second, _ = schedule.levels(2)
    noise = torch.tensor([[2.0]], dtype=torch.float64)
    estimates = iter([1.0, 0.25])
    seen = []

    def denoise(noisy: Tensor, level: Level[float]) -> Tensor:
        seen.append(noisy.item())
        return torch.full_like(noisy, next(estimates))

    image = sample_ddim(denoise, noise, schedule, steps=2)
    assert image.item() == 0.25, "the last level has no noise"
    found = (2.0 - first.alpha * 1.0) / first.sigma
    assert seen[1] == pytest.approx(second.alpha * 1.0 + second.sigma * found, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_counted(name: str, schedule: str) -> None:
    calls = []

    def denoise(noisy: Tensor, level: Level[float]) -> Tensor:
        calls.append(level)
        return gaussian_denoise(noisy, level)

    sampler = Sampler(name, 7)
    sampler(denoise, QUANTILES, build_schedule({"name": schedule}), torch.Generator())
    if name == "ode":
        assert sampler.evaluations is None
        assert 20 < len(calls) < 400
    else:
        assert len(calls) == sampler.evaluations == {"heun": 13}.get(name, 7)
    assert all(level.sigma > 0 for level in calls)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ode"])
def test_samplers_never_look_at_a_value_on_the_way(name: str) -> None:
    # The meta device has no values.
    noise = torch.zeros(3, 1, device="meta")
    options = {"eta": 0.5} if name == "ddim" else {}
    sampler = Sampler(name, 5, **options)
    images = sampler(lambda noisy, level: noisy / 2, noise, build_schedule({"name": "straight"}), torch.Generator())
    assert images.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        Sampler("ode")(lambda noisy, level: noisy / 2, noise, build_schedule({"name": "straight"}), None)


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_that_is_random_comes_from_the_generator(name: str) -> None:
    options = {"eta": 0.5} if name == "ddim" else {}

    def draw(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return Sampler(name, 7, **options)(gaussian_denoise, QUANTILES, build_schedule({"name": "cosine"}), rng)

    torch.manual_seed(0)
    first = draw(1)
    torch.rand(5)
    assert torch.equal(first, draw(1))
    stochastic = Sampler(name, 7, **options).stochastic
    assert stochastic == (name in ("ddpm", "ddim"))
    assert torch.equal(first, draw(2)) != stochastic
    assert not Sampler("ddim").stochastic


def test_states_are_float64_where_asked_and_samples_of_the_noises_type() -> None:
    seen = []

    def denoise(noisy: Tensor, level: Level[float]) -> Tensor:
        seen.append(noisy.dtype)
        return gaussian_denoise(noisy, level)

    noise = QUANTILES.float()
    images = [
        Sampler("heun", 5, float64=exact)(denoise, noise, build_schedule({"name": "edm"}), None) for exact in (0, 1)
    ]
    assert [each.dtype for each in images] == [torch.float32] * 2
    assert set(seen[:9]) == {torch.float32}
    assert set(seen[9:]) == {torch.float64}
    assert 0 < (images[0] - images[1]).abs().max() < 1e-4


def test_the_adaptive_solver_keeps_its_tolerance() -> None:
    schedule = build_schedule({"name": "straight"})
    expected = flow_gaussian(QUANTILES, schedule)
    errors, counts = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        calls: list[float] = []

        def denoise(noisy: Tensor, level: Level[float], calls: list[float] = calls) -> Tensor:
            calls.append(level.sigma)
            return gaussian_denoise(noisy, level)

        images = Sampler("ode", tolerance=tolerance)(denoise, QUANTILES, schedule, None)
        errors.append((images - expected).abs().max().item())
        counts.append(len(calls))
    # The estimate at the lowest level leaves an error of its square.
    assert errors[0] < 1e-2
    assert errors[1] < 1e-4
    assert errors[2] < 2e-5
    assert counts == sorted(counts)
    with pytest.raises(UserError, match=r"more than 20 network evaluations: raise model.sampler.tolerance"):
        Sampler("ode", max_evaluations=20)(gaussian_denoise, QUANTILES, schedule, None)


def test_settings_say_all_that_changes_samples() -> None:
    assert Sampler("heun", 18).settings == {"sampler": "heun", "steps": 18, "evaluations": 35, "float64": False}
    assert Sampler("ddim", 20, eta=0.5).settings == {
        "sampler": "ddim",
        "steps": 20,
        "evaluations": 20,
        "float64": False,
        "eta": 0.5,
    }
    assert Sampler("ode", 18, tolerance=1e-4).settings == {"sampler": "ode", "float64": False, "tolerance": 1e-4}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "ddmp"}, "Unknown sampler 'ddmp'"),
        ({"name": "heun", "eta": 1}, "model.sampler: heun has no option eta"),
        ({"steps": 5}, "model.sampler: .*name"),
        ({"name": "ddim", "eta": 2}, "model.sampler.eta must be from 0 to 1, not 2"),
        ({"name": "ddim", "steps": 0}, "raise model.sampler.steps"),
        ({"name": "ddim", "steps": 101}, "lower model.sampler.steps"),
        ({"name": "ddpm", "variance": "learnt"}, "model.sampler.variance must be large or small"),
        ({"name": "ddpm", "steps": 99, "variance": "large"}, "variance=large .* all 100 steps .* set it to small"),
    ],
)
def test_mistakes_are_found_before_sampling(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_sampler(spec).check(build_schedule({"name": "linear", "num_steps": 100}))


def test_ddpm_takes_large_variances_in_all_steps_alone() -> None:
    schedule = build_schedule({"name": "linear", "num_steps": 100})
    assert ancestral.chosen_variance(None, schedule, 100) == "large"
    assert ancestral.chosen_variance(None, schedule, 50) == "small"
    assert ancestral.chosen_variance(None, build_schedule({"name": "edm"}), 50) == "small"
    assert math.isclose(schedule.levels(100)[0].sigma, schedule.levels(50)[0].sigma)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_goes_through_a_part_of_its_levels_as_it_does_on_its_way(name: str, schedule: str) -> None:
    parts = build_schedule({"name": schedule})
    options = {"tolerance": 1e-8} if name == "ode" else {}
    sampler = Sampler(name, 1000, **options) if schedule == "linear" else Sampler(name, 30, **options)
    levels = parts.levels(sampler.steps)
    whole = sampler(gaussian_denoise, QUANTILES, parts, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    noisy = parts.prior_std * QUANTILES
    # One solver goes to the end, and what another remembers of the step before is lost where a part ends.
    pieces = [levels] if name in ("ode", "dpm_solver_pp_2m") else [levels[:8], levels[7:]]
    for piece in pieces:
        noisy = sampler.through(gaussian_denoise, noisy, parts, piece, rng)
    torch.testing.assert_close(noisy, whole, rtol=0, atol=1e-9)


def test_a_sampler_ends_at_the_last_level_that_it_is_given() -> None:
    parts = build_schedule({"name": "straight"})
    levels = parts.levels(400)
    reached = Sampler("heun", 400).through(gaussian_denoise, QUANTILES, parts, levels[:201], None)
    middle = levels[200]
    torch.testing.assert_close(reached, middle.alpha * MEAN + marginal_std(middle) * QUANTILES, rtol=0, atol=1e-4)
