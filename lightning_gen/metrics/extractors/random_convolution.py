"""An extractor with random weights, for tests and dry runs; its scores rank nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.images import as_float
from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, extractors
from lightning_gen.seeds import make_rng


@extractors.register("random")
class RandomExtractor(FeatureExtractor):
    """One random strided convolution and a mean over positions, of any image; barred from leaderboards.

    Args:
        num_features: D of the features.
        seed: of the weights.
    """

    name = "random"
    ranked = False
    num_classes = 10
    num_spatial = 8
    takes_floats = True

    def __init__(self, num_features: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.num_features = num_features
        self.seed = seed
        rng = make_rng("random extractor", seed)
        self.kernel = nn.Parameter(torch.randn(num_features, 1, 5, 5, generator=rng) / 5)
        self.classes = nn.Parameter(torch.randn(self.num_classes, num_features, generator=rng))

    def forward(self, images: Tensor) -> Features:
        """Features (N, D), logits (N, 10) and spatial features (N, 8) of images (N, C, H, W); channels are averaged."""
        with torch.autocast(images.device.type, enabled=False):
            grey = as_float(images).mean(1, keepdim=True)
            maps = nn.functional.conv2d(grey, self.kernel, stride=2).relu()
            features = maps.mean((2, 3))
            quarters = nn.functional.adaptive_avg_pool2d(maps[:, :2], 2).flatten(1)
            return Features(features, features @ self.classes.T, quarters)

    def protocol(self) -> dict[str, Any]:
        """Name, size and digest of the random weights."""
        digest = hashlib.sha256(self.kernel.detach().cpu().numpy().tobytes()).hexdigest()
        return {"name": self.name, "weights_sha256": digest, "layer": f"mean_{self.num_features}", "resize": "none"}

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Any image of at least 5x5 will do."""
