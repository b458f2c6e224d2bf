"""Scores of pairs of images: how unlike one another samples are, and how smoothly images follow latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, ScoringPlan, WalkMetric, score_metrics
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference

KEPT_SHARE = (0.01, 0.99)
"""Quantiles of path lengths beyond which they are left out (the code of Karras et al. 2019)."""


@score_metrics.register("diversity")
class Diversity(ScoreMetric):
    """Mean squared distance in feature space of pairs of samples, the first and second, third and fourth, ...

    With the extractor ``lpips`` it is the LPIPS diversity of the field (Zhu et al. 2017, "Toward multimodal
    image-to-image translation", section 4.2). At least 0. Pairs of a conditional model may be of different classes.
    """

    lower_is_better = False
    prefix = "diversity"
    sums: Tensor

    def __init__(self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None) -> None:
        super().__init__(extractor, num_samples, reference)
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add pairs of neighbors among features (N, D) of the samples of a block; the last of an odd number is left."""
        del indices, labels
        pairs = features.features[: len(features.features) // 2 * 2].unflatten(0, (-1, 2))
        distances = (pairs[:, 0] - pairs[:, 1]).double().square().sum(1)
        self.sums += torch.stack([distances.new_tensor(len(distances)), distances.sum(), distances.square().sum()])

    def compute(self) -> ScoreValue:
        """Mean and standard error over the pairs of all processes."""
        number, total, squares = self.sums.tolist()
        mean = total / number
        return ScoreValue(mean, (max(squares / number - mean**2, 0.0) / number) ** 0.5)


@score_metrics.register("path_length")
class PathLength(WalkMetric):
    """Perceptual path length: mean squared distance per squared step along a walk between two latents.

    Karras et al. 2019, "A style-based generator architecture", section 4.1, in the latent space z (eq. 2):
    ``d(G(slerp(z1, z2; t)), G(slerp(z1, z2; t + eps))) / eps^2`` with t ~ U[0, 1] and d the squared distance in feature
    space, which with the extractor ``lpips`` is the paper's. As in their code the smallest and largest percent are left
    out. Images are not rounded to uint8: that would swallow the step. The error bar is the standard error.

    Args:
        extractor: must take images as floats.
        num_samples: pairs that will be drawn.
        reference: not used.
        step: eps.
    """

    lower_is_better = True
    prefix = "path_length"
    distances: Tensor

    def __init__(
        self, extractor: FeatureExtractor, num_samples: int, reference: Reference | None, step: float = 1e-4
    ) -> None:
        super().__init__(extractor, num_samples, reference)
        if not 0 < step < 1:
            raise UserError(f"path_length: step must be in (0, 1), not {step}")
        self.step = step
        self.add_state("distances", torch.zeros(num_samples, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def check(cls, plan: ScoringPlan) -> None:
        """The model must have latents, and the extractor take floats.

        Raises:
            UserError: one of the two is not so.
        """
        if not plan.walks:
            raise UserError("path_length needs a model with latents: take it out of metrics.metrics")
        if not plan.extractor.takes_floats:
            raise UserError(
                f"path_length needs an extractor that takes images before they are rounded, which "
                f"{plan.extractor.name!r} does not: use another metrics.extractor"
            )

    def settings(self) -> dict[str, Any]:
        """The step and the quantiles kept."""
        return {"step": self.step, "kept": list(KEPT_SHARE)}

    def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
        """Add features (N, 2, D) at the walks' points and one step on."""
        del labels
        first, second = features.features.unbind(1)
        self.distances[indices] = (first - second).double().square().sum(1) / self.step**2

    def compute(self) -> ScoreValue:
        """Mean and standard error over the pairs of all processes, but the outermost."""
        low, high = (
            torch.quantile(self.distances, share, interpolation=end)
            for share, end in zip(KEPT_SHARE, ("lower", "higher"), strict=True)
        )
        kept = self.distances[(self.distances >= low) & (self.distances <= high)]
        return ScoreValue(float(kept.mean()), float(kept.std(correction=0)) / len(kept) ** 0.5)
