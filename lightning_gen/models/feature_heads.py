"""Classifiers of features that are fitted at once: a linear one, and one of Gaussian mixtures."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.models.gaussian_mixture import (
    COVARIANCES,
    Covariance,
    Mixture,
    class_log_joint,
    fit_mixture,
    initial_mixture,
)
from lightning_gen.models.linear_probe import Kind, Probe


class FeatureHead(nn.Module):
    """Class logits of features, fitted to all of them at once and kept in checkpoints.

    What is fitted are parameters, so that it is counted and broadcast like any other network; no gradient changes them.

    Args:
        num_features: D.
        num_classes: K.

    Attributes:
        uses_unlabelled: whether `fit` looks at features without a label.
    """

    uses_unlabelled: ClassVar[bool]

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.num_classes = num_classes

    @abstractmethod
    def fit(self, features: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
        """Fit to features (N, D) on the CPU with labels (N,) int64, -1 where unknown.

        Args:
            features: of the training images.
            labels: at least one of each class.
            seed: of whatever is drawn.

        Returns:
            Name -> number, for the logs.

        Raises:
            UserError: too few labels.
        """

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Class logits (N, K) float32 of features (N, D)."""

    def set(self, name: str, value: Tensor) -> None:
        """Give a parameter another value of its shape."""
        with torch.no_grad():
            self.get_parameter(name).copy_(value)

    def check_labels(self, labels: Tensor) -> None:
        """Refuse labels (N,) that leave a class out.

        Raises:
            UserError: naming the class.
        """
        counts = labels[labels >= 0].bincount(minlength=self.num_classes)
        if (counts == 0).any():
            missing = int((counts == 0).nonzero()[0])
            raise UserError(
                f"class {missing} has no labelled training image: set data.labelled_per_class or data.classes"
            )


class LinearHead(FeatureHead):
    """A linear classifier of the labelled features (see `Probe`).

    Args:
        num_features: D.
        num_classes: K.
        kind: ``svm`` or ``logistic``.
        penalty: C for features of mean squared norm 1; None has a quarter of the labelled images choose it.

    Raises:
        UserError: an unknown kind, or a penalty out of range.
    """

    uses_unlabelled = False

    def __init__(self, num_features: int, num_classes: int, kind: Kind = "svm", penalty: float | None = None) -> None:
        super().__init__(num_features, num_classes)
        if kind not in get_args(Kind):
            raise UserError(f"model.head.kind must be svm or logistic, not {kind!r}")
        if penalty is not None and penalty <= 0:
            raise UserError(f"model.head.penalty must be above 0 or null, not {penalty}")
        self.kind: Kind = kind
        self.penalty = penalty
        self.weight = nn.Parameter(torch.zeros(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def fit(self, features: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
        """See `FeatureHead.fit`."""
        self.check_labels(labels)
        known = labels >= 0
        remedy = "set data.labelled_per_class to at least 2, or model.head.penalty"
        probe = Probe(features[known], labels[known], seed, self.kind, self.penalty, remedy)
        affine = probe.affine()
        self.set("weight", affine.weight)
        self.set("bias", affine.bias)
        return {"penalty": probe.penalty}

    def forward(self, features: Tensor) -> Tensor:
        """Class logits (N, K) float32 of features (N, D)."""
        return nn.functional.linear(features.float(), self.weight, self.bias)


class GaussianMixtureHead(FeatureHead):
    """Classes that are mixtures of normal laws, fitted to labelled and unlabelled features by EM.

    See `lightning_gen.models.gaussian_mixture`; logits are log p(x, y).

    Args:
        num_features: D.
        num_classes: K.
        components_per_class: C.
        covariance: ``full``, ``tied``, ``diag`` or ``spherical``.
        unlabelled_weight: of an unlabelled image, in [0, 1]; 0 fits to the labelled ones alone.
        covariance_floor: smallest variance in any direction, as a part of the features' mean variance.
        tolerance: of the mean log-likelihood.
        max_iterations: of EM.

    Raises:
        UserError: options out of range.
    """

    uses_unlabelled = True

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        components_per_class: int = 1,
        covariance: Covariance = "full",
        unlabelled_weight: float = 1.0,
        covariance_floor: float = 0.3,
        tolerance: float = 1e-6,
        max_iterations: int = 200,
    ) -> None:
        super().__init__(num_features, num_classes)
        if components_per_class < 1 or max_iterations < 1:
            raise UserError("model.head.components_per_class and model.head.max_iterations must be at least 1")
        if covariance not in COVARIANCES:
            raise UserError(f"model.head.covariance must be one of {', '.join(COVARIANCES)}, not {covariance!r}")
        if not 0 <= unlabelled_weight <= 1:
            raise UserError(f"model.head.unlabelled_weight must be in [0, 1], not {unlabelled_weight}")
        if covariance_floor < 0 or tolerance < 0:
            raise UserError("model.head.covariance_floor and model.head.tolerance must not be negative")
        self.components_per_class = components_per_class
        self.covariance: Covariance = covariance
        self.unlabelled_weight = unlabelled_weight
        self.covariance_floor = covariance_floor
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        number, identity = num_classes * components_per_class, torch.eye(num_features)
        covariances = {
            "full": identity.repeat(number, 1, 1),
            "tied": identity,
            "diag": torch.ones(number, num_features),
            "spherical": torch.ones(number),
        }[covariance]
        self.weights = nn.Parameter(torch.full((number,), 1 / number, dtype=torch.float64))
        self.means = nn.Parameter(torch.zeros(number, num_features, dtype=torch.float64))
        self.covariances = nn.Parameter(covariances.double())

    def fit(self, features: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
        """See `FeatureHead.fit`."""
        self.check_labels(labels)
        vectors = features.double()
        options = {
            "components_per_class": self.components_per_class,
            "unlabelled_weight": self.unlabelled_weight,
            "floor": self.covariance_floor * float(vectors.var(0).mean()),
        }
        start = initial_mixture(vectors, labels, self.num_classes, self.covariance, seed=seed, **options)  # type: ignore[arg-type]
        found = fit_mixture(
            vectors,
            labels,
            start,
            self.covariance,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            **options,  # type: ignore[arg-type]
        )
        for name, value in found.mixture._asdict().items():
            self.set(name, value)
        return {"log_likelihood": found.log_likelihoods[-1], "iterations": len(found.log_likelihoods) - 1}

    def forward(self, features: Tensor) -> Tensor:
        """Class logits (N, K) float32 of features (N, D)."""
        mixture = Mixture(self.weights, self.means, self.covariances)
        return class_log_joint(features.double(), mixture, self.covariance, self.components_per_class).float()
