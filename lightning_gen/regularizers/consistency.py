"""Balanced consistency regularization, bCR (Zhao et al. 2021, Improved consistency regularization for GANs)."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.networks.discriminator import DiscriminatorOutput
from lightning_gen.regularizers.augmentations import flip_images, translate_images
from lightning_gen.regularizers.base import Regularizer, Step, regularizers


@regularizers.register("consistency")
class ConsistencyRegularization(Regularizer):
    """The discriminator's logits shall not change under transformations T that mean nothing (algorithm 1).

    ``real_weight * E[(D(x) - D(T(x)))^2] + fake_weight * E[(D(G(z)) - D(T(G(z))))^2]``, both on images without
    augmentation. T is a flip and a shift by a few whole pixels, the image being reflected at its edges.

    Args:
        real_weight: lambda_real.
        fake_weight: lambda_fake; 0 for the consistency of Zhang et al. 2020 (CR-GAN).
        shift: the largest shift in pixels.
        flip: whether T flips images left to right.

    Raises:
        UserError: a T that changes nothing, or a shift that is not less than the image's size.
    """

    def __init__(self, real_weight: float = 10.0, fake_weight: float = 10.0, shift: int = 4, flip: bool = True) -> None:
        super().__init__()
        if shift < 0 or (shift == 0 and not flip):
            raise UserError("model.regularizers.consistency compares an image with itself: set shift above 0 or flip")
        self.real_weight = real_weight
        self.fake_weight = fake_weight
        self.shift = shift
        self.flip = flip

    def transform(self, images: Tensor) -> Tensor:
        """T(x) of images (N, C, H, W)."""
        if self.shift >= min(images.shape[2:]):
            raise UserError(f"model.regularizers.consistency.shift={self.shift} must be less than the image's size")
        if self.flip:
            images = flip_images(images)
        return translate_images(images, (self.shift, self.shift), "reflect") if self.shift else images

    def discriminator_term(self, step: Step) -> Tensor:
        """The two weighted consistencies."""
        assert step.real is not None
        real = self._inconsistency(step, step.clean_real_images, step.real_images, step.real)
        if not self.fake_weight:
            return self.real_weight * real
        fake = self._inconsistency(step, step.clean_fake_images, step.fake_images, step.fake)
        return self.real_weight * real + self.fake_weight * fake

    def _inconsistency(self, step: Step, images: Tensor, seen: Tensor, output: DiscriminatorOutput) -> Tensor:
        # What the discriminator saw was not augmented where it is the very same tensor.
        logits = output.logits if seen is images else step.discriminate(images).logits
        return regularization.consistency(logits.float(), step.discriminate(self.transform(images)).logits.float())
