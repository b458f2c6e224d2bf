"""PatchGAN, a discriminator of patches (Isola et al. 2017)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dcgan import initialize_dcgan
from lightning_gen.networks.translator import DomainDiscriminator

LARGEST_FACTOR = 8
"""Of the widths: ``base_channels`` times 1, 2, 4, 8, 8, ..."""

PatchNorm = Literal["batch", "instance", "none"]


class PatchDiscriminator(DomainDiscriminator):
    """Images to a map of logits, each of which sees one patch (Isola et al. 2017, sections 3.2.2 and 6.1.2).

    4x4 convolutions: ``num_layers`` with stride 2, one with stride 1, and the head with stride 1. LeakyReLU 0.2; norm
    in all but the first and the head. A logit sees 16, 34, 70, 142 or 286 pixels a side with 1 to 5 layers; with none
    all convolutions are 1x1 and it sees one pixel.

    Args:
        input_channels: of what it sees: of the images, or of condition and images.
        image_shape: (C, H, W) of the images.
        base_channels: width of the first layer; the others are 2, 4, 8, 8, ... times as wide.
        num_layers: see above.
        norm: ``batch``; ``instance``, without parameters or running statistics (Zhu et al. 2017); or ``none``.

    Raises:
        UserError: images too small for so many layers, or options out of range.
    """

    def __init__(
        self,
        input_channels: int,
        image_shape: tuple[int, int, int],
        base_channels: int = 64,
        num_layers: int = 3,
        norm: PatchNorm = "batch",
    ) -> None:
        super().__init__()
        if norm not in ("batch", "instance", "none"):
            raise UserError(f"model.discriminator.norm must be batch, instance or none, not {norm!r}")
        if num_layers < 0:
            raise UserError(f"model.discriminator.num_layers must be at least 0, not {num_layers}")
        # The two convolutions with stride 1 take a pixel each.
        if num_layers and min(image_shape[1:]) // 2**num_layers < 3:
            raise UserError(
                f"model.discriminator.num_layers={num_layers} needs images of at least {3 * 2**num_layers} pixels: "
                "lower it, or raise data.image_size"
            )
        kernel, padding = (4, 1) if num_layers else (1, 0)
        strides = [2] * num_layers + [1] if num_layers else [1, 1]
        width_in = input_channels
        blocks = []
        for level, stride in enumerate(strides):
            width = base_channels * min(2**level, LARGEST_FACTOR)
            has_norm = level > 0 and norm != "none"
            bias = not (has_norm and norm == "batch")
            layers: list[nn.Module] = [nn.Conv2d(width_in, width, kernel, stride, padding, bias=bias)]
            if has_norm:
                layers.append(nn.BatchNorm2d(width) if norm == "batch" else nn.InstanceNorm2d(width))
            blocks.append(nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True)))
            width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(width_in, 1, kernel, 1, padding)
        initialize_dcgan(self)
