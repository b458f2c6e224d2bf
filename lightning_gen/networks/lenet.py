"""The small network of MNIST's papers on domain adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_gen.errors import UserError

KERNEL = 5


class LeNetEncoder(nn.Module):
    """5x5 convolutions, each with ReLU and 2x2 max pooling, and a fully connected layer with ReLU where asked for.

    With 32 and 48 channels and no fully connected layer it is the feature extractor of Ganin et al. 2016, figure 4a.

    Args:
        image_shape: (C, H, W).
        num_outputs: width D of the fully connected layer; None for the maps of the last pooling, flattened.
        channels: of the convolutions.

    Raises:
        UserError: images too small.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_outputs: int | None = None, channels: Sequence[int] = (32, 48)
    ) -> None:
        super().__init__()
        width, *size = image_shape
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([width, *channels]):
            layers += [nn.Conv2d(width_in, width_out, KERNEL), nn.ReLU(), nn.MaxPool2d(2)]
            size = [(side - KERNEL + 1) // 2 for side in size]
            if min(size) < 1:
                raise UserError(
                    f"LeNetEncoder takes images from 16x16 for two convolutions, not "
                    f"{image_shape[1]}x{image_shape[2]}: set data.image_size"
                )
            width = width_out
        layers.append(nn.Flatten())
        if num_outputs is not None:
            layers += [nn.Linear(width * size[0] * size[1], num_outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D) of images (N, C, H, W)."""
        return self.layers(images)
