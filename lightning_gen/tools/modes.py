"""Which classes a model makes, and how often, against those of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Modes:
    """Classes of samples beside those of the data.

    Attributes:
        counts: samples of each class.
        law: share of each class in the data.
        kl: KL(samples || data) in nats; infinite if samples have a class that the data lack.
        missing: classes of the data that no sample has.
    """

    counts: list[int]
    law: list[float]
    kl: float
    missing: list[int]

    def to_json(self, class_names: list[str]) -> dict[str, Any]:
        """Plain values by class name; an infinite KL is null."""
        shares = dict(zip(class_names, zip(self.counts, self.law, strict=True), strict=True))
        return {
            "kl": self.kl if math.isfinite(self.kl) else None,
            "missing": [class_names[label] for label in self.missing],
            "classes": {name: {"samples": count, "data": share} for name, (count, share) in shares.items()},
        }


def compare_modes(labels: Tensor, law: list[float]) -> Modes:
    """Compare the classes of samples, labels (N,) int64, with the data's law.

    The KL divergence is the "reverse" one of Metz et al. 2017 (unrolled GANs), of the samples' classes p from the
    data's q: ``sum p log(p / q)``. It is finite where classes are missing.
    """
    counts = labels.bincount(minlength=len(law)).tolist()
    kl = 0.0
    for count, share in zip(counts, law, strict=True):
        if count:
            kl += count / len(labels) * math.log(count / len(labels) / share) if share else math.inf
    missing = [label for label, (count, share) in enumerate(zip(counts, law, strict=True)) if share and not count]
    return Modes(counts, law, kl, missing)
