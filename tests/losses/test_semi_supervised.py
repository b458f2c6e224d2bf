import math

import pytest
import torch
import torch.nn.functional as F

from lightning_gen.errors import UserError
from lightning_gen.losses.semi_supervised import (
    fake_loss,
    feature_matching_loss,
    labelled_loss,
    real_probability,
    unlabelled_loss,
)

# exp(l) is 1, 2 and 3, 1, so Z is 3 and 4, and D(x) = Z / (Z + 1) is 3/4 and 4/5.
LOGITS = torch.tensor([[0.0, math.log(2)], [math.log(3), 0.0]])


def with_generated_class(logits: torch.Tensor) -> torch.Tensor:
    """K + 1 logits, of which the last, of the class "generated", is 0."""
    return torch.cat([logits, torch.zeros(len(logits), 1)], 1)


def test_the_three_losses_by_hand() -> None:
    assert real_probability(LOGITS).tolist() == pytest.approx([3 / 4, 4 / 5])
    labelled = -(math.log(2 / 3) + math.log(3 / 4)) / 2
    assert labelled_loss(LOGITS, torch.tensor([1, 0])).item() == pytest.approx(labelled, rel=1e-6)
    assert unlabelled_loss(LOGITS).item() == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2, rel=1e-6)
    assert fake_loss(LOGITS).item() == pytest.approx(-(math.log(1 / 4) + math.log(1 / 5)) / 2, rel=1e-6)


def test_they_are_those_of_a_softmax_over_one_more_class() -> None:
    logits = 3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(50) % 7
    wider = with_generated_class(logits)
    generated = wider.softmax(1)[:, 7]
    torch.testing.assert_close(real_probability(logits), 1 - generated)
    torch.testing.assert_close(fake_loss(logits), F.cross_entropy(wider, torch.full((50,), 7)))
    torch.testing.assert_close(unlabelled_loss(logits), -(1 - generated).log().mean())
    # -log p(y | x) + log p(y <= K | x) = -log p(y | x, y <= K)
    among_real = F.cross_entropy(wider, labels) + (1 - generated).log().mean()
    torch.testing.assert_close(labelled_loss(logits, labels), among_real)
    torch.testing.assert_close(labelled_loss(logits, labels), F.cross_entropy(logits, labels))


def test_the_generated_classs_logit_may_be_fixed_at_zero() -> None:
    free = torch.randn(20, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fixed = free[:, :7] - free[:, 7:]
    torch.testing.assert_close(fake_loss(fixed), F.cross_entropy(free, torch.full((20,), 7)))


def test_losses_stay_finite_where_a_probability_is_zero_in_float() -> None:
    for size in (-500.0, 500.0):
        logits = torch.full((2, 3), size, requires_grad=True)
        total = labelled_loss(logits, torch.tensor([0, 1])) + unlabelled_loss(logits) + fake_loss(logits)
        total.backward()
        assert total.item() == pytest.approx(math.log(3) + 500, rel=1e-2)
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_feature_matching_by_hand() -> None:
    real = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # mean 2, 4
    fake = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]])  # mean 1, 1
    assert feature_matching_loss(real, fake, "squared").item() == pytest.approx((1 + 9) / 2)
    assert feature_matching_loss(real, fake, "absolute").item() == pytest.approx((1 + 3) / 2)
    with pytest.raises(UserError, match=r"model\.feature_distance"):
        feature_matching_loss(real, fake, "cubed")  # type: ignore[arg-type]
