"""The networks of DiscoGAN (Kim et al. 2017), for any power-of-two resolution from 16."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.translator import DomainDiscriminator, Translator

BOTTOM_SIZE = 4
"""Height and width of the smallest maps with 4x4 convolutions of stride 2."""

SMALLEST_SIZE = 16
"""Of the images: the discriminator needs a second feature map, with which features begin to be matched."""

LARGEST_FACTOR = 8
"""Of the widths: the published networks, for 64 pixels, end there."""


class EncoderDecoder(Translator):
    """4x4 convolutions with stride 2 down to 4x4 maps and as many transposed ones up again (Kim et al. 2017, its code).

    Widths are 1, 2, 4, 8, 8, ... times ``base_channels``; LeakyReLU 0.2 in the encoder, ReLU in the decoder; batch
    norm in all layers but the first and the last; no biases, tanh at the end. The weights are drawn as torch does.

    Args:
        input_shape: (C, H, W) of the images that are translated, H = W a power of two, at least 16.
        image_shape: (C', H, W) of the translations.
        base_channels: width of the first layer.
        bottleneck_channels: width of a further 4x4 convolution to 1x1 maps and back, as the published code has it under
            the name of extra layers; None for none.

    Raises:
        UserError: another size.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        image_shape: tuple[int, int, int],
        base_channels: int = 64,
        bottleneck_channels: int | None = None,
    ) -> None:
        super().__init__()
        widths = _widths(image_shape, base_channels)
        # The convolution to 1x1 takes maps of 4x4 or larger ones.
        self.size_multiple = 2 ** len(widths) * (1 if bottleneck_channels is None else BOTTOM_SIZE)
        # Batch norm of 1x1 maps needs several images.
        self.smallest_batch = 1 if bottleneck_channels is None else 2
        layers = _encoder(input_shape[0], widths)
        if bottleneck_channels is not None:
            layers += [
                nn.Conv2d(widths[-1], bottleneck_channels, BOTTOM_SIZE, bias=False),
                nn.BatchNorm2d(bottleneck_channels),
                nn.LeakyReLU(0.2, inplace=True),
                nn.ConvTranspose2d(bottleneck_channels, widths[-1], BOTTOM_SIZE, bias=False),
                nn.BatchNorm2d(widths[-1]),
                nn.ReLU(inplace=True),
            ]
        for wide, narrow in pairwise(reversed(widths)):
            upward = nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
            layers += [upward, nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(widths[0], image_shape[0], 4, stride=2, padding=1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (N, C', H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1]; ``noise`` is not used."""
        del noise
        return self.layers(images)


class DiscoDiscriminator(DomainDiscriminator):
    """Images to one logit each by the encoder of `EncoderDecoder` and a 4x4 convolution.

    Args:
        input_channels: of what it sees.
        image_shape: (C, H, W) of the images, H = W a power of two, at least 16.
        base_channels: width of the first layer.

    Raises:
        UserError: another size.
    """

    def __init__(self, input_channels: int, image_shape: tuple[int, int, int], base_channels: int = 64) -> None:
        super().__init__()
        widths = _widths(image_shape, base_channels)
        layers = _encoder(input_channels, widths)
        starts = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        self.blocks = nn.Sequential(
            *(nn.Sequential(*layers[first:end]) for first, end in pairwise([*starts, len(layers)]))
        )
        self.head = nn.Conv2d(widths[-1], 1, BOTTOM_SIZE, bias=False)


def _encoder(channels: int, widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for level, (width_in, width) in enumerate(pairwise([channels, *widths])):
        layers.append(nn.Conv2d(width_in, width, 4, stride=2, padding=1, bias=False))
        layers += [nn.BatchNorm2d(width)] if level else []
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return layers


def _widths(image_shape: tuple[int, int, int], base_channels: int) -> list[int]:
    size = image_shape[1]
    if size < SMALLEST_SIZE or size.bit_count() > 1:
        raise UserError(
            f"DiscoGAN takes images of a power-of-two size from {SMALLEST_SIZE}, not {size}x{size}: set data.image_size"
        )
    halvings = (size // BOTTOM_SIZE).bit_length() - 1
    return [base_channels * min(2**level, LARGEST_FACTOR) for level in range(halvings)]
