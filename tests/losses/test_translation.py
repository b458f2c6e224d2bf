from __future__ import annotations

import math

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.losses.translation import criteria, discriminator_loss, mean_feature_loss, unit_square_error


def test_cross_entropy_is_that_of_the_sigmoid() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    criterion = criteria["non_saturating"]
    assert criterion(logits, True).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert criterion(logits, False).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_least_squares_have_the_scale_of_cyclegan() -> None:
    """Without the halves of LSGAN, which would double the weight of the cycle."""
    logits = torch.tensor([[0.5, 3.0]])
    criterion = criteria["least_squares"]
    assert criterion(logits, True).item() == pytest.approx((0.25 + 4) / 2)
    assert criterion(logits, False).item() == pytest.approx((0.25 + 9) / 2)


def test_the_discriminators_objective_is_halved() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([1.0])
    loss = discriminator_loss(criteria["least_squares"], real, fake)
    assert loss.item() == pytest.approx((1 + 1) / 2)
    zeros = torch.zeros(2, 1, 3, 3)
    assert discriminator_loss(criteria["non_saturating"], zeros, zeros).item() == pytest.approx(math.log(2))


def test_gradients_push_the_logits_apart() -> None:
    for name in criteria:
        real, fake = torch.zeros(3, requires_grad=True), torch.full((3,), 0.5, requires_grad=True)
        discriminator_loss(criteria[name], real, fake).backward()
        assert (real.grad < 0).all()  # type: ignore[operator]
        assert (fake.grad > 0).all()  # type: ignore[operator]


def test_feature_loss_compares_means_over_the_batch_and_sums_over_layers() -> None:
    real = [torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.tensor([[[[2.0]]], [[[4.0]]]])]
    fake = [torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 7.0]]), torch.tensor([[[[1.0]]]])]
    # First layer: means (2, 4) and (2, 3), so (0 + 1) / 2; second: means 3 and 1, so 4.
    assert mean_feature_loss(real, fake).item() == pytest.approx(0.5 + 4)


def test_square_error_is_on_the_scale_from_zero_to_one() -> None:
    images, targets = torch.tensor([-1.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, -1.0])
    zero_to_one = (((images + 1) / 2 - (targets + 1) / 2) ** 2).mean()
    assert unit_square_error(images, targets).item() == pytest.approx(zero_to_one.item()) == pytest.approx(1.25 / 3)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(UserError, match=r"Unknown loss of a translation 'hinge'\. Known: least"):
        criteria["hinge"]
