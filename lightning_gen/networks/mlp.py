"""The fully connected networks of GAN (Goodfellow et al. 2014) and conditional GAN (Mirza and Osindero 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, LinearHead
from lightning_gen.networks.labels import concatenate_labels


class Maxout(nn.Module):
    """Each unit is the largest of several linear functions of the input (Goodfellow et al. 2013, equations 1 and 2).

    Args:
        num_inputs: D.
        units: U.
        pieces: how many linear functions each unit chooses from.
    """

    def __init__(self, num_inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(num_inputs, units * pieces)

    def forward(self, inputs: Tensor) -> Tensor:
        """Units (N, U) of inputs (N, D)."""
        return self.linear(inputs).unflatten(1, (-1, self.pieces)).amax(2)


class SplitLayer(nn.Module):
    """One layer on the first columns of the input and another on the rest, their outputs side by side.

    Args:
        first: layer on the first ``num_first`` columns.
        second: layer on the others.
        num_first: how many columns ``first`` takes.
    """

    def __init__(self, first: nn.Module, second: nn.Module, num_first: int) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.num_first = num_first

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (N, U1 + U2) of inputs (N, D)."""
        return torch.cat([self.first(inputs[:, : self.num_first]), self.second(inputs[:, self.num_first :])], 1)


class MLPGenerator(nn.Module):
    """Latents to images by fully connected layers with ReLU between them.

    The output is tanh where the papers have a sigmoid: the same function up to the range of images. Weights ~
    U[-0.05, 0.05] by default, biases 0, as in the code of Goodfellow et al. 2014. With classes, of the first layer's
    units ``label_units`` see the label alone and the others the latents alone (Mirza and Osindero 2014, section 4.1:
    1000 and 200).

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: D of the latents.
        num_classes: K for a generator that takes labels, or None.
        hidden: widths of the hidden layers.
        label_units: see above.
        dropout: probability after each hidden layer.
        weight_range: half-width of the first weights' distribution; None for torch's, 1 / sqrt(inputs of the layer),
            biases too, which a label among few units needs.
        norm: ``batch`` for batch norm before each ReLU, which the papers do not have, or ``none``.

    Raises:
        UserError: no hidden layers, none of the first one's units left for the latents, or another norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int | None = None,
        hidden: Sequence[int] = (1200, 1200),
        label_units: int = 1000,
        dropout: float = 0.0,
        weight_range: float | None = 0.05,
        norm: Literal["none", "batch"] = "none",
    ) -> None:
        super().__init__()
        if norm not in ("none", "batch"):
            raise UserError(f"model.generator.norm must be none or batch, not {norm!r}")
        if not hidden:
            raise UserError("model.generator.hidden must name at least one layer's width")
        if num_classes is not None and not 0 < label_units < hidden[0]:
            raise UserError(
                f"model.generator.label_units={label_units} must leave units of the first layer, {hidden[0]} wide, "
                "to the latents"
            )
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        first: nn.Module = nn.Linear(latent_dim, hidden[0])
        if num_classes is not None:
            from_latents = nn.Linear(latent_dim, hidden[0] - label_units)
            first = SplitLayer(from_latents, nn.Linear(num_classes, label_units), latent_dim)
        linear = [first, *(nn.Linear(width_in, width_out) for width_in, width_out in pairwise(hidden))]
        layers: list[nn.Module] = []
        for layer, width in zip(linear, hidden, strict=True):
            normalization = [nn.BatchNorm1d(width)] if norm == "batch" else []
            layers += [layer, *normalization, nn.ReLU(inplace=True), nn.Dropout(dropout)]
        layers += [nn.Linear(hidden[-1], math.prod(image_shape)), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialize(self, weight_range)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(latents, labels, self.num_classes)).unflatten(1, self.image_shape)


class MaxoutDiscriminator(Discriminator):
    """Images to logits by `Maxout` layers with dropout.

    Weights ~ U[-0.005, 0.005] by default, biases 0, as in the code of Goodfellow et al. 2014. With classes the first
    layer is two: one on the image and one with ``label_units`` units on the label; the layers after it see both, with
    ``joint_pieces`` pieces (Mirza and Osindero 2014, section 4.1).

    Args:
        image_shape: (C, H, W) of the images.
        num_classes: K for a discriminator that takes labels, or None.
        units: units of each layer.
        pieces: pieces of each unit.
        layers: number of layers, at least 2 for a discriminator that takes labels.
        input_dropout: probability for the pixels; labels are never dropped.
        dropout: probability after each layer.
        label_units: see above.
        joint_pieces: see above.
        weight_range: half-width of the first weights' distribution, or None, as in `MLPGenerator`.

    Raises:
        UserError: too few layers.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        units: int = 240,
        pieces: int = 5,
        layers: int = 2,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        label_units: int = 50,
        joint_pieces: int = 4,
        weight_range: float | None = 0.005,
    ) -> None:
        super().__init__(num_classes)
        self.weight_range = weight_range
        fewest = 1 if num_classes is None else 2
        if layers < fewest:
            raise UserError(f"model.discriminator.layers must be at least {fewest}, not {layers}")
        num_pixels = math.prod(image_shape)
        first: nn.Module = nn.Sequential(nn.Dropout(input_dropout), Maxout(num_pixels, units, pieces))
        width = units
        if num_classes is not None:
            first = SplitLayer(first, Maxout(num_classes, label_units, pieces), num_pixels)
            width, pieces = units + label_units, joint_pieces
        blocks = [nn.Sequential(first, nn.Dropout(dropout))]
        for _ in range(layers - 1):
            blocks.append(nn.Sequential(Maxout(width, units, pieces), nn.Dropout(dropout)))
            width = units
        self.blocks = nn.Sequential(*blocks)
        self.set_head(units, LinearHead(units))
        self.initialize(self)

    def initialize(self, network: nn.Module) -> None:
        """Weights ~ U[-weight_range, weight_range], biases 0; nothing where there is no range."""
        _initialize(network, self.weight_range)

    def prepare_input(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Pixels (N, C * H * W), with the one-hot label after them where there are classes."""
        return concatenate_labels(images.flatten(1), labels, self.num_classes)


def _initialize(network: nn.Module, limit: float | None) -> None:
    if limit is None:
        return
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -limit, limit)
            nn.init.zeros_(module.bias)
