"""What the networks of diffusion models have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class DenoisingNetwork(nn.Module, ABC):
    """Noisy images, and how noisy they are, to maps of the same shape; a subclass is a network.

    What the maps mean (the noise, the image, a velocity) is the model's affair (`lightning_gen.diffusion.targets`).

    Args:
        image_shape: (C, H, W) of the images.
        num_classes: K for a network that takes labels, or None. Such a network has K + 1 of them: K stands for "no
            label".
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int | None = None) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, images: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps (N, C, H, W) of noisy images.

        Args:
            images: (N, C, H, W), scaled so that their values are of the order of 1.
            noise_level: (N,) float32, which grows with the noise and spans the order of 1000, as the steps of DDPM do;
                differences of 1 matter little.
            labels: (N,) int64 in [0, K], K for none; None for a network without classes.
        """
