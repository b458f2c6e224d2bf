"""Inception features on this machine: our extractor against torch-fidelity's, same weights and images, in one run.

    python benchmarks/inception_features.py [--images 64] [--batch-size 16] [--rounds 5]

Weights are random, with batch norms measured on the images (photographs of 64x64); speed does not depend on them. Both
sides compute features and logits of batches held in memory, on the CPU. They take turns, and every round gives one
ratio, so load on the machine that comes and goes falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lightning_gen.metrics.extractors.inception import InceptionExtractor
from tests.metrics.inception_weights import make_inception_weights, photograph_crops, torch_fidelity_inception


def extract(extractor: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, batch_size: int) -> tuple[Tensor, float]:
    """Features (N, 2048) of all images, and the seconds that it took."""
    with torch.no_grad():
        start = time.perf_counter()
        features = torch.cat([extractor(batch)[0] for batch in images.split(batch_size)])
        return features, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    images = photograph_crops(options.images)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "inception.pth")
        make_inception_weights(weights, images[:64])
        ours, theirs = InceptionExtractor(weights), torch_fidelity_inception(weights)
    for extractor in (ours, theirs):
        extractor(images[: options.batch_size])

    our_seconds, their_seconds = [], []
    for _ in range(options.rounds):
        our_features, seconds = extract(ours, images, options.batch_size)
        our_seconds.append(seconds)
        their_features, seconds = extract(theirs, images, options.batch_size)
        their_seconds.append(seconds)
    ratios = [slow / fast for slow, fast in zip(their_seconds, our_seconds, strict=True)]
    error = (our_features - their_features).norm(dim=1) / their_features.norm(dim=1)

    print(f"{options.images} images, batches of {options.batch_size}, {torch.get_num_threads()} threads")
    print(f"torch-fidelity  {options.images / statistics.median(their_seconds):7.1f} images/s")
    print(f"lightning_gen   {options.images / statistics.median(our_seconds):7.1f} images/s")
    print(f"ratio           {statistics.median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"largest relative difference of an image's features: {error.max():.1e}")


if __name__ == "__main__":
    main()
