"""The diffusion transformer (Peebles and Xie 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.conditions import ClassCondition, NoiseLevelEmbedding, build_condition
from lightning_gen.networks.denoising import DenoisingNetwork

FREQUENCIES = 256
"""Of the noise level's embedding, as in the paper's code."""


def grid_positions(height: int, width: int, dim: int) -> Tensor:
    """Sines and cosines (height * width, dim) of the places on a grid, row by row.

    Half of ``dim`` is for the column and half for the row, each as in Vaswani et al. 2017, section 3.5: its first half
    sines, then cosines, at frequencies that fall from 1 to nearly 1e-4.
    """
    frequencies = 10_000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    parts = []
    for place in (torch.arange(width).repeat(height), torch.arange(height).repeat_interleave(width)):
        angles = place[:, None] * frequencies
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, 1).float()


class Modulation(nn.Module):
    """Vectors to maps' shifts, scales and gates, all zero at first (adaLN-Zero).

    Args:
        dim: D.
        number: how many (N, 1, D) each vector becomes.
    """

    def __init__(self, dim: int, number: int) -> None:
        super().__init__()
        self.number = number
        self.layer = nn.Linear(dim, number * dim)

    def forward(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """``number`` tensors (N, 1, D) of vectors (N, D)."""
        return self.layer(vectors)[:, None].chunk(self.number, 2)


class Block(nn.Module):
    """A transformer block whose layer norms are shifted and scaled, and whose two branches are gated, by the vectors.

    Args:
        dim: D.
        heads: of attention.
        expansion: width of the hidden layer over D.
    """

    def __init__(self, dim: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(dim, 6)
        self.attention = nn.Linear(dim, 3 * dim)
        self.attended = nn.Linear(dim, dim)
        hidden = int(expansion * dim)
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU("tanh"), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor, vectors: Tensor) -> Tensor:
        """Tokens (N, L, D) of tokens of that shape and vectors (N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(vectors)
        found = self.attention(modulated(tokens, shift1, scale1))
        query, key, value = found.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + gate1 * self.attended(found)
        return tokens + gate2 * self.layers(modulated(tokens, shift2, scale2))


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The layer norm of tokens (N, L, D), scaled by 1 + scale (N, 1, D) and shifted."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


class DiT(DenoisingNetwork):
    """A transformer over the patches of an image (Peebles and Xie 2023, section 3.2 and appendix A).

    Its output is zero at first. The defaults are DiT-S, for patches of 2x2.

    Args:
        image_shape: (C, H, W) of the images.
        num_classes: K of a network that takes labels, or None.
        class_names: of the classes, for conditions that need captions.
        patch_size: height and width of a patch.
        dim: of a token.
        layers: transformer blocks.
        heads: of attention.
        expansion: width of a block's hidden layer over ``dim``.
        condition: spec of what the network is told of labels (`lightning_gen.networks.conditions.Condition`); None for
            a learnt vector of each class. Its tokens are not used.

    Raises:
        UserError: the patches do not divide the image, or the heads the width.
    """

    positions: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        patch_size: int = 2,
        dim: int = 384,
        layers: int = 12,
        heads: int = 6,
        expansion: float = 4.0,
        condition: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(image_shape, num_classes)
        channels, height, width = image_shape
        if height % patch_size or width % patch_size:
            raise UserError(f"model.network.patch_size={patch_size} must divide the images' {height}x{width}")
        if dim % heads or dim % 4:
            raise UserError(f"model.network.dim={dim} must be a multiple of 4 and of model.network.heads={heads}")
        self.patch_size = patch_size
        self.grid = height // patch_size, width // patch_size
        self.noise_level = NoiseLevelEmbedding(FREQUENCIES, dim)
        self.condition = build_condition(condition, num_classes, class_names, dim)
        self.patches = nn.Conv2d(channels, dim, patch_size, stride=patch_size)
        self.register_buffer("positions", grid_positions(*self.grid, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads, expansion) for _ in range(layers))
        self.modulation = Modulation(dim, 2)
        self.last = nn.Linear(dim, patch_size**2 * channels)
        self._initialize()

    def _initialize(self) -> None:
        """As in the paper's code: uniform by fan-in and fan-out, normal for what the vectors are made of, and zeros."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("condition"):
                if name.startswith("noise_level"):
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight.flatten(1))
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if isinstance(self.condition, ClassCondition):
            nn.init.normal_(self.condition.table.weight, std=0.02)
        for layer in (*(module.layer for module in self.modules() if isinstance(module, Modulation)), self.last):
            nn.init.zeros_(layer.weight)

    def forward(self, images: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps (N, C, H, W) of noisy images (see `DenoisingNetwork.forward`)."""
        vectors = self.noise_level(noise_level)
        if self.condition is not None:
            if labels is None:
                labels = torch.full_like(noise_level, self.num_classes or 0, dtype=torch.int64)
            vectors = vectors + self.condition(labels).vectors
        vectors = F.silu(vectors)
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens, vectors)
        tokens = self.last(modulated(tokens, *self.modulation(vectors)))
        # (N, rows, columns, height and width of a patch, C) to (N, C, H, W)
        patches = tokens.unflatten(2, (self.patch_size, self.patch_size, -1)).unflatten(1, self.grid)
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
