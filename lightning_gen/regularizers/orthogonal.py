"""Orthogonal regularization (Brock et al. 2019, BigGAN)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_gen.errors import UserError
from lightning_gen.losses.regularization import non_orthogonality
from lightning_gen.regularizers.base import Players, Regularizer, Step, regularizers

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


@regularizers.register("orthogonal")
class OrthogonalRegularization(Regularizer):
    """The filters of a layer shall be at right angles, whatever their norms: ``weight * |W^T W * (1 - I)|^2`` (eq. 3).

    The sum over all linear and convolutional layers with one column of W for each output; embeddings and the gains of
    norms are left alone. Under spectral norm W is the weight before it, as in the code of its authors.

    Args:
        weight: beta.
        networks: which of ``generator`` and ``discriminator``.

    Raises:
        UserError: another network.
    """

    def __init__(self, weight: float = 1e-4, networks: Sequence[str] = ("generator",)) -> None:
        super().__init__()
        if not networks or set(networks) - {"generator", "discriminator"}:
            raise UserError("model.regularizers.orthogonal.networks must be of generator and discriminator")
        self.weight = weight
        self.networks = tuple(networks)
        self.players: Players

    def build(self, players: Players) -> None:
        """Keep the players, whose networks may still change."""
        self.players = players

    def discriminator_term(self, step: Step) -> Tensor | None:
        """The weighted sum over the discriminator's layers, if it is among the networks."""
        return self._term("discriminator")

    def generator_term(self, step: Step) -> Tensor | None:
        """The weighted sum over the generator's layers, if it is among the networks."""
        return self._term("generator")

    def _term(self, name: str) -> Tensor | None:
        if name not in self.networks:
            return None
        filters = list(layer_filters(getattr(self.players, name)))
        # Products of half precision would be as large as the angles that are wanted small.
        with torch.autocast(filters[0].device.type, enabled=False):
            return self.weight * torch.stack([non_orthogonality(rows.float()) for rows in filters]).sum()


def layer_filters(network: nn.Module) -> Iterator[Tensor]:
    """The filters (outputs, everything else) of each linear and convolutional layer."""
    for module in network.modules():
        if isinstance(module, LAYERS):
            weight = _weight_of(module)
            yield (weight.transpose(0, 1) if isinstance(module, TRANSPOSED) else weight).flatten(1)


def _weight_of(module: nn.Module) -> Tensor:
    parametrization = getattr(module, "parametrizations", {})
    if parametrize.is_parametrized(module, "weight") and hasattr(parametrization["weight"], "original"):
        # Reading a spectrally normed weight would take a power iteration.
        return parametrization["weight"].original
    return module.weight  # type: ignore[return-value]
