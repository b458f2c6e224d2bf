"""The networks that InfoGAN uses on MNIST (Chen et al. 2016, table 1), for any power-of-two resolution from 32."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dcgan import initialize_dcgan
from lightning_gen.networks.discriminator import Discriminator, LinearHead
from lightning_gen.networks.shapes import power_of_two_size


class InfoGANGenerator(nn.Module):
    """Latents, codes among them, to images: two fully connected and two transposed convolutional layers.

    Batch norm and ReLU after every layer but the last. The output is tanh where the paper has a sigmoid: the same
    function up to the range of images. Weights as in the authors' code, see `initialize_dcgan`.

    Args:
        image_shape: (C, S, S) of the images, S a power of two, at least 32.
        latent_dim: D of the latents, noise and codes.
        base_channels: width of the last hidden layer; the first convolutional one has twice as many.
        hidden: width of the first fully connected layer.

    Raises:
        UserError: an image shape that the architecture cannot make.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, base_channels: int = 64, hidden: int = 1024
    ) -> None:
        super().__init__()
        channels, size = power_of_two_size(image_shape, "InfoGAN")
        maps = (2 * base_channels, size // 4, size // 4)
        num_units = maps[0] * maps[1] * maps[2]
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_units, bias=False),
            nn.BatchNorm1d(num_units),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, maps),
            nn.ConvTranspose2d(maps[0], base_channels, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(base_channels),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(base_channels, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        initialize_dcgan(self)

    def forward(self, latents: Tensor) -> Tensor:
        """Images (N, C, S, S) in [-1, 1] from latents (N, latent_dim)."""
        return self.layers(latents)


class InfoGANDiscriminator(Discriminator):
    """Images to logits: two strided convolutional layers and one fully connected.

    LeakyReLU 0.1 everywhere, batch norm in all layers but the first and the last, before the activation as in the
    authors' code. The network that recovers the codes is a further head on the same features, added from outside.

    Args:
        image_shape: (C, S, S) of the images, S a power of two, at least 32.
        base_channels: width of the first layer; the second has twice as many.
        hidden: number of features.
        norm: ``batch``, or ``none`` for losses that look at single images (gradient penalties).

    Raises:
        UserError: an image shape that the architecture cannot take, or an unknown norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        base_channels: int = 64,
        hidden: int = 1024,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        if norm not in ("batch", "none"):
            raise UserError(f"model.discriminator.norm must be batch or none, not {norm!r}")
        channels, size = power_of_two_size(image_shape, "InfoGAN")
        width, bias = 2 * base_channels, norm == "none"
        second: list[nn.Module] = [nn.Conv2d(base_channels, width, 4, stride=2, padding=1, bias=bias)]
        third: list[nn.Module] = [nn.Flatten(), nn.Linear(width * (size // 4) ** 2, hidden, bias=bias)]
        if norm == "batch":
            second.append(nn.BatchNorm2d(width))
            third.append(nn.BatchNorm1d(hidden))
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(channels, base_channels, 4, stride=2, padding=1), nn.LeakyReLU(0.1, inplace=True)),
            nn.Sequential(*second, nn.LeakyReLU(0.1, inplace=True)),
            nn.Sequential(*third, nn.LeakyReLU(0.1, inplace=True)),
        )
        self.set_head(hidden, LinearHead(hidden))
        self.initialize(self)

    def initialize(self, network: nn.Module) -> None:
        """See `initialize_dcgan`."""
        initialize_dcgan(network)
