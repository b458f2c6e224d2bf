"""Edits and inpainting with exact denoisers of Gaussian data, whose conditional laws have closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.diffusion import editing
from lightning_gen.diffusion.editing import edit, inpaint
from lightning_gen.diffusion.noise import normal_like
from lightning_gen.diffusion.samplers import ancestral
from lightning_gen.diffusion.samplers.base import Sampler
from lightning_gen.diffusion.schedules import Level, build_schedule
from lightning_gen.errors import UserError
from tests.diffusion.laws import MEAN, STD, gaussian_denoise, marginal_std

SCHEDULES = ["linear", "cosine", "sigmoid", "edm", "straight"]

# Two pixels of correlation 0.9; the first is known.
MEANS = torch.tensor([0.2, -0.1], dtype=torch.float64)
COVARIANCE = 0.25 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
KNOWN = torch.tensor([True, False])
VALUE = 0.9
CONDITIONAL_MEAN = -0.1 + 0.9 * (VALUE - 0.2)
CONDITIONAL_STD = 0.5 * math.sqrt(1 - 0.9**2)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gain(level: Level[float]) -> Tensor:
    """Of the noisy pixels in the estimate E[x_0 | x] = MEANS + gain (x - alpha MEANS)."""
    noisy = level.alpha**2 * COVARIANCE + level.sigma**2 * torch.eye(2, dtype=torch.float64)
    return level.alpha * COVARIANCE @ torch.linalg.inv(noisy)


def pair_denoise(noisy: Tensor, level: Level[float]) -> Tensor:
    return MEANS + (noisy - level.alpha * MEANS) @ gain(level).T


class Axes:
    """Stands in for `normal_like`: each number drawn is an axis of its own, so that moments come without chance.

    An image is (D, 2): row 0 is its mean, the others are the factors of the numbers drawn.
    """

    def __init__(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = torch.zeros(size, 2, dtype=torch.float64)
        self.images[0, 0] = VALUE
        self.next = 1
        for module in (editing, ancestral):
            monkeypatch.setattr(module, "normal_like", self.draw)

    def draw(self, like: Tensor, rng: Any) -> Tensor:
        noise = torch.zeros_like(like)
        noise[self.next : self.next + 2] = torch.eye(2)
        self.next += 2
        return noise

    @staticmethod
    def denoise(noisy: Tensor, level: Level[float]) -> Tensor:
        estimates = noisy @ gain(level).T
        estimates[0] = pair_denoise(noisy[0], level)
        return estimates


def distance(sampler: Sampler, schedule: str, resamples: int) -> float:
    """The Wasserstein distance of the unknown pixel's law, a Gaussian, from the conditional one."""
    images = torch.full((2000, 2), VALUE, dtype=torch.float64)
    drawn = inpaint(pair_denoise, images, KNOWN, build_schedule({"name": schedule}), sampler, rng(), resamples)[:, 1]
    return math.hypot(drawn.mean().item() - CONDITIONAL_MEAN, drawn.std().item() - CONDITIONAL_STD)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["ddpm", "ddim", "heun"])
def test_resamples_bring_the_conditional_law_which_plain_replacement_misses(schedule: str, name: str) -> None:
    plain, many = (distance(Sampler(name, 100), schedule, resamples) for resamples in (1, 12))
    assert plain > 0.19
    assert many < 0.06
    assert many < plain / 4


@pytest.mark.parametrize("resamples", [1, 2, 5])
def test_each_draw_is_that_of_the_published_algorithm(resamples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and covariance go through algorithm 1 of RePaint with betas and posteriors of Ho et al. 2020."""
    steps = 12
    spec = {"name": "cosine", "num_steps": steps}
    betas = build_schedule(spec).betas.tolist()  # type: ignore[attr-defined]
    products = [1.0]
    for beta in betas:
        products.append(products[-1] * (1 - beta))
    eye = torch.eye(2, dtype=torch.float64)
    mean, covariance = torch.zeros(2, dtype=torch.float64), eye
    for step in range(steps, 0, -1):
        beta, above, below = betas[step - 1], products[step], products[step - 1]
        estimate = gain(Level(math.sqrt(above), math.sqrt(1 - above), 0.0))
        of_image, of_noisy = math.sqrt(below) * beta / (1 - above), math.sqrt(1 - beta) * (1 - below) / (1 - above)
        linear = of_image * estimate + of_noisy * eye
        shift = of_image * (MEANS - math.sqrt(above) * estimate @ MEANS)
        for resample in range(resamples):
            mean = linear @ mean + shift
            covariance = linear @ covariance @ linear.T + beta * (1 - below) / (1 - above) * eye
            mean[0] = math.sqrt(below) * VALUE
            covariance[0] = covariance[:, 0] = 0.0
            covariance[0, 0] = 1 - below
            if step == 1:
                break
            if resample < resamples - 1:
                mean, covariance = math.sqrt(1 - beta) * mean, (1 - beta) * covariance + beta * eye
    draws = 1 + (steps - 1) * (2 * resamples + resamples - 1)
    axes, sampler = Axes(1 + 2 * draws, monkeypatch), Sampler("ddpm", steps, variance="small")
    drawn = inpaint(axes.denoise, axes.images, KNOWN, build_schedule(spec), sampler, rng(), resamples)
    torch.testing.assert_close(drawn[0], mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(drawn[1:].T @ drawn[1:], covariance, rtol=0, atol=1e-10)
    # The beginning; in all steps but the last the sampler's noise and the known part's, and noise to go back up.
    assert axes.next == 1 + 2 * draws


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler", "heun", "dpm_solver_pp_2m"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_known_pixels_stay_to_the_bit_and_hidden_ones_are_never_looked_at(name: str, schedule: str) -> None:
    images = torch.rand(5, 1, 4, 4, generator=rng()) * 2 - 1
    known = torch.rand(5, 1, 4, 4, generator=rng(1)) < 0.5

    def fill(images: Tensor) -> Tensor:
        return inpaint(gaussian_denoise, images, known, build_schedule({"name": schedule}), Sampler(name, 4), rng(2), 3)

    filled = fill(images)
    assert torch.equal(filled[known], images[known])
    assert not (filled == images)[~known].any()
    assert torch.equal(fill(torch.where(known, images, 123.0)), filled)


def test_the_steps_are_those_of_the_sampler() -> None:
    """With nothing known and no resamples it is the sampler itself."""
    schedule = build_schedule({"name": "cosine"})
    nothing = torch.tensor(False)
    images = torch.zeros(6, 1, dtype=torch.float64)
    for name in ("ddim", "euler", "heun"):
        filled = inpaint(gaussian_denoise, images, nothing, schedule, Sampler(name, 9), rng())
        plain = Sampler(name, 9)(gaussian_denoise, normal_like(images, rng()), schedule, None)
        torch.testing.assert_close(filled, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("name", "steps"), [("ode", 50), ("heun", 300)])
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.9])
def test_edits_along_the_ode_have_the_closed_form(schedule: str, name: str, steps: int, strength: float) -> None:
    """Every quantile of the noisy images at the strength goes to the same quantile of the data."""
    parts = build_schedule({"name": schedule})
    time = torch.tensor([strength], dtype=torch.float64)
    level = Level(*(part.item() for part in parts.at(time)))
    images = torch.full((4000, 1), -0.8, dtype=torch.float64)
    edited = edit(gaussian_denoise, images, strength, parts, Sampler(name, steps), rng())
    noisy = level.alpha * images + level.sigma * normal_like(images, rng())
    expected = MEAN + STD * (noisy - level.alpha * MEAN) / marginal_std(level)
    torch.testing.assert_close(edited, expected, rtol=0, atol=5e-3)
    mean = MEAN + STD * level.alpha * (-0.8 - MEAN) / marginal_std(level)
    assert edited.mean().item() == pytest.approx(mean, abs=0.03)
    assert edited.std().item() == pytest.approx(STD * level.sigma / marginal_std(level), rel=0.04, abs=1e-3)


def test_edits_by_a_chain_are_drawn_from_the_posterior() -> None:
    schedule = build_schedule({"name": "cosine", "num_steps": 400})
    level = Level(*(part.item() for part in schedule.at(torch.tensor([0.4], dtype=torch.float64))))
    images = torch.full((20_000, 1), -0.8, dtype=torch.float64)
    edited = edit(gaussian_denoise, images, 0.4, schedule, Sampler("ddpm", 400), rng())
    factor = level.alpha * STD**2 / marginal_std(level) ** 2
    mean = MEAN + factor * level.alpha * (-0.8 - MEAN)
    variance = (factor * level.sigma) ** 2 + (STD * level.sigma / marginal_std(level)) ** 2
    assert edited.mean().item() == pytest.approx(mean, abs=0.012)
    assert edited.std().item() == pytest.approx(math.sqrt(variance), rel=0.02)


@pytest.mark.parametrize("name", ["ddpm", "heun", "ode"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_strength_0_keeps_the_images_and_1_samples_from_noise_alone(name: str, schedule: str) -> None:
    parts, sampler = build_schedule({"name": schedule}), Sampler(name, 6)
    images = torch.rand(3, 1, 4, 4, generator=rng())
    assert edit(gaussian_denoise, images, 0.0, parts, sampler, rng()) is images
    generator = rng(1)
    plain = sampler(gaussian_denoise, normal_like(images, generator), parts, generator)
    assert torch.equal(edit(gaussian_denoise, images, 1.0, parts, sampler, rng(1)), plain)


@pytest.mark.parametrize(("strength", "calls"), [(0.001, 1), (0.3, 3), (0.55, 6), (0.9, 9)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_edit_takes_its_share_of_the_steps_from_its_time_on(strength: float, calls: int, schedule: str) -> None:
    parts, seen = build_schedule({"name": schedule}), []

    def denoise(noisy: Tensor, level: Level[float]) -> Tensor:
        seen.append(level)
        return gaussian_denoise(noisy, level)

    edit(denoise, torch.zeros(2, 1), strength, parts, Sampler("ddim", 10), rng())
    expected = parts.at(torch.tensor([strength], dtype=torch.float64))
    assert len(seen) == calls
    assert seen[0].sigma == pytest.approx(expected.sigma.item(), rel=1e-9)
    ratios = [level.sigma / level.alpha for level in seen]
    assert ratios == sorted(ratios, reverse=True)


def test_all_steps_of_a_chain_stay_all_steps_in_an_edit() -> None:
    """Large variances are for chains of which no step is left out, wherever they begin."""
    schedule = build_schedule({"name": "linear", "num_steps": 100})
    images = torch.zeros(5, 1)
    drawn = {
        variance: edit(gaussian_denoise, images, 0.37, schedule, Sampler("ddpm", 100, **options), rng())
        for variance, options in {"none": {}, "large": {"variance": "large"}, "small": {"variance": "small"}}.items()
    }
    assert torch.equal(drawn["none"], drawn["large"])
    assert not torch.equal(drawn["none"], drawn["small"])
    few = [
        edit(gaussian_denoise, images, 0.37, schedule, Sampler("ddpm", 50, **options), rng())
        for options in ({}, {"variance": "small"})
    ]
    assert torch.equal(*few)


def test_mistakes_are_named() -> None:
    schedule, images = build_schedule({"name": "cosine"}), torch.zeros(2, 1)
    with pytest.raises(UserError, match=r"--strength\) must be from 0 to 1, not 1.5"):
        edit(gaussian_denoise, images, 1.5, schedule, Sampler("ddim"), rng())
    with pytest.raises(UserError, match=r"the sampler ode chooses its own steps and cannot inpaint: .*--sampler"):
        inpaint(gaussian_denoise, images, KNOWN[:1], schedule, Sampler("ode"), rng())
    with pytest.raises(UserError, match=r"at least once \(--resamples\), not 0 times"):
        inpaint(gaussian_denoise, images, KNOWN[:1], schedule, Sampler("ddim"), rng(), 0)
