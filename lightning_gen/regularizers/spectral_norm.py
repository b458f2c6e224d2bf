"""Spectral normalization (Miyato et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from lightning_gen.errors import UserError
from lightning_gen.regularizers.base import Players, Regularizer, regularizers
from lightning_gen.regularizers.targets import checked_networks

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)


@regularizers.register("spectral_norm")
class SpectralNorm(Regularizer):
    """Every weight matrix is divided by its largest singular value (equation 8), which power iteration follows.

    A convolution's weights are the matrix of output channels times all the rest. Heads that other regularizers add are
    normalized too, whatever the order in the config; layers that already are, are left.

    Args:
        networks: any of ``generator`` and ``discriminator``.
        power_iterations: in each pass in training.

    Raises:
        UserError: other networks or numbers, or weights that begin at zero.
    """

    def __init__(self, networks: Sequence[str] = ("discriminator",), power_iterations: int = 1) -> None:
        super().__init__()
        self.networks = checked_networks("spectral_norm", networks)
        if power_iterations < 1:
            raise UserError(
                f"model.regularizers.spectral_norm.power_iterations must be at least 1, not {power_iterations}"
            )
        self.power_iterations = power_iterations

    def finish(self, players: Players) -> None:
        """Parametrize the weights."""
        for player in self.networks:
            network: nn.Module = getattr(players, player)
            for name, layer in list(network.named_modules()):
                if not isinstance(layer, LAYERS) or parametrize.is_parametrized(layer, "weight"):
                    continue
                if not layer.weight.any():
                    raise UserError(
                        f"model.regularizers.spectral_norm: {name} of model.{player} begins at zero, which has no "
                        f"norm to divide by: leave {player} out of model.regularizers.spectral_norm.networks"
                    )
                spectral_norm(layer, n_power_iterations=self.power_iterations)
