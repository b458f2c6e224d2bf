"""Small classifiers whose units before the classes serve as features: LeNet-5 and a short ResNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gen.metrics.extractors.base import Features


class Classifier(nn.Module):
    """What a trained extractor holds: float images in [-1, 1] to features and class scores.

    Attributes:
        num_features: D of the features.
        layer: what they are, for protocols.
    """

    num_features: int
    layer: str


class LeNet(Classifier):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; its 84 units before the classes are the features.

    Args:
        image_channels: C of the images.
        num_classes: K.
        input_size: height and width of the images, 32.
    """

    num_features = 84
    layer = "dense_84"

    def __init__(self, image_channels: int = 1, num_classes: int = 10, input_size: int = 32) -> None:
        super().__init__()
        assert input_size == 32
        self.layers = nn.Sequential(
            nn.Conv2d(image_channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 120, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(120, self.num_features),
        )
        self.head = nn.Linear(self.num_features, num_classes)

    def forward(self, images: Tensor) -> Features:
        """Features before their ReLU and logits of float images (N, C, 32, 32) in [-1, 1]."""
        features = self.layers(images)
        return Features(features, self.head(features.relu()))


class ResNet(Classifier):
    """Stages that halve the image and add a residual block (He et al. 2016), down to 4x4; the mean is the features.

    A stage pools right after its first convolution, before batch norm and ReLU, so that most of the work is on small
    maps: 64 million multiplications for an image of 32x32.

    Args:
        image_channels: C of the images.
        num_classes: K.
        input_size: height and width of the images, a power of two from 8.
    """

    num_features = 192
    layer = "mean_192"

    def __init__(self, image_channels: int = 3, num_classes: int = 10, input_size: int = 32) -> None:
        super().__init__()
        halvings = (input_size // 4).bit_length() - 1
        widths = [max(24, self.num_features >> stage) for stage in reversed(range(halvings))]
        layers: list[nn.Module] = [_convolution(image_channels, 24), *_norm(24)]
        channels = 24
        for width in widths:
            layers += [_convolution(channels, width), nn.MaxPool2d(2), *_norm(width), _Residual(width)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(self.num_features, num_classes)

    def forward(self, images: Tensor) -> Features:
        """Features and logits of float images (N, C, S, S) in [-1, 1]."""
        features = self.layers(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return Features(features, self.head(features))


class _Residual(nn.Module):
    """Two convolutions of 3x3, each with batch norm and ReLU, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [[_convolution(channels, channels), *_norm(channels)] for _ in range(2)]
        self.layers = nn.Sequential(*convolutions[0], *convolutions[1])

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layers(inputs)


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


def _norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


ARCHITECTURES: dict[str, type[LeNet] | type[ResNet]] = {"lenet": LeNet, "resnet": ResNet}
