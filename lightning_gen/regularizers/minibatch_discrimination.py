"""Minibatch discrimination (Salimans et al. 2016) for any discriminator with a linear or a projection head."""

from __future__ import annotations

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import LinearHead, ProjectionHead
from lightning_gen.networks.minibatch_discrimination import MinibatchDiscrimination
from lightning_gen.regularizers.base import Players, Regularizer, regularizers


@regularizers.register("minibatch_discrimination")
class MinibatchDiscriminationRegularizer(Regularizer):
    """The discriminator's head also sees how close each sample is to the rest of its batch (section 3.2).

    Further heads go on seeing the features of the single sample.

    Args:
        kernels: how many features that adds.
        dims: dimensions in which each of them measures distances.

    Raises:
        UserError: numbers out of range, or a head that cannot take further features.
    """

    def __init__(self, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        if kernels < 1 or dims < 1:
            raise UserError("model.regularizers.minibatch_discrimination: kernels and dims must be at least 1")
        self.kernels = kernels
        self.dims = dims

    def build(self, players: Players) -> None:
        """Add the layer and make the head anew, wide enough for both."""
        discriminator = players.discriminator
        num_features = discriminator.num_features + self.kernels
        old = discriminator.head
        new: LinearHead | ProjectionHead | None = None
        if type(old) is LinearHead:
            new = LinearHead(num_features, bias=old.linear.bias is not None)
        elif type(old) is ProjectionHead:
            new = ProjectionHead(num_features, old.embedding.num_embeddings)
        if new is None or discriminator.batch_features is not None:
            raise UserError(
                f"model.regularizers.minibatch_discrimination: the head {type(old).__name__} of "
                f"{type(discriminator).__name__} takes no further features: leave this regularizer out"
            )
        discriminator.batch_features = MinibatchDiscrimination(discriminator.num_features, self.kernels, self.dims)
        discriminator.head = new
        discriminator.initialize(new)
