"""Statistics of reference images, computed once and kept on disk under a key of their content."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lightning_gen.files import atomic_path, canonical_json
from lightning_gen.metrics.extractors import FeatureExtractor
from lightning_gen.metrics.statistics import FeatureStatistics, GaussianStatistics

BATCH_SIZE = 64


class ReferenceImages(NamedTuple):
    """Real images that samples are scored against.

    Attributes:
        dataset: name of the set.
        split: of the set.
        images: (N, C, H, W) uint8.
        digest: SHA-256 (hexadecimal) of the shape and the pixels.
    """

    dataset: str
    split: str
    images: Tensor
    digest: str

    @classmethod
    def of(cls, dataset: str, split: str, images: Tensor) -> ReferenceImages:
        """The images with their digest."""
        content = hashlib.sha256(f"uint8{tuple(images.shape)}".encode())
        content.update(images.contiguous().cpu().numpy().data)
        return cls(dataset, split, images, content.hexdigest())

    def protocol(self) -> dict[str, Any]:
        """What identifies the reference."""
        return {"dataset": self.dataset, "split": self.split, "size": len(self.images), "digest": self.digest}


def compute_statistics(images: Tensor, extractor: FeatureExtractor) -> GaussianStatistics:
    """Statistics of the features of uint8 images (N, C, H, W), in this process alone, on the extractor's device."""
    device = next(extractor.parameters()).device
    statistics = FeatureStatistics(extractor.num_features, sync_on_compute=False).to(device)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE].to(device)
            statistics.update(extractor(batch).features)
        return statistics.compute()


def reference_statistics(
    reference: ReferenceImages, extractor: FeatureExtractor, cache_dir: Path
) -> GaussianStatistics:
    """Statistics of the reference images, read from ``cache_dir`` or computed and kept there.

    The file's name holds a digest of the images' content and of the extractor, so a stale one is never read. Any number
    of processes may ask at once: the first computes under a lock, the others read. A damaged file is replaced.
    """
    identity = canonical_json({"images": reference.digest, "extractor": extractor.protocol(), "version": 1})
    key = hashlib.sha256(identity.encode()).hexdigest()[:24]
    path = cache_dir / f"{reference.dataset}-{reference.split}-{extractor.name}-{key}.npz"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        cached = _read(path)
        if cached is not None:
            return cached
        statistics = compute_statistics(reference.images, extractor)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                n=statistics.n,
                mean=statistics.mean.numpy(),
                covariance=statistics.covariance.numpy(),
                factor=statistics.factor.numpy(),
                identity=np.frombuffer(identity.encode(), np.uint8),
            )
        return statistics


def _read(path: Path) -> GaussianStatistics | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance, factor = (torch.from_numpy(arrays[key]) for key in ("mean", "covariance", "factor"))
            return GaussianStatistics(int(arrays["n"]), mean, covariance, factor)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
