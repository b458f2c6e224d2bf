"""What metrics need of reference images, computed once and kept on disk under a key of their content."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lightning_gen.files import atomic_path, canonical_json
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.labelled_pixels import LabelledPixels, pooled_pixels
from lightning_gen.metrics.neighbors import ReferenceFeatures
from lightning_gen.metrics.statistics import FeatureStatistics, GaussianStatistics

BATCH_SIZE = 64


class ReferenceImages(NamedTuple):
    """Real images that samples are scored against.

    Attributes:
        dataset: name of the set.
        split: of the set.
        size: number N of images.
        digest: SHA-256 (hexadecimal) of their content.
        read: (first, last + 1) -> uint8 images (M, C, H, W).
        labels: (N,) int64, or None.
        facts: what else identifies them, JSON-able.
    """

    dataset: str
    split: str
    size: int
    digest: str
    read: Callable[[int, int], Tensor]
    labels: Tensor | None = None
    facts: Mapping[str, Any] = {}

    @classmethod
    def of(cls, dataset: str, split: str, images: Tensor, labels: Tensor | None = None) -> ReferenceImages:
        """Images (N, C, H, W) uint8 in memory; the digest is of their shape and pixels."""
        content = hashlib.sha256(f"uint8{tuple(images.shape)}".encode())
        content.update(images.contiguous().cpu().numpy().data)
        return cls(dataset, split, len(images), content.hexdigest(), lambda start, end: images[start:end], labels)

    def protocol(self) -> dict[str, Any]:
        """What identifies the reference."""
        return {"dataset": self.dataset, "split": self.split, "size": self.size, "digest": self.digest, **self.facts}

    def batches(self) -> Iterator[tuple[Tensor, slice]]:
        """All images, `BATCH_SIZE` at a time, and where they are."""
        for start in range(0, self.size, BATCH_SIZE):
            part = slice(start, min(start + BATCH_SIZE, self.size))
            yield self.read(part.start, part.stop), part


class Reference(NamedTuple):
    """What metrics compare samples with; parts that no metric asked for are None.

    Attributes:
        statistics: mean and covariance of the features of all images.
        features: of at most ``max_features`` images, evenly spaced.
        class_counts: (K,) int64, how many of all images the extractor puts into each of its classes.
        spatial_statistics: mean and covariance of the spatial features of all images.
        class_statistics: mean and covariance of the features of each class of the set's labels.
        labelled_pixels: pixels and labels of at most ``max_features`` images, evenly spaced.
    """

    statistics: GaussianStatistics | None = None
    features: ReferenceFeatures | None = None
    class_counts: Tensor | None = None
    spatial_statistics: GaussianStatistics | None = None
    class_statistics: list[GaussianStatistics] | None = None
    labelled_pixels: LabelledPixels | None = None


Arrays = dict[str, np.ndarray]


class Part:
    """One field of a `Reference` while images stream by, and as arrays in a file.

    Attributes:
        keys: names of the arrays.
        suffix: of the file's name.
    """

    keys: tuple[str, ...]
    suffix = ""

    def __init__(self, images: ReferenceImages, extractor: FeatureExtractor, max_features: int) -> None:
        raise NotImplementedError

    def update(self, output: Features, part: slice) -> None:
        """Add the features of the images at ``part``."""
        raise NotImplementedError

    def arrays(self) -> Arrays:
        """What a file keeps."""
        raise NotImplementedError

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> Any:
        """The field from the file's arrays."""
        raise NotImplementedError


class _Statistics(Part):
    keys = ("n", "mean", "covariance", "factor")
    spatial = False

    def __init__(self, images: ReferenceImages, extractor: FeatureExtractor, max_features: int) -> None:
        number = extractor.num_spatial if self.spatial else extractor.num_features
        assert number is not None
        self.sums = FeatureStatistics(number, sync_on_compute=False).to(_device(extractor))

    def update(self, output: Features, part: slice) -> None:
        features = output.spatial if self.spatial else output.features
        assert features is not None
        self.sums.update(features)

    def arrays(self) -> Arrays:
        return _statistics_arrays(self.sums.compute())

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> GaussianStatistics:
        return _restore_statistics(arrays)


class _SpatialStatistics(_Statistics):
    suffix = "-spatial"
    spatial = True


class _Features(Part):
    keys = ("features",)

    def __init__(self, images: ReferenceImages, extractor: FeatureExtractor, max_features: int) -> None:
        self.kept = _evenly_spaced(images.size, max_features)
        self.features: list[Tensor] = []

    def update(self, output: Features, part: slice) -> None:
        self.features.append(output.features[self.kept[part].to(output.features.device)].cpu())

    def arrays(self) -> Arrays:
        return {"features": torch.cat(self.features).numpy()}

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> ReferenceFeatures:
        return ReferenceFeatures(torch.from_numpy(arrays["features"]))


class _ClassCounts(Part):
    keys = ("class_counts",)
    suffix = "-classes"

    def __init__(self, images: ReferenceImages, extractor: FeatureExtractor, max_features: int) -> None:
        assert extractor.num_classes is not None
        self.counts = torch.zeros(extractor.num_classes, dtype=torch.int64, device=_device(extractor))

    def update(self, output: Features, part: slice) -> None:
        assert output.logits is not None
        self.counts += output.logits.argmax(1).bincount(minlength=len(self.counts))

    def arrays(self) -> Arrays:
        return {"class_counts": self.counts.cpu().numpy()}

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> Tensor:
        return torch.from_numpy(arrays["class_counts"])


class _ClassStatistics(Part):
    keys = ("n", "mean", "covariance")

    def __init__(self, images: ReferenceImages, extractor: FeatureExtractor, max_features: int) -> None:
        assert images.labels is not None
        self.labels = images.labels
        classes = int(images.labels.max()) + 1
        make = FeatureStatistics(extractor.num_features, sync_on_compute=False).to(_device(extractor))
        self.sums = [make.clone() for _ in range(classes)]

    def update(self, output: Features, part: slice) -> None:
        labels = self.labels[part].to(output.features.device)
        for label in labels.unique().tolist():
            self.sums[label].update(output.features[labels == label])

    def arrays(self) -> Arrays:
        classes = [sums.compute() for sums in self.sums]
        return {
            "n": np.array([each.n for each in classes]),
            "mean": torch.stack([each.mean for each in classes]).numpy(),
            "covariance": torch.stack([each.covariance for each in classes]).numpy(),
        }

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> list[GaussianStatistics]:
        sums = (arrays["n"].tolist(), torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["covariance"]))
        return [GaussianStatistics(*each) for each in zip(*sums, strict=True)]


class _LabelledPixels(Part):
    keys = ("pixels", "labels")

    def __init__(self, images: ReferenceImages, extractor: FeatureExtractor, max_features: int) -> None:
        assert images.labels is not None
        self.kept = _evenly_spaced(images.size, max_features)
        self.labels = images.labels.cpu()[self.kept]
        self.pixels: list[Tensor] = []

    def update(self, output: Features, part: slice) -> None:
        assert output.images is not None
        self.pixels.append(pooled_pixels(output.images[self.kept[part].to(output.images.device)]).cpu())

    def arrays(self) -> Arrays:
        return {"pixels": torch.cat(self.pixels).numpy(), "labels": self.labels.numpy()}

    @staticmethod
    def restore(arrays: Mapping[str, np.ndarray]) -> LabelledPixels:
        return LabelledPixels(torch.from_numpy(arrays["pixels"]), torch.from_numpy(arrays["labels"]))


PARTS: dict[str, type[Part]] = {
    "statistics": _Statistics,
    "features": _Features,
    "class_counts": _ClassCounts,
    "spatial_statistics": _SpatialStatistics,
    "class_statistics": _ClassStatistics,
    "labelled_pixels": _LabelledPixels,
}
"""The fields of `Reference`."""

LABELLED_PARTS = frozenset({"class_statistics", "labelled_pixels"})
"""Those that need the labels of the images."""


def summarize(
    images: ReferenceImages, extractor: FeatureExtractor, parts: Collection[str], max_features: int = 0
) -> dict[str, Arrays]:
    """Parts of a `Reference` as arrays, by one pass of this process alone, on the extractor's device.

    Args:
        images: with labels if one of `LABELLED_PARTS` is asked for.
        extractor: with what the parts are made of.
        parts: names of fields of `Reference`.
        max_features: images, from first to last in even steps, whose features are kept.
    """
    making = {name: PARTS[name](images, extractor, max_features) for name in parts}
    with torch.inference_mode():
        for batch, part in images.batches():
            pixels = batch.to(_device(extractor))
            output = extractor(pixels)._replace(images=pixels)
            for each in making.values():
                each.update(output, part)
    return {name: part.arrays() for name, part in making.items()}


def compute_statistics(images: Tensor, extractor: FeatureExtractor) -> GaussianStatistics:
    """Statistics of the features of uint8 images (N, C, H, W), in this process alone, on the extractor's device."""
    reference = ReferenceImages("", "", len(images), "", lambda start, end: images[start:end])
    return _restore_statistics(summarize(reference, extractor, ["statistics"])["statistics"])


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
    suffixes = {name: part.suffix for name, part in PARTS.items()}
    suffixes["features"] = f"-features-{max_features}"
    if LABELLED_PARTS & set(parts):
        assert images.labels is not None
        labels = hashlib.sha256(images.labels.cpu().numpy().tobytes()).hexdigest()
        suffixes["class_statistics"] = f"-labels-{labels[:12]}"
        suffixes["labelled_pixels"] = f"-pixels-{max_features}-labels-{labels[:12]}"
    paths = {part: cache_dir / f"{stem}{suffixes[part]}.npz" for part in parts}
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir / f"{stem}.lock"):
        found = {part: arrays for part, path in paths.items() if (arrays := _read(path, PARTS[part].keys)) is not None}
        missing = paths.keys() - found.keys()
        if missing:
            computed = summarize(images, extractor, missing, max_features)
            for part, arrays in computed.items():
                with atomic_path(paths[part]) as temporary, temporary.open("wb") as file:
                    np.savez(file, identity=np.frombuffer(identity.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
            found |= computed
    return Reference(**{part: PARTS[part].restore(arrays) for part, arrays in found.items()})


def _evenly_spaced(size: int, number: int) -> Tensor:
    """(size,) bool, true for at most so many, from first to last in even steps."""
    number = min(number, size)
    kept = torch.zeros(size, dtype=torch.bool)
    kept[torch.arange(number) * size // number] = True
    return kept


def _device(extractor: FeatureExtractor) -> torch.device:
    return next(extractor.parameters()).device


def _statistics_arrays(statistics: GaussianStatistics) -> Arrays:
    assert statistics.n is not None
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance, "factor": statistics.factor}
    return {"n": np.array(statistics.n), **{key: tensor.numpy() for key, tensor in tensors.items()}}


def _restore_statistics(arrays: Mapping[str, np.ndarray]) -> GaussianStatistics:
    mean, covariance, factor = (torch.from_numpy(arrays[key]) for key in ("mean", "covariance", "factor"))
    return GaussianStatistics(int(arrays["n"]), mean, covariance, factor)


def _read(path: Path, keys: Collection[str]) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
