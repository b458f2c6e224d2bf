"""What every discriminator is: blocks, features, a head, and what else may be read from the same features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class DiscriminatorOutput(NamedTuple):
    """All that one pass over N images gives.

    Attributes:
        logits: (N,) scores before any sigmoid, higher for real images.
        features: (N, D), what the head sees.
        heads: outputs (N, K) of the further heads by name (`Discriminator.add_head`).
    """

    logits: Tensor
    features: Tensor
    heads: dict[str, Tensor]


class Discriminator(nn.Module):
    """Images, and labels for a conditional one, to logits, in stages that other parts can reach into.

    A subclass builds ``blocks``, whose outputs one after the other are the feature maps, calls `set_head`, and draws
    its weights. It may override `prepare_input` (labels that enter with the image), `pool` (how the last map becomes
    features) and `initialize` (weights of heads that are added later).

    Attributes:
        blocks: from the input to the last feature map.
        num_features: D of the features.
        num_classes: K for a discriminator that takes labels, or None.
        batch_features: a layer that adds features of the whole batch (minibatch discrimination), or None.
        head: `LinearHead`, `ProjectionHead` or another module (features (N, D), labels (N,) or None) -> (N,).
        heads: further heads, features (N, D) -> (N, K).
    """

    blocks: nn.Sequential
    head: nn.Module

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.batch_features: nn.Module | None = None
        self.heads = nn.ModuleDict()

    def set_head(self, num_features: int, head: nn.Module) -> None:
        """Finish the network with a head on ``num_features`` features."""
        self.num_features = num_features
        self.head = head

    def add_head(self, name: str, num_outputs: int, hidden: int | None = None) -> None:
        """Add a further head: linear, or with one hidden layer of ``hidden`` units (LeakyReLU 0.1)."""
        layers: list[nn.Module] = [nn.Linear(hidden or self.num_features, num_outputs)]
        if hidden:
            layers = [nn.Linear(self.num_features, hidden), nn.LeakyReLU(0.1), *layers]
        self.heads[name] = nn.Sequential(*layers)
        self.initialize(self.heads[name])

    def initialize(self, network: nn.Module) -> None:
        """Draw the weights of ``network``, all of this or a part of it, as the paper does."""

    def prepare_input(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """What the first block takes, of images (N, C, H, W)."""
        del labels
        return images

    def pool(self, maps: Tensor) -> Tensor:
        """Features (N, D) of the last block's output."""
        return maps.flatten(1)

    def feature_maps(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """The outputs of all blocks, (N, C', H', W') or (N, D'), for images (N, C, H, W) in [-1, 1]."""
        maps = [self.prepare_input(images, labels)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]

    def forward(self, images: Tensor, labels: Tensor | None = None) -> DiscriminatorOutput:
        """Logits, features and further heads for images (N, C, H, W) in [-1, 1] and labels (N,) int64 or None."""
        features = self.pool(self.blocks(self.prepare_input(images, labels)))
        seen = features if self.batch_features is None else self.batch_features(features)
        heads = {name: head(features) for name, head in self.heads.items()}
        return DiscriminatorOutput(self.head(seen, labels), features, heads)


class LinearHead(nn.Module):
    """Logits (N,) linear in the features.

    Args:
        num_features: D.
        bias: whether there is one.
    """

    def __init__(self, num_features: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1, bias=bias)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (N,) of features (N, D)."""
        del labels
        return self.linear(features).squeeze(1)


class ProjectionHead(nn.Module):
    """Logits (N,) of features f and label y: ``w . f + b + embedding[y] . f`` (Miyato and Koyama 2018, eq. 3).

    Args:
        num_features: D.
        num_classes: K.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.embedding = nn.Embedding(num_classes, num_features)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits (N,) of features (N, D) and labels (N,) int64."""
        assert labels is not None
        return self.linear(features).squeeze(1) + torch.linalg.vecdot(self.embedding(labels), features)
