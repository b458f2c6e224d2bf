"""Films of noise and of samplers at work."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_gen.diffusion.film import Recorder, add_noise, film_levels
from lightning_gen.diffusion.samplers.base import Sampler
from lightning_gen.diffusion.schedules import Level, build_schedule
from tests.diffusion.laws import flow_gaussian, gaussian_denoise, marginal_std

SCHEDULES = ["linear", "cosine", "sigmoid", "edm", "straight"]
SAMPLERS = ["ddpm", "ddim", "euler", "heun", "dpm_solver_pp_2m", "ode"]
NOISE = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_goes_from_the_image_itself_to_nearly_unit_noise(schedule: str) -> None:
    images = torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    parts = build_schedule({"name": schedule})
    film = add_noise(images, [0.0, 0.25, 0.5, 1.0], parts, torch.Generator().manual_seed(0))
    assert torch.equal(film.noisy[0], images)
    assert film.levels[0][:2] == (1.0, 0.0)
    assert film.noisy[-1].std().item() == pytest.approx(1, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([film.noisy[-1].flatten(), images.flatten()]))[0, 1]) < 0.05
    assert torch.equal(film.images, images.expand(4, -1, -1, -1, -1))
    # One noise along a row: what is left when the image is taken away is the same at all times.
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for level, noisy in zip(film.levels[1:], film.noisy[1:], strict=True):
        size = math.hypot(level.alpha, level.sigma)
        torch.testing.assert_close(noisy * size, level.alpha * images + level.sigma * noise, rtol=1e-5, atol=1e-5)
    ratios = [level.sigma / level.alpha if level.alpha else math.inf for level in film.levels]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_film_shows_the_states_of_a_sampler_at_even_steps(name: str, schedule: str) -> None:
    parts, sampler = build_schedule({"name": schedule}), Sampler(name, 40)
    recorder = Recorder(gaussian_denoise, film_levels(parts, sampler, 6))
    samples = sampler(recorder, NOISE, parts, torch.Generator().manual_seed(0))
    assert torch.equal(samples, sampler(gaussian_denoise, NOISE, parts, torch.Generator().manual_seed(0)))
    film = recorder.film(samples)
    assert film.noisy.shape == film.images.shape == (6, 9, 1)
    assert torch.equal(film.noisy[-1], samples.float())
    assert torch.equal(film.images[-1], samples.float())
    torch.testing.assert_close(film.noisy[0], NOISE.float() * parts.prior_std / math.hypot(*film.levels[0][:2]))
    assert film.levels[-1][:2] == (1.0, 0.0)
    if name != "ode":
        assert film.levels == parts.levels(40)[::8]
    for level, noisy, estimates in zip(film.levels[:-1], film.noisy, film.images, strict=False):
        state = noisy.double() * math.hypot(level.alpha, level.sigma)
        torch.testing.assert_close(gaussian_denoise(state, level), estimates.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["heun", "ode"])
def test_states_lie_on_the_closed_form_of_the_flow(name: str) -> None:
    """Quantiles keep their places at every level; less than a grey level off, though some are within a step."""
    parts = build_schedule({"name": "straight"})
    sampler = Sampler(name, 60)
    recorder = Recorder(gaussian_denoise, film_levels(parts, sampler, 7))
    film = recorder.film(sampler(recorder, NOISE, parts, None))
    quantiles = (flow_gaussian(NOISE, parts) - 0.3) / 0.5
    for level, noisy in zip(film.levels, film.noisy, strict=True):
        expected = (level.alpha * 0.3 + marginal_std(level) * quantiles) / math.hypot(level.alpha, level.sigma)
        torch.testing.assert_close(noisy.double(), expected, rtol=0, atol=1 / 127.5)


def test_of_two_questions_at_a_level_the_second_is_kept() -> None:
    parts = build_schedule({"name": "straight"})
    asked: dict[Level[float], list[Tensor]] = {}

    def denoise(noisy: Tensor, level: Level[float]) -> Tensor:
        asked.setdefault(level, []).append(noisy)
        return gaussian_denoise(noisy, level)

    sampler = Sampler("heun", 4)
    recorder = Recorder(denoise, film_levels(parts, sampler, 5))
    film = recorder.film(sampler(recorder, NOISE, parts, None))
    for level, noisy in zip(film.levels[1:-1], film.noisy[1:], strict=False):
        first, second = asked[level]
        assert not torch.equal(first, second)
        assert torch.equal(noisy, (second / math.hypot(level.alpha, level.sigma)).float())


@pytest.mark.parametrize(("frames", "steps", "number"), [(2, 50, 2), (11, 50, 11), (11, 4, 5), (5, 1, 2)])
def test_there_are_no_more_frames_than_states(frames: int, steps: int, number: int) -> None:
    parts = build_schedule({"name": "cosine"})
    levels = film_levels(parts, Sampler("ddim", steps), frames)
    assert len(set(levels)) == len(levels) == number
    assert [levels[0], levels[-1]] == [parts.levels(steps)[0], parts.levels(steps)[-1]]
