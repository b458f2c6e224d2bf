"""The U-Net of diffusion models (Ho et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.conditions import NoiseLevelEmbedding, build_condition
from lightning_gen.networks.denoising import DenoisingNetwork
from lightning_gen.networks.unet_layers import Attention, Downsample, Stage, Upsample, group_norm, silu, zeroed


class UNet(DenoisingNetwork):
    """Residual blocks at falling and rising sizes with shortcuts between equal ones (Ho et al. 2020, appendix B).

    The defaults are the paper's network for CIFAR-10, with 35.7 million parameters. On the CPU it computes with the
    channels last in memory, in which convolutions are faster there.

    Args:
        image_shape: (C, H, W) of the images.
        num_classes: K of a network that takes labels, or None.
        class_names: of the classes, for conditions that need captions.
        channels: at the size of the image.
        multipliers: of the channels at each size, each half of the one before.
        blocks: residual blocks a size on the way down; there is one more on the way up.
        attention_sizes: heights of the maps that have attention; the smallest maps always have it once.
        head_channels: of an attention head; None for one head.
        dropout: probability, in the residual blocks.
        condition: spec of what the network is told of labels (`lightning_gen.networks.conditions.Condition`); None for
            a learnt vector of each class.
        cross_attention: whether maps with attention attend to the condition's tokens too.

    Raises:
        UserError: the sizes do not halve to whole numbers, or options that do not fit.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_sizes: Sequence[int] = (16,),
        head_channels: int | None = None,
        dropout: float = 0.1,
        condition: Mapping[str, Any] | None = None,
        cross_attention: bool = False,
    ) -> None:
        super().__init__(image_shape, num_classes)
        image_channels, height, width = image_shape
        factor = 2 ** (len(multipliers) - 1)
        if not multipliers or height % factor or width % factor:
            raise UserError(
                f"model.network.multipliers={list(multipliers)} halves the images {len(multipliers) - 1} times, which "
                f"{height}x{width} does not allow: name fewer, or set data.image_size to a multiple of {factor}"
            )
        if blocks < 1:
            raise UserError(f"model.network.blocks must be at least 1, not {blocks}")
        dim = 4 * channels
        self.noise_level = NoiseLevelEmbedding(channels, dim)
        self.condition = build_condition(condition, num_classes, class_names, dim)
        token_dim = self.condition.token_dim if self.condition is not None and cross_attention else None
        if cross_attention and token_dim is None:
            raise UserError("model.network.cross_attention=true needs a condition with tokens, as that of texts")

        def stage(in_channels: int, out_channels: int, size: int | None) -> Stage:
            attention = size is None or size in attention_sizes
            return Stage(in_channels, out_channels, dim, dropout, attention, head_channels, token_dim)

        widths = [channels * multiplier for multiplier in multipliers]
        sizes = [height // 2**level for level in range(len(widths))]
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        skips, current = [channels], channels
        down: list[nn.Module] = []
        for size, width in zip(sizes, widths, strict=True):
            if down:
                down.append(Downsample(current))
                skips.append(current)
            for _ in range(blocks):
                down.append(stage(current, width, size))
                current = width
                skips.append(width)
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList([stage(current, current, None), Stage(current, current, dim, dropout)])
        up: list[nn.Module] = []
        for size, width in zip(reversed(sizes), reversed(widths), strict=True):
            if up:
                up.append(Upsample(current))
            for _ in range(blocks + 1):
                up.append(stage(current + skips.pop(), width, size))
                current = width
        self.up = nn.ModuleList(up)
        self.norm = group_norm(current)
        self.last = nn.Conv2d(current, image_channels, 3, padding=1)
        self._initialize()

    def _initialize(self) -> None:
        """Uniform weights by fan-in and fan-out and zero biases, and zeros as the paper's code has them."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("condition"):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Attention):
                zeroed(module.output)
            elif isinstance(module, Stage):
                zeroed(module.block.conv2)
        zeroed(self.last)

    def forward(self, images: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps (N, C, H, W) of noisy images (see `DenoisingNetwork.forward`).

        Args:
            images: (N, C, H, W).
            noise_level: (N,) float32.
            labels: (N,) int64 in [0, K]; None for no labels.
        """
        vectors, embedded = self.noise_level(noise_level), None
        if self.condition is not None:
            if labels is None:
                labels = noise_level.new_full((1,), self.num_classes or 0, dtype=torch.int64)
            embedded = self.condition(labels)
            vectors = vectors + embedded.vectors
        vectors = F.silu(vectors)
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        maps = self.first(images)
        skips = [maps]
        for layer in self.down:
            maps = layer(maps) if isinstance(layer, Downsample) else layer(maps, vectors, embedded)
            skips.append(maps)
        for layer in self.middle:
            maps = layer(maps, vectors, embedded)
        for layer in self.up:
            if isinstance(layer, Upsample):
                maps = layer(maps)
            else:
                maps = layer(torch.cat([maps, skips.pop()], 1), vectors, embedded)
        return self.last(silu(self.norm(maps))).contiguous()
