"""A linear classifier of features, fitted to a few labelled images whose held-out part chooses its penalty."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC
from torch import Tensor

from lightning_gen.errors import UserError

PENALTIES = tuple(10.0**power for power in range(-3, 4))
"""The values of C that are tried, for features of mean squared norm 1."""
VALIDATION_SHARE = 0.25

Kind = Literal["svm", "logistic"]


class Affine(NamedTuple):
    """Logits of features x: ``weight @ x + bias``.

    Attributes:
        weight: (K, D) float64.
        bias: (K,) float64.
    """

    weight: Tensor
    bias: Tensor


class Probe:
    """A linear classifier of features that one number scales to mean squared norm 1.

    C is the value of `PENALTIES` that is right on most of a stratified quarter of the labelled images, the smallest of
    equals; then it is fitted to all of them. No other image is looked at.

    Args:
        features: (N, D) of the labelled images.
        labels: (N,) int64, of at least two images of each class if C is to be chosen.
        seed: of the held-out quarter.
        kind: ``svm``, one against the rest with squared hinge loss (Radford et al. 2016, section 5.1), or ``logistic``
            regression, multinomial; both with an L2 penalty.
        penalty: C, which is not chosen then.
        remedy: what to do about a class with a single image, for the message.

    Attributes:
        penalty: the C that was chosen.

    Raises:
        UserError: a class has a single image, so that none can be held out.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        seed: int,
        kind: Kind = "svm",
        penalty: float | None = None,
        remedy: str = "--labels-per-class must be at least 2",
    ) -> None:
        self._scale = 1 / max(float(features.double().square().sum(1).mean().sqrt()), 1e-12)
        scaled, classes = self._scaled(features), labels.numpy()
        self.penalty = _choose_penalty(scaled, classes, seed, kind, remedy) if penalty is None else penalty
        self._model = _fit(scaled, classes, self.penalty, kind)

    def predict(self, features: Tensor) -> Tensor:
        """Labels (N,) int64 of features (N, D)."""
        return torch.from_numpy(self._model.predict(self._scaled(features)))

    def affine(self) -> Affine:
        """The logits of features as they are, for labels that are 0 to K - 1 with none left out."""
        weight, bias = (torch.from_numpy(np.asarray(each, np.float64)) for each in (self._model.coef_, self._bias))
        if len(weight) == 1:
            # Of two classes, scikit-learn keeps what speaks for the second. Halves leave their difference as it is.
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return Affine(self._scale * weight, bias)

    @property
    def _bias(self) -> np.ndarray:
        return np.atleast_1d(self._model.intercept_)

    def _scaled(self, features: Tensor) -> np.ndarray:
        return (features * self._scale).numpy()


def _choose_penalty(features: np.ndarray, classes: np.ndarray, seed: int, kind: Kind, remedy: str) -> float:
    counts = np.bincount(classes)
    if counts[counts > 0].min() < 2:
        raise UserError(f"C is chosen on held-out labelled images: {remedy}")
    held_out = max(int((counts > 0).sum()), round(VALIDATION_SHARE * len(classes)))
    fitted, checked = train_test_split(
        np.arange(len(classes)), test_size=held_out, stratify=classes, random_state=seed % 2**32
    )
    accuracies = [
        _fit(features[fitted], classes[fitted], penalty, kind).score(features[checked], classes[checked])
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmax(accuracies))]


def _fit(features: np.ndarray, labels: np.ndarray, penalty: float, kind: Kind) -> Any:
    with warnings.catch_warnings():
        # A large C that does not converge is judged by its accuracy, like every other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "svm":
            return LinearSVC(C=penalty, dual="auto", random_state=0).fit(features, labels)
        return LogisticRegression(C=penalty, max_iter=1000).fit(features, labels)
