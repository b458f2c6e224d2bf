"""What metrics need of reference images, computed once and kept on disk under a key of their content."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lightning_gen.files import atomic_path, canonical_json
from lightning_gen.metrics.extractors import FeatureExtractor
from lightning_gen.metrics.neighbors import ReferenceFeatures
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


class Reference(NamedTuple):
    """What metrics compare samples with; parts that no metric asked for are None.

    Attributes:
        statistics: mean and covariance of the features of all images.
        features: of at most ``max_features`` images, evenly spaced.
        class_counts: (K,) int64, how many of all images the extractor puts into each of its classes.
    """

    statistics: GaussianStatistics | None = None
    features: ReferenceFeatures | None = None
    class_counts: Tensor | None = None


def summarize(
    images: Tensor, extractor: FeatureExtractor, parts: Collection[str], max_features: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Parts of a `Reference` as arrays, by one pass of this process alone, on the extractor's device.

    Args:
        images: (N, C, H, W) uint8.
        extractor: with classes if ``class_counts`` is asked for.
        parts: names of fields of `Reference`.
        max_features: images, from first to last in even steps, whose features are kept.
    """
    device = next(extractor.parameters()).device
    statistics = FeatureStatistics(extractor.num_features, sync_on_compute=False).to(device)
    kept = torch.zeros(len(images), dtype=torch.bool)
    if "features" in parts:
        number = min(max_features, len(images))
        kept[torch.arange(number) * len(images) // number] = True
    features = []
    counts = torch.zeros(extractor.num_classes or 0, dtype=torch.int64, device=device)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            output = extractor(images[start : start + BATCH_SIZE].to(device))
            if "statistics" in parts:
                statistics.update(output.features)
            if "class_counts" in parts:
                assert output.logits is not None
                counts += output.logits.argmax(1).bincount(minlength=len(counts))
            features.append(output.features[kept[start : start + BATCH_SIZE].to(device)].cpu())
    summary: dict[str, dict[str, np.ndarray]] = {}
    if "statistics" in parts:
        summary["statistics"] = _statistics_arrays(statistics.compute())
    if "features" in parts:
        summary["features"] = {"features": torch.cat(features).numpy()}
    if "class_counts" in parts:
        summary["class_counts"] = {"class_counts": counts.cpu().numpy()}
    return summary


def compute_statistics(images: Tensor, extractor: FeatureExtractor) -> GaussianStatistics:
    """Statistics of the features of uint8 images (N, C, H, W), in this process alone, on the extractor's device."""
    return _restore_statistics(summarize(images, extractor, ["statistics"])["statistics"])


def load_reference(
    images: ReferenceImages,
    extractor: FeatureExtractor,
    cache_dir: Path,
    parts: Collection[str],
    max_features: int,
) -> Reference:
    """What metrics need of the reference images, read from ``cache_dir`` or computed in one pass and kept there.

    The files' names hold a digest of the images' content and of the extractor, so a stale one is never read. Any number
    of processes may ask at once: the first computes under a lock, the others read. A damaged file is replaced.

    Args:
        images: the reference images.
        extractor: of the features.
        cache_dir: where the files are.
        parts: names of the fields of `Reference` that are wanted.
        max_features: images whose features are kept at most.
    """
    identity = canonical_json({"images": images.digest, "extractor": extractor.protocol(), "version": 1})
    key = hashlib.sha256(identity.encode()).hexdigest()[:24]
    stem = f"{images.dataset}-{images.split}-{extractor.name}-{key}"
    names = {"statistics": stem, "features": f"{stem}-features-{max_features}", "class_counts": f"{stem}-classes"}
    paths = {part: cache_dir / f"{names[part]}.npz" for part in parts}
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir / f"{stem}.lock"):
        found = {part: arrays for part, path in paths.items() if (arrays := _read(path, _KEYS[part])) is not None}
        missing = paths.keys() - found.keys()
        if missing:
            computed = summarize(images.images, extractor, missing, max_features)
            for part, arrays in computed.items():
                with atomic_path(paths[part]) as temporary, temporary.open("wb") as file:
                    np.savez(file, identity=np.frombuffer(identity.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
            found |= computed
    return _restore(found)


_KEYS = {
    "statistics": ("n", "mean", "covariance", "factor"),
    "features": ("features",),
    "class_counts": ("class_counts",),
}


def _restore(found: Mapping[str, Mapping[str, np.ndarray]]) -> Reference:
    reference = Reference()
    if "statistics" in found:
        reference = reference._replace(statistics=_restore_statistics(found["statistics"]))
    if "features" in found:
        features = torch.from_numpy(found["features"]["features"])
        reference = reference._replace(features=ReferenceFeatures(features))
    if "class_counts" in found:
        reference = reference._replace(class_counts=torch.from_numpy(found["class_counts"]["class_counts"]))
    return reference


def _statistics_arrays(statistics: GaussianStatistics) -> dict[str, np.ndarray]:
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance, "factor": statistics.factor}
    return {"n": np.array(statistics.n), **{key: tensor.numpy() for key, tensor in tensors.items()}}


def _restore_statistics(arrays: Mapping[str, np.ndarray]) -> GaussianStatistics:
    mean, covariance, factor = (torch.from_numpy(arrays[key]) for key in ("mean", "covariance", "factor"))
    return GaussianStatistics(int(arrays["n"]), mean, covariance, factor)


def _read(path: Path, keys: Collection[str]) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
