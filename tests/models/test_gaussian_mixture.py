"""Clamped EM of Gaussian mixtures: against scikit-learn, closed forms, and the bound that it never steps back from."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.models.gaussian_mixture import (
    COVARIANCES,
    Mixture,
    class_log_joint,
    e_step,
    fit_mixture,
    initial_mixture,
    log_joint,
    m_step,
)


def problem(seed: int, share: float, number: int = 90) -> tuple[Tensor, Tensor, int, int]:
    """Vectors of a few classes, which overlap, of which a share is labelled, K and C."""
    rng = torch.Generator().manual_seed(seed)
    classes, dim, components = 2 + seed % 3, 1 + seed % 5, 1 + seed % 2
    labels = torch.randint(classes, (number,), generator=rng)
    centers = 2 * torch.randn(classes, dim, generator=rng, dtype=torch.float64)
    mixing = torch.randn(classes, dim, dim, generator=rng, dtype=torch.float64)
    noise = torch.randn(number, dim, 1, generator=rng, dtype=torch.float64)
    vectors = centers[labels] + (mixing[labels] @ noise).squeeze(2)
    hidden = torch.rand(number, generator=rng) >= share
    if share:
        for label in range(classes):
            hidden[(labels == label).nonzero().flatten()[:components]] = False
    return vectors, labels.masked_fill(hidden, -1), classes, components


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_the_likelihood_never_decreases(covariance: Any, share: float) -> None:
    gains, floored = [], 0
    for seed in range(8):
        vectors, labels, classes, components = problem(seed, share)
        # A floor in the middle of the variances, such that it binds in some directions and not in others.
        floor = (0.02, 0.7)[seed % 2] * float(vectors.var(0).mean())
        options = {
            "components_per_class": components,
            "unlabelled_weight": (1.0, 0.3)[seed // 2 % 2],
            "floor": floor,
        }
        start = initial_mixture(vectors, labels, classes, covariance, **options)  # type: ignore[arg-type]
        rng = torch.Generator().manual_seed(seed)
        start = start._replace(means=start.means + 0.5 * torch.randn(start.means.shape, generator=rng))
        found = fit_mixture(vectors, labels, start, covariance, tolerance=-1, max_iterations=20, **options)  # type: ignore[arg-type]
        steps = np.diff(found.log_likelihoods)
        assert len(steps) == 20
        assert steps.min() > -1e-12 * abs(found.log_likelihoods[0])
        gains.append(found.log_likelihoods[-1] - found.log_likelihoods[0])
        smallest = smallest_variance(found.mixture, covariance)
        assert smallest >= floor * (1 - 1e-9)
        floored += smallest < floor * (1 + 1e-9)
    assert min(gains) > 0
    assert floored >= 2


def smallest_variance(mixture: Mixture, covariance: str) -> float:
    if covariance in ("full", "tied"):
        return float(torch.linalg.eigvalsh(mixture.covariances).min())
    return float(mixture.covariances.min())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_without_labels_it_is_scikit_learns(covariance: Any) -> None:
    vectors = problem(3, 0.0, number=300)[0]
    nobody = torch.full((300,), -1)
    start = initial_mixture(vectors, nobody, 4, covariance)
    found = fit_mixture(vectors, nobody, start, covariance, tolerance=-1, max_iterations=25)
    inverse = torch.linalg.inv if covariance in ("full", "tied") else torch.reciprocal
    reference = GaussianMixture(
        n_components=4,
        covariance_type=covariance,
        tol=0.0,
        reg_covar=0.0,
        max_iter=25,
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=inverse(start.covariances).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.fit(vectors.numpy())
    assert reference.n_iter_ == 25
    np.testing.assert_allclose(found.mixture.weights, reference.weights_, atol=1e-8)
    np.testing.assert_allclose(found.mixture.means, reference.means_, atol=1e-8)
    np.testing.assert_allclose(found.mixture.covariances, reference.covariances_, atol=1e-8)
    assert found.log_likelihoods[-1] == pytest.approx(reference.score(vectors.numpy()), abs=1e-8)
    assert found.log_likelihoods[-2] == pytest.approx(reference.lower_bound_, abs=1e-8)
    assert found.log_likelihoods[-1] - found.log_likelihoods[0] > 0.01, "25 iterations lead somewhere"


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_with_all_labels_it_is_the_moments_of_each_class(covariance: Any) -> None:
    vectors, labels, classes, _ = problem(4, 1.0)
    start = initial_mixture(vectors, labels, classes, covariance)
    # From anywhere: all responsibilities are clamped.
    found = fit_mixture(vectors, labels, start._replace(means=start.means + 3), covariance)
    assert found.converged
    assert len(found.log_likelihoods) == 3
    members = [vectors[labels == label].numpy() for label in range(classes)]
    shares = np.array([len(each) for each in members]) / len(vectors)
    matrices = np.stack([np.cov(each.T, bias=True) for each in members])
    variances = np.stack([each.var(0) for each in members])
    expected = {
        "full": matrices,
        "tied": np.tensordot(shares, matrices, 1),
        "diag": variances,
        "spherical": variances.mean(1),
    }
    np.testing.assert_allclose(found.mixture.weights, shares)
    np.testing.assert_allclose(found.mixture.means, [each.mean(0) for each in members])
    np.testing.assert_allclose(found.mixture.covariances, expected[covariance], atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_densities_are_scipys(covariance: Any) -> None:
    vectors, labels, classes, components = problem(1, 0.5)
    mixture = initial_mixture(vectors, labels, classes, covariance, components_per_class=components)
    found = log_joint(vectors, mixture, covariance)
    for place, (weight, mean) in enumerate(zip(mixture.weights, mixture.means, strict=True)):
        matrix = mixture.covariances if covariance == "tied" else mixture.covariances[place]
        law = multivariate_normal(
            mean.numpy(), np.eye(len(mean)) * matrix.numpy() if matrix.ndim < 2 else matrix.numpy()
        )
        np.testing.assert_allclose(found[:, place], law.logpdf(vectors.numpy()) + math.log(weight), rtol=1e-10)
    classes_found = class_log_joint(vectors, mixture, covariance, components)
    expected = found.exp().view(len(vectors), classes, components).sum(2).log()
    torch.testing.assert_close(classes_found, expected)


def test_labelled_vectors_belong_to_their_class_alone() -> None:
    # Two classes of two components in one dimension, densities by hand.
    mixture = Mixture(
        torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64),
        torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64),
        torch.ones(4, 1, dtype=torch.float64),
    )
    vectors = torch.tensor([[2.0], [2.0], [2.0]], dtype=torch.float64)
    found = e_step(vectors, torch.tensor([0, 1, -1]), mixture, "diag", 2)
    density = [math.exp(-0.5 * (2 - mean) ** 2) / math.sqrt(2 * math.pi) for mean in range(4)]
    joint = np.array([0.1, 0.2, 0.3, 0.4]) * density
    np.testing.assert_allclose(found.responsibilities[0], np.append(joint[:2] / joint[:2].sum(), [0, 0]))
    np.testing.assert_allclose(found.responsibilities[1], np.append([0, 0], joint[2:] / joint[2:].sum()))
    np.testing.assert_allclose(found.responsibilities[2], joint / joint.sum())
    expected = np.log([joint[:2].sum(), joint[2:].sum(), joint.sum()])
    np.testing.assert_allclose(found.log_likelihoods, expected)


def test_unlabelled_vectors_count_by_their_weight() -> None:
    vectors, labels, classes, _ = problem(2, 0.3)
    start = initial_mixture(vectors, labels, classes, "full")
    known = labels >= 0
    for weight in (0.0, 0.25):
        (once,) = [fit_mixture(vectors, labels, start, "full", unlabelled_weight=weight, max_iterations=1).mixture]
        # The same as four times as many labelled vectors of weight one for a quarter.
        shares = e_step(vectors, labels, start, "full").responsibilities
        counts = shares[known].sum(0) + weight * shares[~known].sum(0)
        means = (shares[known].T @ vectors[known] + weight * shares[~known].T @ vectors[~known]) / counts[:, None]
        torch.testing.assert_close(once.weights, counts / counts.sum())
        torch.testing.assert_close(once.means, means)
    alone = fit_mixture(vectors[known], labels[known], start, "full", max_iterations=1).mixture
    zero = fit_mixture(vectors, labels, start, "full", unlabelled_weight=0.0, max_iterations=1).mixture
    for one, other in zip(alone, zero, strict=True):
        torch.testing.assert_close(one, other)


def test_no_covariance_above_the_floor_fits_better() -> None:
    vectors = problem(4, 0.0)[0]
    everything = torch.ones(len(vectors), 1, dtype=torch.float64)
    free = m_step(vectors, everything, "full").covariances[0]
    values = torch.linalg.eigvalsh(free)
    floor = float(values[len(values) // 2 - 1 : len(values) // 2 + 1].mean())
    mixture = m_step(vectors, everything, "full", floor)
    best = float(log_joint(vectors, mixture, "full").mean())
    rng = torch.Generator().manual_seed(0)
    others = []
    for scale in (1e-3, 1e-2, 0.1):
        for _ in range(100):
            change = scale * torch.randn(free.shape, generator=rng, dtype=torch.float64)
            levels, directions = torch.linalg.eigh(mixture.covariances[0] + change + change.T)
            other = (directions * levels.clamp_min(floor)) @ directions.T
            others.append(float(log_joint(vectors, mixture._replace(covariances=other[None]), "full").mean()))
    assert max(others) <= best
    assert max(others) > best - 1e-2


def test_unlabelled_vectors_help() -> None:
    # Two long classes side by side; the two labelled vectors of each say little of where they end.
    rng = torch.Generator().manual_seed(0)
    truth = torch.arange(400) % 2
    vectors = torch.randn(400, 2, generator=rng, dtype=torch.float64) * torch.tensor([6.0, 0.5], dtype=torch.float64)
    vectors[:, 1] += 3.0 * truth
    labels = truth.clone()
    labels[8:] = -1
    errors = []
    for weight in (1.0, 0.0):
        options = {"unlabelled_weight": weight, "floor": 0.05}
        start = initial_mixture(vectors, labels, 2, "full", **options)  # type: ignore[arg-type]
        found = fit_mixture(vectors, labels, start, "full", **options)  # type: ignore[arg-type]
        errors.append(float((class_log_joint(vectors, found.mixture, "full").argmax(1) != truth).double().mean()))
    assert errors[0] < 0.02
    assert errors[0] < errors[1]


def test_a_component_that_nothing_belongs_to_stays_where_it_was() -> None:
    vectors, _, _, _ = problem(1, 0.0)
    previous = m_step(vectors, torch.rand(len(vectors), 2, dtype=torch.float64), "diag")
    shares = torch.zeros(len(vectors), 2, dtype=torch.float64)
    shares[:, 0] = 1
    found = m_step(vectors, shares, "diag", previous=previous)
    assert found.weights.tolist() == [1.0, 0.0]
    assert torch.equal(found.means[1], previous.means[1])
    assert torch.equal(found.covariances[1], previous.covariances[1])
    assert e_step(vectors, torch.full((len(vectors),), -1), found, "diag").responsibilities.isfinite().all()


def test_too_few_labels_and_singular_covariances_are_refused() -> None:
    vectors = torch.eye(4, dtype=torch.float64)
    with pytest.raises(UserError, match="class 1 has 1 labelled images and components_per_class=2"):
        initial_mixture(vectors, torch.tensor([0, 0, 1, -1]), 2, "diag", components_per_class=2)
    start = initial_mixture(vectors, torch.tensor([0, 0, 1, 1]), 2, "full")
    for covariance in ("full", "diag"):
        start = initial_mixture(vectors, torch.tensor([0, 0, 1, 1]), 2, covariance)
        with pytest.raises(UserError, match=r"singular: raise model\.head\.covariance_floor"):
            fit_mixture(vectors, torch.tensor([0, 0, 1, 1]), start, covariance)
