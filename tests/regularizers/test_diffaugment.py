import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.regularizers import regularizers


def test_the_policy_is_applied_in_its_order() -> None:
    torch.manual_seed(0)
    images = torch.ones(64, 1, 8, 8)
    augment = regularizers["diffaugment"]
    assert torch.equal(augment(policy=[]).augment(images), images)
    # Color changes ones to other constants; zeros that moved in before it are changed, too.
    zeros_last = augment(policy=["color", "translation"]).augment(images)
    zeros_first = augment(policy=["translation", "color"]).augment(images)
    assert (zeros_last == 0).sum() > 0
    assert (zeros_first == 0).sum() == 0
    assert (augment().augment(images) == 0).flatten(1).any(1).all(), "cutout is part of the default"


def test_unknown_transformations_are_refused() -> None:
    with pytest.raises(UserError, match=r"diffaugment\.policy: no 'colour': choose from color, translation, cutout"):
        regularizers["diffaugment"](policy=["colour", "cutout"])
