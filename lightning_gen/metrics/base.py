"""What every score is: a streaming metric over one pass of features, and a record with its protocol."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torchmetrics
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.files import canonical_json
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference
from lightning_gen.registry import Registry

SCORING_VERSION = 1
"""Raised whenever a change of this code can move a score; part of every protocol."""


MAX_FEATURES = 8192
"""Dimension of the features up to which covariances are formed: 512 MiB in float64."""


class ScoreValue(NamedTuple):
    """A score and its error bar, or None where it has none.

    The bar is the standard error of the score, but for scores published as a mean and standard deviation over splits
    or subsets, which have that deviation.
    """

    value: float
    std: float | None = None


class ScoringPlan(NamedTuple):
    """What is known of an evaluation before any training.

    Attributes:
        extractor: of the features.
        num_samples: samples that will be drawn.
        reference_split: split of the data that they are compared with.
        reference_size: images of it that are used; None if that is not known yet.
        label_classes: number of classes that samples are asked for by; None for a model that takes no labels.
        walks: whether the samples' source can walk through latents.
    """

    extractor: FeatureExtractor
    num_samples: int
    reference_split: str
    reference_size: int | None
    label_classes: int | None
    walks: bool = True


class ScoreMetric(torchmetrics.Metric):
    """A score computed from features as they stream by; registered with ``@score_metrics.register("name")``.

    Subclasses are built as ``Metric(extractor, num_samples, reference, **shared, **options)``, add their states with
    `torchmetrics.Metric.add_state` so that processes are reduced, and say which direction is better. ``options`` are
    what a config may set for the metric, as ``{name: kernel_distance, subsets: 50}``.

    Attributes:
        reference_parts: the fields of ``reference`` that are used (`lightning_gen.metrics.reference.Reference`); a
            score without any does not have the reference in its protocol.
        shared: names of the states that are kept once for all metrics (`lightning_gen.metrics.shared`), which the
            constructor gets by these names; the evaluator feeds them.
        needs_segments: whether the shared sums must be kept apart by parts of the samples.
        lower_is_better: for leaderboards and the best checkpoint.
        prefix: the score's name before the extractor's.
        inception_name: its name with Inception features, for which alone the field has a name; None for
            ``<prefix>_inception``.
        of_features: False for a score of the pixels themselves, which has no extractor in its name and protocol.
    """

    full_state_update = False
    reference_parts: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()
    needs_segments: ClassVar[bool] = False
    lower_is_better: ClassVar[bool]
    prefix: ClassVar[str]
    inception_name: ClassVar[str | None] = None
    of_features: ClassVar[bool] = True

    def __init__(
        self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None, **options: Any
    ) -> None:
        super().__init__()

    @classmethod
    def score_name(cls, extractor_name: str) -> str:
        """The name under which the score is recorded.

        ``<prefix>_<extractor>``; with Inception features its own name, after ``clean_`` where images are resized as by
        clean-fid. The prefix alone for a score of the pixels.
        """
        if not cls.of_features:
            return cls.prefix
        if cls.inception_name and extractor_name == "inception":
            return cls.inception_name
        if cls.inception_name and extractor_name == "inception_clean":
            return f"clean_{cls.inception_name}"
        return f"{cls.prefix}_{extractor_name}"

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """Raise UserError, naming the remedy, if the score cannot be computed; nothing by default."""

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add samples; nothing by default, for a metric that reads shared states alone.

        Args:
            features: of N samples.
            indices: (N,) int64, which of all ``num_samples`` they are.
            labels: (N,) int64, the classes that they were asked for; None for a model that takes no labels.
        """

    @abstractmethod
    def compute(self) -> ScoreValue:
        """The score over the samples of all processes."""

    def settings(self) -> dict[str, Any]:
        """JSON-able settings of the metric that change its value; part of the protocol."""
        return {}


class WalkMetric(ScoreMetric):
    """A score of pairs of images that are a small step in latent space apart, instead of samples.

    Its ``update`` gets features (N, 2, D) of N pairs, and no labels.

    Attributes:
        step: length of the step, as a part of the way between two latents.
    """

    step: float


def check_few_features(prefix: str, extractor: FeatureExtractor) -> None:
    """Raise UserError where a covariance, or thousands, of the extractor's features would not fit into memory."""
    if extractor.num_features > MAX_FEATURES:
        raise UserError(
            f"{prefix}: the {extractor.num_features:,} features of extractor {extractor.name!r} are too many: use "
            "another extractor, or take it out of metrics.metrics"
        )


def sum_over_processes(state: Tensor, group: Any = None) -> list[Tensor]:
    """The sum of a state, as the only item of a list: a gather would hold one copy for every process."""
    total = state.clone()
    torch.distributed.all_reduce(total, group=group)
    return [total]


score_metrics: Registry[type[ScoreMetric]] = Registry("metric", __package__)


@dataclass(frozen=True)
class Score:
    """One recorded score.

    Attributes:
        name: ``fid``, ``fd_digits``, ...
        value: the score.
        std: its error bar (see `ScoreValue`), or None.
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
