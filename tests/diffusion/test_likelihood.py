from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lightning_gen.diffusion.likelihood import (
    build_likelihood,
    chain,
    log_density,
    log_probability_of_level,
    prior_divergence,
)
from lightning_gen.diffusion.samplers.ancestral import posterior
from lightning_gen.diffusion.schedules import Level, build_schedule
from lightning_gen.errors import UserError
from tests.diffusion.laws import MEAN, STD, gaussian_denoise, marginal_std

SCHEDULES = ["linear", "cosine", "sigmoid", "edm", "straight"]
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def normal(mean: float, std: float) -> Normal:
    return Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))


def images_of(level: int, number: int) -> Tensor:
    """One image of one value at so many pixels."""
    return LEVELS[level].expand(1, 1, 1, number)


def exact_nats(level: int) -> float:
    """-ln of the probability that a Gaussian value is nearest to a level."""
    low, high = LEVELS[level].item() - 1 / 255, LEVELS[level].item() + 1 / 255
    return -math.log(norm.cdf((high - MEAN) / STD) - norm.cdf((low - MEAN) / STD))


def expected_bound(level: int, schedule: str, steps: int) -> float:
    """The mean of the variational bound of one pixel over its noise, by closed forms and a quadrature."""
    x = LEVELS[level].item()
    levels = chain(build_schedule({"name": schedule}), steps)
    std = build_schedule({"name": schedule}).prior_std
    first = levels[0]
    total = kl_divergence(normal(first.alpha * x, first.sigma), normal(0.0, std)).item()
    for above, below in pairwise(levels):
        gain = above.alpha * STD**2 / marginal_std(above) ** 2
        error = (1 - gain * above.alpha) ** 2 * (x - MEAN) ** 2 + (gain * above.sigma) ** 2
        law = posterior(above, below)
        # KL of two Gaussians of one variance whose means differ by the estimate's error.
        total += law.of_image**2 * error / (2 * law.variance)
    lowest = levels[-1]
    noise = torch.linspace(-7, 7, 4001, dtype=torch.float64)
    mean = gaussian_denoise(lowest.alpha * x + lowest.sigma * noise, lowest)
    far = ((x - mean).abs() / lowest.sigma).numpy()
    half = 1 / 255 / lowest.sigma
    logs = np.log(norm.cdf(half - far) - norm.cdf(-half - far))
    return total - float(np.average(logs, weights=norm.pdf(noise.numpy())))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("level", [60, 200])
def test_the_variational_bound_is_its_closed_form_and_above_the_truth(schedule: str, level: int) -> None:
    number = 20000
    bound = build_likelihood({"name": "variational_bound", "steps": 30})
    rng = torch.Generator().manual_seed(0)
    images = images_of(level, 1).expand(number, 1, 1, 1)
    found = bound.nats(gaussian_denoise, images, build_schedule({"name": schedule}), rng)
    expected = expected_bound(level, schedule, 30)
    assert found.shape == (number,)
    assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / number**0.5)
    assert expected > exact_nats(level)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_gets_tight_with_more_steps(schedule: str) -> None:
    gaps = [expected_bound(160, schedule, steps) - exact_nats(160) for steps in (10, 30, 100, 1000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 2 * gaps[-1] > 0
    if schedule in ("edm", "straight"):
        assert gaps[-1] < 0.03, "the steps of chains have an end"


def test_as_many_steps_as_the_schedule_has_are_its_own_and_fewer_have_its_ends() -> None:
    schedule = build_schedule({"name": "linear", "num_steps": 100})
    assert chain(schedule, 100) == chain(schedule, 200) == schedule.levels(100)[:-1]
    levels = chain(schedule, 20)
    assert 15 <= len(levels) <= 20, "the lowest steps of the chain are too far apart for some"
    assert set(levels) < set(schedule.levels(100))
    assert (levels[0], levels[-1]) == (schedule.levels(100)[0], schedule.levels(100)[-2])
    sigmas = [level.sigma for level in chain(build_schedule({"name": "edm"}), 20)]
    assert len(sigmas) == 20
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-1] == pytest.approx(2 / 255)
    assert sigmas == sorted(sigmas, reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_density_of_the_flow_is_that_of_the_law_it_draws(schedule: str) -> None:
    built = build_schedule({"name": schedule})
    values = torch.linspace(-1, 1, 8, dtype=torch.float64).view(4, 1, 1, 2)
    found = log_density(gaussian_denoise, values, built, 50, torch.Generator().manual_seed(0))
    # The flow is linear: it takes N(0, prior_std^2) at time 1 to a Gaussian at the lowest level, where x_0 has alpha.
    start, end = built.levels(1)[0], built.level_of(built.smallest_ratio)
    factor = marginal_std(end) / marginal_std(start)
    law = Normal(end.alpha * MEAN - factor * start.alpha * MEAN, factor * built.prior_std)
    expected = law.log_prob(end.alpha * values).add(math.log(end.alpha)).sum((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    data = Normal(MEAN, STD).log_prob(values).sum((1, 2, 3))
    torch.testing.assert_close(found, data, rtol=0, atol=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("level", [60, 200])
def test_bits_by_the_flow_are_those_of_the_gaussian(schedule: str, level: int) -> None:
    likelihood = build_likelihood({"name": "ode"})
    images = images_of(level, 2).expand(50, 1, 1, 2)
    rng = torch.Generator().manual_seed(0)
    found = likelihood.nats(gaussian_denoise, images, build_schedule({"name": schedule}), rng) / 2
    assert found.mean().item() == pytest.approx(exact_nats(level), abs=0.015)


def test_the_trace_is_unbiased_where_pixels_depend_on_one_another() -> None:
    schedule = build_schedule({"name": "straight"})
    covariance = torch.tensor([[0.3, 0.2], [0.2, 0.4]], dtype=torch.float64)

    def denoise(noisy: Tensor, level: Level[float], clip: bool = False) -> Tensor:
        whole = level.alpha**2 * covariance + level.sigma**2 * torch.eye(2, dtype=torch.float64)
        return noisy @ torch.linalg.solve(whole, level.alpha * covariance)

    point = torch.tensor([0.4, -0.7], dtype=torch.float64)
    found = log_density(denoise, point.expand(400, 2), schedule, 25, torch.Generator().manual_seed(0))
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    assert found.std() > 0.1
    assert found.mean().item() == pytest.approx(law.log_prob(point).item(), abs=4 * found.std().item() / 20)


@pytest.mark.parametrize("std", [0.002, 0.05, 3.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.1, 1.0])
def test_probabilities_of_the_levels_add_up_to_1(mean: float, std: float) -> None:
    found = log_probability_of_level(LEVELS, torch.full_like(LEVELS, mean), std)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert found.isfinite().all(), "however far a level is"
    inner = norm.cdf((LEVELS[100] + 1 / 255 - mean) / std) - norm.cdf((LEVELS[100] - 1 / 255 - mean) / std)
    assert found[100].exp().item() == pytest.approx(inner, abs=1e-12)
    assert found[0].item() == pytest.approx(norm.logcdf((-1 + 1 / 255 - mean) / std), rel=1e-9, abs=1e-300)
    assert found[255].item() == pytest.approx(norm.logsf((1 - 1 / 255 - mean) / std), rel=1e-9, abs=1e-300)


def test_levels_far_from_the_mean_have_probabilities_in_float32() -> None:
    found = log_probability_of_level(LEVELS.float(), torch.tensor(0.0), 0.01)
    exact = log_probability_of_level(LEVELS, torch.zeros_like(LEVELS), 0.01)
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


def test_the_divergence_from_the_prior_is_that_of_gaussians() -> None:
    images = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 1, 1, 3)
    level = Level(0.3, 0.8, 0.0)
    expected = kl_divergence(Normal(0.3 * images, 0.8 * torch.ones_like(images)), normal(0.0, 1.5))
    torch.testing.assert_close(prior_divergence(images, level, 1.5), expected.sum((1, 2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["variational_bound", "ode"])
def test_images_are_rounded_to_levels_and_noise_comes_from_the_generator(name: str) -> None:
    likelihood, schedule = build_likelihood({"name": name, "steps": 5}), build_schedule({"name": "cosine"})
    images = images_of(100, 3).expand(2, 1, 1, 3)

    def nats(shift: float, seed: int) -> Tensor:
        return likelihood.nats(gaussian_denoise, images + shift, schedule, torch.Generator().manual_seed(seed))

    first = nats(0.0, 1)
    assert torch.equal(first, nats(0.9 / 255, 1))
    assert not torch.equal(first, nats(1.1 / 255, 1))
    assert not torch.equal(first, nats(0.0, 2))
    assert likelihood.settings == {"likelihood": name, "steps": 5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "elbo"}, "Unknown diffusion likelihood 'elbo'"),
        ({"name": "ode", "tolerance": 1}, r"model.likelihood: ode has no option tolerance"),
        ({"name": "ode", "steps": 1}, r"model.likelihood.steps must be at least 2, not 1"),
    ],
)
def test_mistakes_name_the_key(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_likelihood(spec)
