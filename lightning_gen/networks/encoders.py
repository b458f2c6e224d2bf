"""Images to the numbers that a law of latents, a code or a class is made of: fully connected, convolutional, residual.

An encoder takes ``image_shape`` (C, H, W), ``num_outputs`` and ``num_classes`` (None without labels), which the model
hands in. With classes the one-hot label joins the pixels, or, as constant maps, the channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.labels import concatenate_labels
from lightning_gen.networks.residual import DiscriminatorBlock, Norm

SMALLEST_MAP = 4
"""Maps are halved as long as the result is whole and not smaller than this."""

Activation = Literal["relu", "tanh", "softplus"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "softplus": nn.Softplus}
_NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "none": nn.Identity}


class MLPEncoder(nn.Module):
    """Fully connected layers, with one activation between them.

    Args:
        image_shape: (C, H, W).
        num_outputs: D.
        num_classes: K for an encoder that takes labels, or None.
        hidden: widths of the hidden layers.
        activation: ``relu``, ``tanh`` (Kingma and Welling 2013, appendix C) or ``softplus`` (Kingma et al. 2014).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_outputs: int,
        num_classes: int | None = None,
        hidden: Sequence[int] = (500,),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        num_inputs = math.prod(image_shape) + (num_classes or 0)
        self.layers = perceptron([num_inputs, *hidden, num_outputs], activation)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers (N, num_outputs) of images (N, C, H, W) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(images.flatten(1), labels, self.num_classes))


class ConvEncoder(nn.Module):
    """4x4 convolutions of stride 2 until maps are small, and one hidden layer.

    Args:
        image_shape: (C, H, W), H and W even and at least 8.
        num_outputs: D.
        num_classes: K for an encoder that takes labels, or None.
        base_channels: width of the first layer, which doubles as the size halves.
        hidden: width of the fully connected layer.
        norm: ``batch`` after every convolution, or ``none``.

    Raises:
        UserError: images too small, or an unknown norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_outputs: int,
        num_classes: int | None = None,
        base_channels: int = 32,
        hidden: int = 256,
        norm: Literal["batch", "none"] = "none",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        make_norm = norm_layer(norm, "encoder")
        maps = map_sizes(image_shape, "ConvEncoder")
        widths = [image_shape[0] + (num_classes or 0), *(base_channels * 2**level for level in range(len(maps) - 1))]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1), make_norm(width_out), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(widths[-1] * math.prod(maps[-1]), hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, num_outputs))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers (N, num_outputs) of images (N, C, H, W) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(images, labels, self.num_classes))


class ResNetEncoder(nn.Module):
    """Residual blocks (`lightning_gen.networks.residual.DiscriminatorBlock`) that halve the size, and a linear layer.

    Args:
        image_shape: (C, H, W), H and W even and at least 8.
        num_outputs: D.
        num_classes: K for an encoder that takes labels, or None.
        base_channels: width of the first block, which doubles as the size halves.
        norm: ``batch`` or ``none``.

    Raises:
        UserError: images too small, or an unknown norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_outputs: int,
        num_classes: int | None = None,
        base_channels: int = 32,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        make_norm = norm_layer(norm, "encoder")
        maps = map_sizes(image_shape, "ResNetEncoder")
        widths = [image_shape[0] + (num_classes or 0), *(base_channels * 2**level for level in range(len(maps) - 1))]
        blocks = [
            DiscriminatorBlock(*pair, make_norm, first=place == 0, wide=True)
            for place, pair in enumerate(pairwise(widths))
        ]
        last = nn.Linear(widths[-1] * math.prod(maps[-1]), num_outputs)
        self.layers = nn.Sequential(*blocks, make_norm(widths[-1]), nn.ReLU(), nn.Flatten(), last)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Numbers (N, num_outputs) of images (N, C, H, W) and labels (N,) int64 or None."""
        return self.layers(concatenate_labels(images, labels, self.num_classes))


class PlainResidualBlock(nn.Module):
    """ReLU, 3x3, ReLU, 1x1, plus the input (van den Oord et al. 2017, section 4.1).

    Args:
        channels: of the input and the output.
        hidden: channels between both convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H, W) of the input's shape."""
        return maps + self.layers(maps)


class MapEncoder(nn.Module):
    """Images to maps of vectors: 4x4 convolutions of stride 2, a 3x3 one, two residual blocks, a 1x1 convolution.

    Van den Oord et al. 2017, "Neural discrete representation learning", section 4.1, and its published code.

    Args:
        image_shape: (C, H, W), H and W multiples of ``2 ** halvings``.
        num_outputs: D of the vectors.
        channels: width of all layers.
        residual_channels: width within the residual blocks.
        halvings: how often the size is halved.

    Raises:
        UserError: a size that cannot be halved so often.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_outputs: int,
        channels: int = 128,
        residual_channels: int = 32,
        halvings: int = 2,
    ) -> None:
        super().__init__()
        check_halvings(image_shape, halvings, "encoder")
        layers: list[nn.Module] = []
        width = image_shape[0]
        for _ in range(halvings):
            layers += [nn.Conv2d(width, channels, 4, stride=2, padding=1), nn.ReLU()]
            width = channels
        layers += [nn.Conv2d(width, channels, 3, padding=1)]
        layers += [PlainResidualBlock(channels, residual_channels) for _ in range(2)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(channels, num_outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, num_outputs, h, w) of images (N, C, H, W)."""
        return self.layers(images)


def perceptron(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers between these widths, with an activation after all but the last.

    Raises:
        UserError: an unknown activation.
    """
    if activation not in _ACTIVATIONS:
        raise UserError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def norm_layer(norm: str, network: str) -> Norm:
    """What makes the normalization layers called ``norm``.

    Raises:
        UserError: an unknown name; ``network`` is where it stands in the config.
    """
    if norm not in _NORMS:
        raise UserError(f"model.{network}.norm must be batch or none, not {norm!r}")
    return _NORMS[norm]


def map_sizes(image_shape: tuple[int, int, int], architecture: str) -> list[tuple[int, int]]:
    """Heights and widths, from the image's own down to the smallest, each half of the one before.

    28 gives 28, 14, 7; 32 gives 32, 16, 8, 4.

    Raises:
        UserError: images that cannot be halved once; ``architecture`` is its subject.
    """
    _, height, width = image_shape
    sizes = [(height, width)]
    while all(side % 2 == 0 and side // 2 >= SMALLEST_MAP for side in sizes[-1]):
        height, width = sizes[-1]
        sizes.append((height // 2, width // 2))
    if len(sizes) == 1:
        raise UserError(f"{architecture} takes images of even sizes from 8, not {height}x{width}: set data.image_size")
    return sizes


def check_halvings(image_shape: tuple[int, int, int], halvings: int, network: str) -> None:
    """Refuse a number of halvings that the image's size does not allow.

    Raises:
        UserError: naming ``network``'s key.
    """
    _, height, width = image_shape
    if halvings < 1 or height % 2**halvings or width % 2**halvings:
        raise UserError(f"model.{network}.halvings={halvings}: images of {height}x{width} cannot be halved so often")
