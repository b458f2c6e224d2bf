"""DiffAugment (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.regularizers.augmentations import DIFFAUGMENT
from lightning_gen.regularizers.base import Regularizer, regularizers


@regularizers.register("diffaugment")
class DiffAugment(Regularizer):
    """The discriminator sees real and fake images under random transformations, and the generator learns through them.

    Zhao et al. 2020, section 3.

    Args:
        policy: any of ``color``, ``translation``, ``cutout``, in the order in which they are applied.

    Raises:
        UserError: another name.
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        unknown = set(policy) - set(DIFFAUGMENT)
        if unknown:
            raise UserError(
                f"model.regularizers.diffaugment.policy: no {', '.join(map(repr, sorted(unknown)))}: "
                f"choose from {', '.join(DIFFAUGMENT)}"
            )
        self.policy = tuple(policy)

    def augment(self, images: Tensor) -> Tensor:
        """The transformations of the policy, each image's own."""
        for name in self.policy:
            images = DIFFAUGMENT[name](images)
        return images
