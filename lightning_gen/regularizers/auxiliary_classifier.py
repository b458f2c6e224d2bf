"""Auxiliary classifier (Odena et al. 2017, ACGAN)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import DiscriminatorOutput
from lightning_gen.regularizers.base import Players, Regularizer, Step, regularizers


@regularizers.register("auxiliary_classifier")
class AuxiliaryClassifier(Regularizer):
    """The discriminator also names the classes of images, and both players gain where it is right (eq. 3).

    It does so by its head ``classes``. ``model.discriminator_takes_labels: false`` makes a discriminator that is not
    told the labels which it names.

    Args:
        discriminator_weight: factor of the cross entropy, of real plus fake images, in the discriminator's loss.
        generator_weight: factor of the cross entropy of fake images in the generator's loss; 0.1 in the code of
            Gulrajani et al. 2017.
        classify_fakes: whether the discriminator learns from fake images, too; not so in that code.

    Raises:
        UserError: a model without classes.
    """

    def __init__(
        self, discriminator_weight: float = 1.0, generator_weight: float = 1.0, classify_fakes: bool = True
    ) -> None:
        super().__init__()
        self.discriminator_weight = discriminator_weight
        self.generator_weight = generator_weight
        self.classify_fakes = classify_fakes

    def build(self, players: Players) -> None:
        """Add the head."""
        if not players.num_classes:
            raise UserError("model.regularizers.auxiliary_classifier needs classes: set model.conditional=true")
        players.discriminator.add_head("classes", players.num_classes)

    def discriminator_term(self, step: Step) -> Tensor:
        """The weighted cross entropies."""
        assert step.real is not None
        loss = _classification_loss(step.real, step.real_labels)
        if self.classify_fakes:
            loss = loss + _classification_loss(step.fake, step.labels)
        return self.discriminator_weight * loss

    def generator_term(self, step: Step) -> Tensor:
        """The weighted cross entropy of fake images."""
        return self.generator_weight * _classification_loss(step.fake, step.labels)


def _classification_loss(output: DiscriminatorOutput, labels: Tensor | None) -> Tensor:
    assert labels is not None
    return F.cross_entropy(output.heads["classes"].float(), labels)
