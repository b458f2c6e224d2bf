import math

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.losses import penalties
from lightning_gen.losses.penalties import image_gradients

SHAPE = (5, 2, 3, 3)
WEIGHTS = torch.linspace(-1, 1, 18, dtype=torch.float64)


def images(seed: int) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def linear(batch: Tensor) -> Tensor:
    """A critic whose gradient is WEIGHTS at every image."""
    return batch.flatten(1) @ WEIGHTS


def quadratic(batch: Tensor) -> Tensor:
    """A critic whose gradient at an image is three times the image."""
    return 1.5 * batch.flatten(1).square().sum(1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r1", WEIGHTS.square().sum()),
        ("r2", WEIGHTS.square().sum()),
        ("zero_centered", WEIGHTS.square().sum()),
        ("wgan_gp", (WEIGHTS.norm() - 1) ** 2),
        ("dragan", (WEIGHTS.norm() - 1) ** 2),
    ],
)
def test_a_linear_critics_gradient_is_the_same_everywhere(name: str, expected: Tensor) -> None:
    assert getattr(penalties, name)(linear, images(0), images(1)).tolist() == pytest.approx([expected.item()] * 5)


def test_r1_and_r2_of_a_quadratic_critic() -> None:
    real, fake = images(0), images(1)
    expected = [9 * real.flatten(1).square().sum(1), 9 * fake.flatten(1).square().sum(1)]
    for name, value in zip(("r1", "r2"), expected, strict=True):
        assert torch.allclose(getattr(penalties, name)(quadratic, real, fake), value)


def test_interpolates_lie_between_each_pair_at_a_place_of_its_own() -> None:
    real, fake = torch.zeros(1000, 1, 2, 2, dtype=torch.float64), torch.ones(1000, 1, 2, 2, dtype=torch.float64)
    # At e times ones, the quadratic critic's gradient has norm 3 e * 2.
    places = penalties.zero_centered(quadratic, real, fake).sqrt() / 6
    assert 0 <= places.min() < 0.01
    assert 0.99 < places.max() <= 1
    assert places.mean().item() == pytest.approx(0.5, abs=0.03)
    assert places.var().item() == pytest.approx(1 / 12, rel=0.1)
    again = penalties.wgan_gp(quadratic, real, fake)
    assert (again.sqrt().sub(5).abs() <= 6).all()


def test_dragan_looks_around_real_images_only() -> None:
    real = images(0)
    first = penalties.dragan(quadratic, real, images(1))
    torch.manual_seed(0)
    second = penalties.dragan(quadratic, real, torch.full(SHAPE, math.nan, dtype=torch.float64))
    assert second.isfinite().all()
    assert not torch.equal(first, second)
    # |y - x| is at most half the deviation of the pixels in each of 18 pixels.
    norm = 3 * real.flatten(1).norm(dim=1)
    reach = 3 * 0.5 * real.std() * math.sqrt(18)
    assert (second.sqrt() <= (norm + reach - 1).abs()).all()


def test_gradients_equal_finite_differences_and_can_be_differentiated_again() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0)).double()
    real = images(0)
    gradients = image_gradients(critic, real)
    step = 1e-6
    for pixel in range(0, 18, 5):
        shift = torch.zeros(18, dtype=torch.float64).index_fill_(0, torch.tensor([pixel]), step).view(SHAPE[1:])
        difference = (critic(real + shift) - critic(real - shift)) / (2 * step)
        assert torch.allclose(gradients[:, pixel], difference, atol=1e-8)
    weight = critic[0].weight

    def penalty() -> Tensor:
        return penalties.r1(critic, real, real).mean()

    penalty().backward()
    assert weight.grad is not None
    with torch.no_grad():
        weight[0, 0, 0, 0] += step
        above = penalty().item()
        weight[0, 0, 0, 0] -= 2 * step
        below = penalty().item()
    assert weight.grad[0, 0, 0, 0].item() == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_a_vanishing_gradient_has_a_finite_derivative() -> None:
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    penalties.wgan_gp(lambda batch: scale * linear(batch), images(0), images(1)).mean().backward()
    assert scale.grad is not None
    assert scale.grad.isfinite()
