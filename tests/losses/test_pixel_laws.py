"""Laws of pixels: normalized over all levels, equal to scipy's, and sampled as they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import from_levels, to_levels
from lightning_gen.losses.pixel_laws import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    PixelLaw,
    log_logistic_bins,
    pixel_laws,
)

LAWS = [Bernoulli(), Categorical(4), Categorical(256), DiscretizedLogistic(4), DiscretizedLogistic(256)]


def random_parameters(law: PixelLaw, channels: int, seed: int = 0, size: int = 2) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(3, law.num_parameters(channels), size, size, generator=rng, dtype=torch.float64) * 2


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{type(law).__name__}{law.levels}")
def test_the_probabilities_of_all_levels_sum_to_one(law: PixelLaw) -> None:
    parameters = random_parameters(law, 1)
    values = from_levels(torch.arange(law.levels), law.levels)
    total = sum(law.log_prob(parameters, value.expand(3, 1, 2, 2).double()).exp() for value in values)
    assert isinstance(total, Tensor)
    torch.testing.assert_close(total, torch.ones(3, 2, 2, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "law", [Bernoulli(), Categorical(4), DiscretizedLogistic(4)], ids=lambda law: type(law).__name__
)
def test_channels_are_independent(law: PixelLaw) -> None:
    parameters = random_parameters(law, 2, size=1)
    values = from_levels(torch.arange(law.levels), law.levels).double()
    total = torch.zeros(3, 1, 1, dtype=torch.float64)
    for pair in itertools.product(values, repeat=2):
        total += law.log_prob(parameters, torch.stack(pair).view(1, 2, 1, 1).expand(3, 2, 1, 1)).exp()
    torch.testing.assert_close(total, torch.ones(3, 1, 1, dtype=torch.float64), rtol=0, atol=1e-6)


def test_bins_of_a_logistic_are_differences_of_its_distribution_function() -> None:
    images = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    mean, log_scale = torch.tensor(0.31, dtype=torch.float64), torch.tensor(-2.2, dtype=torch.float64)
    edges = np.concatenate([[-np.inf], (images[1:] + images[:-1]).numpy() / 2, [np.inf]])
    law = stats.logistic(loc=0.31, scale=math.exp(-2.2))
    above = edges[:-1] > 0.31  # where the distribution function is near one, take what is above it
    expected = np.log(np.where(above, -np.diff(law.sf(edges)), np.diff(law.cdf(edges))))
    np.testing.assert_allclose(log_logistic_bins(images, mean, log_scale, 256).numpy(), expected, rtol=1e-9)


def test_far_bins_of_a_narrow_logistic_are_finite_and_have_gradients() -> None:
    means = torch.full((256,), 0.9, requires_grad=True)
    log_scales = torch.full((256,), -9.0, requires_grad=True)
    found = log_logistic_bins(from_levels(torch.arange(256), 256), means, log_scales, 256)
    found.sum().backward()
    assert found.isfinite().all()
    assert means.grad is not None
    assert means.grad.isfinite().all()
    assert found.min() < -1000


@pytest.mark.parametrize("std", [None, 0.3])
def test_a_gaussian_is_the_normal_density_times_the_width_of_a_level(std: float | None) -> None:
    law = Gaussian(std)
    parameters = random_parameters(law, 2)
    images = torch.rand(3, 2, 2, 2, dtype=torch.float64) * 2 - 1
    means = parameters[:, :2].numpy()
    stds = std if std is not None else parameters[:, 2:].exp().numpy()
    expected = (stats.norm.logpdf(images.numpy(), means, stds) + math.log(2 / 255)).sum(1)
    np.testing.assert_allclose(law.log_prob(parameters, images).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "law", [*LAWS[:3], DiscretizedLogistic(256), Gaussian(0.2)], ids=lambda law: f"{type(law).__name__}{law.levels}"
)
def test_samples_have_the_law_s_mean(law: PixelLaw) -> None:
    one = random_parameters(law, 2, size=1)[:1] / (20 if isinstance(law, Gaussian) else 1)
    if isinstance(law, DiscretizedLogistic):
        one = torch.cat([one[:, :2] / 20, torch.full((1, 2, 1, 1), -2.5)], 1)  # so that next to nothing is cut off
    parameters = one.expand(20000, -1, 1, 1).float()
    samples = law.sample(parameters, generator=torch.Generator().manual_seed(1))
    again = law.sample(parameters, generator=torch.Generator().manual_seed(1))
    assert torch.equal(samples, again)
    assert samples.abs().max() <= 1
    if not isinstance(law, Gaussian):
        torch.testing.assert_close(law.observe(samples) if law.levels > 2 else samples, samples)
    torch.testing.assert_close(samples.mean(0), law.mean(parameters[:1])[0], rtol=0, atol=0.02)


def test_a_categorical_draws_every_level_as_often_as_it_says() -> None:
    law = Categorical(4)
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().view(1, 4, 1, 1).expand(40000, -1, 1, 1)
    levels = to_levels(law.sample(logits, generator=torch.Generator().manual_seed(0)), 4)
    found = torch.bincount(levels.flatten(), minlength=4) / 40000
    torch.testing.assert_close(found, torch.tensor([0.1, 0.2, 0.3, 0.4]), rtol=0, atol=0.01)


def test_levels_are_those_of_eight_bits() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_levels(from_levels(levels, 256), 256), levels)
    assert from_levels(torch.tensor([0, 255]), 256).tolist() == [-1, 1]
    assert to_levels(torch.tensor([-1.5, -0.1, 0.1, 1.5]), 2).tolist() == [0, 0, 1, 1]


def test_grey_is_made_black_or_white() -> None:
    grey = torch.full((10000, 1, 1, 1), 0.4)
    drawn = Bernoulli().observe(grey, generator=torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {-1, 1}
    assert float((drawn > 0).float().mean()) == pytest.approx(0.7, abs=0.02)
    assert Bernoulli("threshold").observe(grey).unique().tolist() == [1]


def test_a_gaussian_observes_levels_with_noise_of_one_level() -> None:
    images = torch.full((20000, 1, 1, 1), 0.2004)
    noisy = Gaussian().observe(images, generator=torch.Generator().manual_seed(0))
    nearest = from_levels(to_levels(images[:1], 256), 256).item()
    assert (noisy - nearest).abs().max() <= 1 / 255 + 1e-6
    assert float((noisy - nearest).std()) == pytest.approx(2 / 255 / math.sqrt(12), rel=0.03)


def test_what_is_no_law_is_refused() -> None:
    for make in (lambda: Categorical(1), lambda: DiscretizedLogistic(1), lambda: Gaussian(0.0)):
        with pytest.raises(UserError):
            make()
    with pytest.raises(UserError, match="stochastic or threshold"):
        Bernoulli("nearest")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="bernoulli"):
        _ = pixel_laws["bernouli"]
