"""Top-k training (Sinha et al. 2020, Top-k training of GANs)."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.adversarial import adversarial_losses
from lightning_gen.regularizers.base import Players, Regularizer, regularizers


@regularizers.register("top_k")
class TopK(Regularizer):
    """The generator learns from the k fake images of a batch that look most real to the discriminator.

    k falls from the batch size B as B * fraction^(images_seen / anneal_images), rounded up, and stays at fraction * B:
    a constant factor an epoch, as in the paper. Its factor 0.99 takes 69 epochs to a half, 3.45 million images of
    CIFAR-10. With several processes each keeps the best of its own.

    Args:
        fraction: what is kept of a batch in the end.
        anneal_images: real images after which k stays.

    Raises:
        UserError: values out of range, or a loss of the generator that is not made of single logits.
    """

    def __init__(self, fraction: float = 0.5, anneal_images: int = 3_450_000) -> None:
        super().__init__()
        if not 0 < fraction <= 1 or anneal_images < 1:
            raise UserError(
                "model.regularizers.top_k: fraction must be above 0 and at most 1, anneal_images at least 1"
            )
        self.fraction = fraction
        self.anneal_images = anneal_images

    def check(self, players: Players) -> None:
        """Refuse losses of pairs, and losses that do not use the logits."""
        if adversarial_losses[players.loss].generator_sees_real:
            raise UserError(f"model.regularizers.top_k: model.loss={players.loss} compares images in pairs: keep one")
        if any(other.replaces_generator_loss for other in players.chosen.values()):
            raise UserError(
                "model.regularizers.top_k chooses logits for the generator's loss, which feature_matching replaces: "
                "keep one, or set feature_matching.replaces_loss=false"
            )

    def kept(self, batch_size: int, images_seen: int) -> int:
        """The k of a batch of that size."""
        share = self.fraction ** min(1.0, images_seen / self.anneal_images)
        # Rounding up must not see the last bits of a product that is a whole number.
        return max(1, math.ceil(batch_size * share - 1e-9))

    def select_logits(self, fake_logits: Tensor, images_seen: int) -> Tensor:
        """The k largest."""
        return fake_logits.topk(self.kept(len(fake_logits), images_seen)).values
