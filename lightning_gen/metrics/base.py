"""What every score is: a streaming metric over one pass of features, and a record with its protocol."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

import torchmetrics
from torch import Tensor

from lightning_gen.files import canonical_json
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.statistics import GaussianStatistics
from lightning_gen.registry import Registry

SCORING_VERSION = 1
"""Raised whenever a change of this code can move a score; part of every protocol."""


class ScoreValue(NamedTuple):
    """A score and its standard deviation over splits, or None where it has none."""

    value: float
    std: float | None = None


class ScoreMetric(torchmetrics.Metric):
    """A score computed from features as they stream by; registered with ``@score_metrics.register("name")``.

    Subclasses are built as ``Metric(extractor, num_samples, reference, **options)``, add their states with
    `torchmetrics.Metric.add_state` so that processes are reduced, and say which direction is better.

    Attributes:
        needs_reference: whether ``reference`` is used.
        lower_is_better: for leaderboards and the best checkpoint.
    """

    full_state_update = False
    needs_reference: ClassVar[bool]
    lower_is_better: ClassVar[bool]

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: GaussianStatistics | None) -> None:
        super().__init__()

    @staticmethod
    @abstractmethod
    def score_name(extractor_name: str) -> str:
        """The name under which the score is recorded; it tells the extractor."""

    @abstractmethod
    def update(self, features: Features, indices: Tensor) -> None:
        """Add the features of the samples at ``indices`` (N,) int64 of all ``num_samples``."""

    @abstractmethod
    def compute(self) -> ScoreValue:
        """The score over the samples of all processes."""

    def settings(self) -> dict[str, Any]:
        """JSON-able settings of the metric that change its value; part of the protocol."""
        return {}


score_metrics: Registry[type[ScoreMetric]] = Registry("metric", __package__)


@dataclass(frozen=True)
class Score:
    """One recorded score.

    Attributes:
        name: ``fid``, ``fd_digits``, ...
        value: the score.
        std: standard deviation over splits, or None.
        images_seen: real images that training had consumed.
        lower_is_better: the direction.
        ranked: False where the extractor's scores may not stand on a leaderboard.
        protocol: everything that must be equal for two values to be comparable.
        protocol_hash: first 16 hexadecimal digits of the SHA-256 of the protocol's canonical JSON.
    """

    name: str
    value: float
    std: float | None
    images_seen: int
    lower_is_better: bool
    ranked: bool
    protocol: dict[str, Any]
    protocol_hash: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocol_hash", protocol_hash(self.protocol))

    def to_json(self) -> dict[str, Any]:
        """The score as plain values."""
        return asdict(self)


def protocol_hash(protocol: dict[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a protocol's canonical JSON."""
    return hashlib.sha256(canonical_json(protocol).encode()).hexdigest()[:16]
