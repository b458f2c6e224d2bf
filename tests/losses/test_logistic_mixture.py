"""The mixture of logistics: normalized, equal to scipy's with the published coupling, and sampled as it says."""

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
from lightning_gen.losses.logistic_mixture import LogisticMixture
from lightning_gen.losses.pixel_laws import build_law


def random_parameters(law: LogisticMixture, channels: int, pixels: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    parameters = torch.randn(1, law.num_parameters(channels), 1, pixels, generator=rng, dtype=torch.float64)
    return parameters * 0.8


def every_pixel(levels: int, channels: int) -> Tensor:
    """All values of a pixel, (levels ** channels, channels, 1, 1)."""
    values = from_levels(torch.arange(levels), levels).double()
    return torch.stack([torch.stack(value) for value in itertools.product(values, repeat=channels)])[..., None, None]


@pytest.mark.parametrize(("levels", "channels"), [(256, 1), (4, 1), (6, 3), (2, 3), (5, 2)])
def test_the_probabilities_of_all_values_of_a_pixel_sum_to_one(levels: int, channels: int) -> None:
    law = LogisticMixture(components=4, levels=levels)
    parameters = random_parameters(law, channels)
    pixels = every_pixel(levels, channels).expand(-1, -1, 1, 3)
    total = law.log_prob(parameters.expand(len(pixels), -1, -1, -1), pixels).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(1, 3, dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_pixel_of_three_channels_has_the_probability_of_the_paper_s_equations() -> None:
    law = LogisticMixture(components=2, levels=256)
    assert law.num_parameters(3) == 20
    parameters = random_parameters(law, 3, pixels=1)
    levels = torch.tensor([37, 255, 0])
    red, green, _ = values = from_levels(levels, 256).double()
    weights = np.exp(parameters[0, :2, 0, 0].numpy())
    expected = 0.0
    for number, weight in enumerate(weights / weights.sum()):
        of_component = parameters[0, 2 + 9 * number : 11 + 9 * number, 0, 0]
        scales, (a, b, c) = of_component[3:6].exp(), of_component[6:].tanh()
        means = of_component[:3] + torch.stack([0 * red, a * red, b * red + c * green])
        product = weight
        for value, level, mean, scale in zip(values, levels, means, scales, strict=True):
            logistic = stats.logistic(loc=float(mean), scale=float(scale))
            low = -math.inf if level == 0 else float(value) - 1 / 255
            high = math.inf if level == 255 else float(value) + 1 / 255
            product *= logistic.cdf(high) - logistic.cdf(low)
        expected += product
    found = law.log_prob(parameters, values.view(1, 3, 1, 1))
    assert found.exp().item() == pytest.approx(expected, rel=1e-9)


def test_one_channel_is_a_plain_mixture() -> None:
    law = LogisticMixture(components=3, levels=256)
    assert law.num_parameters(1) == 9
    numbers = [0.2, -1.0, 0.5, 0.3, -2.0, -0.6, -1.0, 0.1, -3.0]
    parameters = torch.tensor(numbers, dtype=torch.float64).view(1, 9, 1, 1)
    weights = np.exp(numbers[:3]) / np.exp(numbers[:3]).sum()
    expected = sum(
        weight * (stats.logistic.cdf(12 / 255, mean, scale) - stats.logistic.cdf(10 / 255, mean, scale))
        for weight, mean, scale in zip(weights, [0.3, -0.6, 0.1], np.exp([-2.0, -1.0, -3.0]), strict=True)
    )
    found = law.log_prob(parameters, torch.full((1, 1, 1, 1), 11 / 255, dtype=torch.float64))
    assert found.exp().item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_value_is_drawn_as_often_as_it_is_probable(channels: int) -> None:
    levels, number = 3, 60000
    law = LogisticMixture(components=2, levels=levels)
    parameters = random_parameters(law, channels, pixels=1).float()
    drawn = law.sample(parameters.expand(number, -1, 1, 1), generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        drawn, law.sample(parameters.expand(number, -1, 1, 1), generator=torch.Generator().manual_seed(1))
    )
    assert drawn.shape == (number, channels, 1, 1)
    index = (to_levels(drawn[..., 0, 0], levels) * levels ** torch.arange(channels - 1, -1, -1)).sum(1)
    observed = torch.bincount(index, minlength=levels**channels).double()
    pixels = every_pixel(levels, channels)
    expected = law.log_prob(parameters.double().expand(len(pixels), -1, 1, 1), pixels).exp().flatten() * number
    assert expected.min() > 5
    assert stats.chisquare(observed.numpy(), (expected / expected.sum() * number).numpy()).pvalue > 1e-3


def test_the_mean_is_that_of_samples() -> None:
    law = LogisticMixture(components=2, levels=256)
    parameters = random_parameters(law, 3, pixels=1).float() / 3
    parameters[:, [5, 6, 7, 14, 15, 16]] = -3.0  # narrow, so that next to nothing is cut off
    drawn = law.sample(parameters.expand(40000, -1, 1, 1), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn.mean(0), law.mean(parameters)[0], rtol=0, atol=0.01)


def test_gradients_are_finite_far_from_every_component() -> None:
    law = LogisticMixture(components=2, levels=256)
    parameters = torch.full((1, 20, 1, 1), -9.0, requires_grad=True)
    law.log_prob(parameters, torch.ones(1, 3, 1, 1)).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_it_is_registered_and_couples_channels() -> None:
    law = build_law({"name": "logistic_mixture", "components": 3})
    assert isinstance(law, LogisticMixture)
    assert law.parameter_channels(3) == [0] * 30
    assert build_law({"name": "bernoulli"}).parameter_channels(3) == [0, 1, 2]
    assert build_law({"name": "categorical", "levels": 2}).parameter_channels(2) == [0, 0, 1, 1]
    assert build_law({"name": "discretized_logistic"}).parameter_channels(2) == [0, 1, 0, 1]


def test_numbers_that_make_no_mixture_are_refused() -> None:
    for options in ({"components": 0}, {"levels": 1}):
        with pytest.raises(UserError, match="at least"):
            LogisticMixture(**options)
    with pytest.raises(UserError, match=r"model\.law"):
        build_law({"name": "logistic_mixture", "parts": 3})
