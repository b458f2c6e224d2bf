"""Virtual batch norm (Salimans et al. 2016) in the place of the batch norm of any network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.networks.virtual_batch_norm import ReferenceDiscriminator, ReferenceGenerator
from lightning_gen.regularizers.base import Players, Regularizer, regularizers
from lightning_gen.regularizers.targets import checked_networks


@regularizers.register("virtual_batch_norm")
class VirtualBatchNormRegularizer(Regularizer):
    """Batch norms use a fixed reference batch and the sample itself instead of the batch (section 3.5).

    The generator's reference are latents from its prior, drawn once; the discriminator's are the first training images.
    Both travel in checkpoints. Each pass also computes the reference, which costs as much as that many more samples.

    Args:
        networks: any of ``generator`` and ``discriminator``; the paper uses the generator alone, because of the cost.
        reference_size: samples in the reference batch, at most ``data.batch_size`` for the discriminator.

    Raises:
        UserError: other networks, no reference batch, or a network without batch norm that can be replaced.
    """

    def __init__(self, networks: Sequence[str] = ("generator",), reference_size: int | None = None) -> None:
        super().__init__()
        self.networks = checked_networks("virtual_batch_norm", networks)
        if reference_size is None or reference_size < 2:
            raise UserError(
                "virtual batch norm without a reference batch means nothing: "
                "set model.regularizers.virtual_batch_norm.reference_size to at least 2"
            )
        self.reference_size = reference_size
        self.reference_images = reference_size if "discriminator" in self.networks else 0

    def finish(self, players: Players) -> None:
        """Wrap the networks."""
        labels = None
        if players.num_classes is not None:
            labels = torch.randint(players.num_classes, (self.reference_size,))
        if "generator" in self.networks:
            latents = players.draw_latents(self.reference_size)
            players.generator = ReferenceGenerator(players.generator, latents, labels)
        if "discriminator" in self.networks:
            images = torch.zeros(self.reference_size, *players.image_shape)
            reference_labels = None if labels is None else torch.zeros_like(labels)
            players.discriminator = ReferenceDiscriminator(players.discriminator, images, reference_labels)

    def take_reference(self, players: Players, images: Tensor, labels: Tensor | None) -> None:
        """Give the discriminator its reference batch."""
        for module in players.discriminator.modules():
            if isinstance(module, ReferenceDiscriminator):
                module.set_reference(images, labels)
