from __future__ import annotations

import math

import pytest
import torch

from lightning_gen.diffusion.schedules import Level, build_schedule
from lightning_gen.diffusion.targets import Target, build_target, convert
from lightning_gen.diffusion.weights import ImageWeight, build_weight
from lightning_gen.errors import UserError

TARGETS = ["noise", "image", "v", "velocity", "edm"]
SCHEDULES = ["linear", "cosine", "sigmoid", "edm", "straight"]


def target(name: str) -> Target:
    return build_target({"name": name})


def example(schedule: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Level[torch.Tensor]]:
    """Images, noise, noisy images at four levels, and the levels as columns."""
    rng = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 4, 5, generator=rng, dtype=torch.float64)
    levels = build_schedule({"name": schedule}).at(torch.tensor([0.01, 0.3, 0.7, 0.99], dtype=torch.float64))
    level = Level(*(part[:, None] for part in levels))
    return images, noise, level.alpha * images + level.sigma * noise, level


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("first", TARGETS)
@pytest.mark.parametrize("second", TARGETS)
def test_targets_convert_into_one_another(schedule: str, first: str, second: str) -> None:
    images, noise, noisy, level = example(schedule)
    output = target(first).of(images, noise, level)
    converted = convert(output, target(first), target(second), noisy, level)
    torch.testing.assert_close(converted, target(second).of(images, noise, level), rtol=0, atol=1e-10)
    torch.testing.assert_close(target(first).image_of(output, noisy, level), images, rtol=0, atol=1e-10)
    torch.testing.assert_close(target(first).noise_of(output, noisy, level), noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", ["linear", "straight"])
def test_targets_are_those_of_the_papers(schedule: str) -> None:
    images, noise, _, level = example(schedule)
    assert torch.equal(target("noise").of(images, noise, level), noise)
    assert torch.equal(target("image").of(images, noise, level), images)
    assert torch.equal(target("v").of(images, noise, level), -level.sigma * images + level.alpha * noise)
    assert torch.equal(target("velocity").of(images, noise, level), noise - images)


def test_the_velocity_is_the_derivative_of_the_straight_line() -> None:
    images, noise, _, _ = example("straight")
    schedule = build_schedule({"name": "straight"})
    time, step = torch.tensor([0.3], dtype=torch.float64), 0.25

    def noisy(at: torch.Tensor) -> torch.Tensor:
        return schedule.alpha(at) * images + schedule.sigma(at) * noise

    slope = (noisy(time + step) - noisy(time)) / step
    level = Level(*(part.item() for part in schedule.at(time)))
    torch.testing.assert_close(target("velocity").of(images, noise, level), slope, rtol=0, atol=1e-12)


def test_edm_is_preconditioned_as_in_table_1() -> None:
    images, noise, noisy, level = example("edm")
    sigma, data = level.sigma, 0.5
    skip = data**2 / (sigma**2 + data**2)
    out = sigma * data / (sigma**2 + data**2).sqrt()
    edm = target("edm")
    torch.testing.assert_close(edm.input_scale(level.alpha, sigma), 1 / (sigma**2 + data**2).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(edm.of(images, noise, level), (images - skip * noisy) / out, rtol=1e-9, atol=1e-9)
    output = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(edm.image_of(output, noisy, level), skip * noisy + out * output, rtol=1e-10, atol=1e-10)


def test_edm_of_other_schedules_is_that_of_the_image_with_more_noise() -> None:
    """x / alpha is an image with noise sigma / alpha added."""
    images, noise, noisy, level = example("cosine")
    plain = Level(torch.ones_like(level.alpha), level.sigma / level.alpha, level.noise_level)
    edm = target("edm")
    torch.testing.assert_close(edm.of(images, noise, level), edm.of(images, noise, plain), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        edm.input_scale(level.alpha, level.sigma) * noisy,
        edm.input_scale(plain.alpha, plain.sigma) * noisy / level.alpha,
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("name", ["noise", "v", "velocity"])
def test_inputs_are_scaled_only_where_noise_makes_them_large(name: str) -> None:
    for schedule in ("linear", "straight"):
        _, _, _, level = example(schedule)
        torch.testing.assert_close(target(name).input_scale(level.alpha, level.sigma), torch.ones_like(level.alpha))
    assert target(name).input_scale(1.0, 80.0) == pytest.approx(1 / math.sqrt(6401), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "noise"])
def test_targets_find_the_image_where_there_is_noise_alone(name: str) -> None:
    images, noise, _, _ = example("straight")
    level = Level(0.0, 1.0, 1000.0)
    found = target(name).image_of(target(name).of(images, noise, level), noise, level)
    torch.testing.assert_close(found, images, rtol=0, atol=1e-12)
    assert target("noise").needs_signal
    assert not target(name).needs_signal


@pytest.mark.parametrize("schedule", ["linear", "edm", "straight"])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("weight", ["snr", "min_snr", "edm"])
def test_a_weighting_weighs_errors_of_the_image_alike_whatever_is_predicted(
    schedule: str, name: str, weight: str
) -> None:
    images, noise, noisy, level = example(schedule)
    chosen = build_weight({"name": weight})
    assert isinstance(chosen, ImageWeight)
    error = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output = target(name).of(images, noise, level) + error
    image_error = target(name).image_of(output, noisy, level) - images
    of_target = chosen.of_target(target(name), level.alpha, level.sigma) * error.square()
    of_image = chosen.of_image(level.alpha, level.sigma) * image_error.square()
    torch.testing.assert_close(of_target, of_image, rtol=1e-6, atol=1e-12)


def test_weights_are_those_of_the_papers() -> None:
    # Signal-to-noise ratios 9, 1 and 1 / 9.
    alpha, sigma = torch.tensor([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]], dtype=torch.float64).sqrt()

    def weights(weight: str, name: str) -> list[float]:
        found: list[float] = build_weight({"name": weight}).of_target(target(name), alpha, sigma).tolist()
        return found

    for name in TARGETS:
        assert weights("simple", name) == [1, 1, 1]
    assert weights("snr", "noise") == pytest.approx([1, 1, 1])
    assert weights("snr", "image") == pytest.approx([9, 1, 1 / 9])
    assert weights("snr", "v") == pytest.approx([0.9, 0.5, 0.1])
    # Hang et al. 2023, section 3.4: min(snr, 5), / snr for the noise, and / (snr + 1) for v.
    assert weights("min_snr", "image") == pytest.approx([5, 1, 1 / 9])
    assert weights("min_snr", "noise") == pytest.approx([5 / 9, 1, 1])
    assert weights("min_snr", "v") == pytest.approx([0.5, 0.5, 0.1])


def test_edms_weight_is_1_of_its_target() -> None:
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    alpha, weight = torch.ones_like(sigma), build_weight({"name": "edm"})
    assert isinstance(weight, ImageWeight)
    expected = [(s**2 + 0.25) / (s * 0.5) ** 2 for s in (0.002, 0.5, 80.0)]
    assert weight.of_image(alpha, sigma).tolist() == pytest.approx(expected, rel=1e-12)
    assert weight.of_target(target("edm"), alpha, sigma).tolist() == pytest.approx([1, 1, 1], rel=1e-12)


def test_mistakes_name_the_key() -> None:
    with pytest.raises(UserError, match=r"Unknown target 'speed'"):
        build_target({"name": "speed"})
    with pytest.raises(UserError, match=r"model.target: v has no option data_std"):
        build_target({"name": "v", "data_std": 1.0})
    with pytest.raises(UserError, match=r"model.target.data_std must be above 0"):
        build_target({"name": "edm", "data_std": 0.0})
    with pytest.raises(UserError, match=r"Unknown loss weight 'minsnr'.* Did you mean 'min_snr'"):
        build_weight({"name": "minsnr"})
