"""A random Inception weight file in torch-fidelity's format, and real photographs to score with it.

A freshly initialised Inception maps every image to nearly the same features. Here the kernels are He-initialised and
the batch norms hold the statistics of given images, so features differ between images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

FEATURES = ["2048", "logits_unbiased"]


class _UnloadedInception(FeatureExtractorInceptionV3):
    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> None:
        """The base class loads a weight file on creation; here none exists yet."""


def make_inception_weights(path: Path, images: Tensor, seed: int = 0, batch_size: int = 16) -> None:
    """Write a random weight file whose batch norms were measured on ``images``, uint8 (N, 3, H, W)."""
    torch.save({}, path)
    network = _UnloadedInception("random", FEATURES, feature_extractor_weights_path=str(path))
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.7, 1.3, generator=rng)
            module.bias.normal_(0, 0.2, generator=rng)
            module.momentum = None
    network.fc.weight.normal_(0, 0.1, generator=rng)
    network.fc.bias.normal_(0, 1.0, generator=rng)
    network.train()
    with torch.no_grad():
        for batch in images.split(batch_size):
            network(batch)
    torch.save(network.state_dict(), path)


def torch_fidelity_inception(path: Path) -> FeatureExtractorInceptionV3:
    """torch-fidelity's extractor as it ships, with the features of FID and Inception Score, from a weight file."""
    return FeatureExtractorInceptionV3("inception-v3-compat", FEATURES, feature_extractor_weights_path=str(path))


def photograph_crops(number: int, size: int = 64, seed: int = 0) -> Tensor:
    """Random crops of 128 to 256 pixels from scikit-learn's two photographs, in turn, thinned to ``size`` pixels.

    Returns:
        (number, 3, size, size) uint8.
    """
    rng = np.random.default_rng(seed)
    photographs = load_sample_images().images
    crops = []
    for index in range(number):
        photograph = photographs[index % len(photographs)]
        side = rng.integers(128, 257)
        top, left = (rng.integers(0, length - side + 1) for length in photograph.shape[:2])
        pixels = np.linspace(0, side - 1, size).round().astype(int)
        crops.append(photograph[top + pixels[:, None], left + pixels])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
