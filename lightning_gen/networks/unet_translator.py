"""The U-Net generator of pix2pix (Isola et al. 2017), for any power-of-two resolution."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dcgan import initialize_dcgan
from lightning_gen.networks.translator import Translator

LARGEST_FACTOR = 8
"""Of the widths: ``base_channels`` times 1, 2, 4, 8, 8, ..."""

DROPOUT = 0.5

TestStatistics = Literal["image", "running"]


class TranslatorBatchNorm(nn.BatchNorm2d):
    """Batch norm with a choice of the statistics at test time.

    ``image`` normalizes each image by its own mean and variance over height and width, which is what batch norm in
    training mode does to a batch of one (Isola et al. 2017, section 3.3); ``running`` by the averages over training.

    Args:
        channels: C.
        test_statistics: see above.
    """

    def __init__(self, channels: int, test_statistics: TestStatistics) -> None:
        super().__init__(channels)
        self.test_statistics = test_statistics

    def forward(self, input: Tensor) -> Tensor:
        """Normalized maps (N, C, H, W)."""
        if self.training or self.test_statistics == "running":
            return super().forward(input)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class UNetTranslator(Translator):
    """Encoder and decoder of 4x4 convolutions with stride 2, and skips between their maps of equal size.

    Source: Isola et al. 2017, section 6.1.1. The encoder's widths are 1, 2, 4, 8, 8, ... times ``base_channels``;
    LeakyReLU 0.2 in the encoder, ReLU in the decoder, batch norm in all layers but the encoder's first and last and the
    decoder's last. The deepest decoder blocks are followed by dropout of 0.5, which is the only noise. Convolutions
    before a batch norm have no bias, which it would take away; nor have the encoder's first and last, as in the
    published code, which holds all biases at zero.

    In training mode dropout draws from torch's global generators; in evaluation mode it takes its masks from ``noise``.

    Args:
        input_shape: (C, H, W) of the images that are translated, H = W.
        image_shape: (C', H, W) of the translations.
        base_channels: width of the first layer.
        depth: halvings of the size; None for as many as lead to 1x1, which needs a power of two.
        dropout_blocks: how many decoder blocks, from the deepest, have dropout.
        test_dropout: whether they have it in evaluation mode, too, as in the paper.
        test_statistics: see `TranslatorBatchNorm`.

    Raises:
        UserError: a size that cannot be halved so often, or options out of range.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        image_shape: tuple[int, int, int],
        base_channels: int = 64,
        depth: int | None = None,
        dropout_blocks: int = 3,
        test_dropout: bool = True,
        test_statistics: TestStatistics = "image",
    ) -> None:
        super().__init__()
        if test_statistics not in ("image", "running"):
            raise UserError(f"model.generator.test_statistics must be image or running, not {test_statistics!r}")
        depth = _checked_depth(depth, image_shape[1])
        if not 0 <= dropout_blocks < depth:
            raise UserError(f"model.generator.dropout_blocks must be in [0, {depth - 1}], not {dropout_blocks}")
        self.size_multiple = 2**depth
        self.dropout_blocks = dropout_blocks
        self.test_dropout = test_dropout
        widths = [base_channels * min(2**level, LARGEST_FACTOR) for level in range(depth)]
        self.encoder = nn.ModuleList()
        for level, width in enumerate(widths):
            width_in = widths[level - 1] if level else input_shape[0]
            # In place, although a skip holds the same maps: LeakyReLU keeps signs, and the decoder rectifies its input.
            layers: list[nn.Module] = [nn.LeakyReLU(0.2, inplace=True)] if level else []
            layers.append(nn.Conv2d(width_in, width, 4, stride=2, padding=1, bias=False))
            layers += [TranslatorBatchNorm(width, test_statistics)] if 0 < level < depth - 1 else []
            self.encoder.append(nn.Sequential(*layers))
        self.decoder = nn.ModuleList()
        for level in reversed(range(1, depth)):
            width_in = widths[level] * (1 if level == depth - 1 else 2)
            upward = nn.ConvTranspose2d(width_in, widths[level - 1], 4, stride=2, padding=1, bias=False)
            norm = TranslatorBatchNorm(widths[level - 1], test_statistics)
            self.decoder.append(nn.Sequential(nn.ReLU(inplace=True), upward, norm))
        last = nn.ConvTranspose2d(2 * widths[0], image_shape[0], 4, stride=2, padding=1)
        self.output = nn.Sequential(nn.ReLU(inplace=True), last, nn.Tanh())
        self.dropped_channels = [widths[-2 - block] for block in range(dropout_blocks)]
        initialize_dcgan(self)

    def draw_noise(self, images: Tensor, *, generator: torch.Generator) -> Tensor | None:
        """U[0, 1) noise (N, M) for the masks, or None where dropout is off in evaluation.

        Each image's numbers are drawn after all of the image before it, so they do not depend on the batches in which
        images come.

        Args:
            images: (N, C, H, W), what will be translated; only the shape is used.
            generator: of the noise.
        """
        if not (self.test_dropout and self.dropout_blocks):
            return None
        number = sum(channels * height * width for channels, height, width in self._dropped_shapes(images))
        rows = [torch.rand(number, generator=generator, device=generator.device) for _ in images]
        return torch.stack(rows).to(images.device)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (N, C', H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1].

        Args:
            images: H and W multiples of ``size_multiple``.
            noise: of `draw_noise`, in evaluation mode where dropout is kept; not used otherwise.

        Raises:
            ValueError: there is none and it is needed.
        """
        masks = [] if self.training else self._masks(images, noise)
        skips = []
        maps = images
        for layer in self.encoder:
            maps = layer(maps)
            skips.append(maps)
        skips.pop()
        for number, layer in enumerate(self.decoder):
            maps = layer(maps)
            if number < self.dropout_blocks and self.training:
                maps = F.dropout(maps, DROPOUT)
            elif number < len(masks):
                maps = maps * masks[number]
            maps = torch.cat([maps, skips.pop()], 1)
        return self.output(maps)

    def _dropped_shapes(self, images: Tensor) -> list[tuple[int, int, int]]:
        height, width = (size // self.size_multiple for size in images.shape[2:])
        sizes = [(height * 2**block, width * 2**block) for block in range(1, self.dropout_blocks + 1)]
        return [(channels, *size) for channels, size in zip(self.dropped_channels, sizes, strict=True)]

    def _masks(self, images: Tensor, noise: Tensor | None) -> list[Tensor]:
        if not (self.test_dropout and self.dropout_blocks):
            return []
        if noise is None:
            raise ValueError("dropout is kept in evaluation mode and needs noise: see draw_noise")
        shapes = self._dropped_shapes(images)
        parts = noise.split([math.prod(shape) for shape in shapes], 1)
        return [
            (part >= DROPOUT).to(images.dtype).unflatten(1, shape) / (1 - DROPOUT)
            for part, shape in zip(parts, shapes, strict=True)
        ]


def _checked_depth(depth: int | None, size: int) -> int:
    if depth is None:
        if size < 4 or size.bit_count() > 1:
            raise UserError(
                f"The U-Net halves images down to 1x1, which {size}x{size} cannot be: set data.image_size to a power "
                "of two, or model.generator.depth to fewer halvings"
            )
        return size.bit_length() - 1
    if depth < 2:
        raise UserError(f"model.generator.depth must be at least 2, not {depth}")
    if size % 2**depth:
        raise UserError(f"model.generator.depth={depth} needs a data.image_size that is a multiple of {2**depth}")
    return depth
