"""Class-conditional Gaussian mixtures, fitted by expectation maximization to labelled and unlabelled vectors.

Nigam et al. 2000, "Text classification from labeled and unlabeled documents using EM", for Gaussian classes of several
components (Zhu and Goldberg 2009, "Introduction to Semi-Supervised Learning", section 3.2); Dempster et al. 1977. The
components of class k are ``k * C`` to ``k * C + C - 1``. All tensors are float64.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from lightning_gen.errors import UserError

Covariance = Literal["full", "tied", "diag", "spherical"]
COVARIANCES: tuple[str, ...] = get_args(Covariance)
"""The names of scikit-learn's GaussianMixture: one matrix for each component, one for all, variances, one variance."""

BLOCK_SIZE = 4096
"""Vectors whose densities under full covariances are computed at once."""


class Mixture(NamedTuple):
    """Weighted normal laws in D dimensions.

    Attributes:
        weights: (M,), which sum to 1.
        means: (M, D).
        covariances: (M, D, D) ``full``, (D, D) ``tied``, (M, D) ``diag``, (M,) ``spherical``.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor


class Fit(NamedTuple):
    """What `fit_mixture` found.

    Attributes:
        mixture: the last one.
        log_likelihoods: the objective under the mixtures of all iterations, from the start's to the last's.
        converged: whether an iteration gained less than the tolerance.
    """

    mixture: Mixture
    log_likelihoods: list[float]
    converged: bool


class Expectation(NamedTuple):
    """The E-step.

    Attributes:
        responsibilities: (N, M), rows that sum to 1.
        log_likelihoods: (N,), log p(x, y) of labelled vectors and log p(x) of the others.
    """

    responsibilities: Tensor
    log_likelihoods: Tensor


def fit_mixture(
    vectors: Tensor,
    labels: Tensor,
    start: Mixture,
    covariance: Covariance,
    *,
    components_per_class: int = 1,
    unlabelled_weight: float = 1.0,
    floor: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Fit:
    """Maximize the mean of log p(x, y) over labelled and of log p(x), weighted, over unlabelled vectors by EM.

    The objective is ``(sum_labelled log p(x, y) + w sum_unlabelled log p(x)) / (L + w U)``, w the weight of Nigam et
    al. 2000, section 5.3.1, and never decreases: the M-step is exact, also under the floor (see `m_step`).

    Args:
        vectors: (N, D) float64.
        labels: (N,) int64, -1 for unlabelled vectors.
        start: the first E-step is of this mixture; M is a multiple of ``components_per_class``.
        covariance: kind.
        components_per_class: C.
        unlabelled_weight: w in [0, 1].
        floor: smallest variance in any direction.
        tolerance: stop once an iteration gains less.
        max_iterations: stop after so many.

    Raises:
        UserError: a covariance became singular.
    """
    weights = torch.where(labels >= 0, 1.0, unlabelled_weight).to(vectors)
    mixture, history, converged = start, [], False
    for iteration in range(max_iterations + 1):
        expectation = e_step(vectors, labels, mixture, covariance, components_per_class)
        history.append(float((weights * expectation.log_likelihoods).sum() / weights.sum()))
        converged = iteration > 0 and history[-1] - history[-2] < tolerance
        if converged or iteration == max_iterations:
            break
        mixture = m_step(vectors, weights[:, None] * expectation.responsibilities, covariance, floor, mixture)
    return Fit(mixture, history, converged)


def e_step(
    vectors: Tensor, labels: Tensor, mixture: Mixture, covariance: Covariance, components_per_class: int = 1
) -> Expectation:
    """Responsibilities of the components; those of a labelled vector are clamped to its class' components."""
    joint = log_joint(vectors, mixture, covariance)
    classes = torch.arange(joint.shape[1], device=labels.device) // components_per_class
    allowed = (labels[:, None] < 0) | (labels[:, None] == classes)
    joint = joint.masked_fill(~allowed, -math.inf)
    totals = joint.logsumexp(1)
    return Expectation((joint - totals[:, None]).exp(), totals)


def m_step(
    vectors: Tensor,
    responsibilities: Tensor,
    covariance: Covariance,
    floor: float = 0.0,
    previous: Mixture | None = None,
) -> Mixture:
    """The mixture that maximizes the expected log-likelihood among those without a variance below the floor.

    Without a floor it is that of weighted means and covariances. The floor is a constraint, not a term that is added:
    -(log det S + tr(S^-1 A)) is largest, of all S whose eigenvalues are not below it, for the S that has A's
    eigenvectors and the larger of A's eigenvalue and the floor (by von Neumann's trace inequality). So it costs the
    likelihood no iteration, and changes nothing where variances are larger.

    Args:
        vectors: (N, D).
        responsibilities: (N, M), weighted, not negative.
        covariance: kind.
        floor: smallest variance in any direction.
        previous: what a component keeps that nothing belongs to; None for the overall mean and covariance.
    """
    counts = responsibilities.sum(0)
    empty = counts < 1e-12 * counts.sum()
    divisors = counts.masked_fill(empty, 1.0)
    means = responsibilities.T @ vectors / divisors[:, None]
    spreads = _covariances(vectors, responsibilities, divisors, means, covariance)
    if empty.any():
        if previous is None:
            share = torch.full_like(responsibilities[:, :1], 1 / len(vectors))
            mean = vectors.mean(0, keepdim=True)
            kept_spreads = _covariances(vectors, share, torch.ones_like(counts[:1]), mean, covariance)
        else:
            mean, kept_spreads = previous.means, previous.covariances
        means = torch.where(empty[:, None], mean, means)
        if covariance != "tied":
            spreads = torch.where(empty.view(-1, *[1] * (spreads.ndim - 1)), kept_spreads, spreads)
    return Mixture(counts / counts.sum(), means, _above(spreads, covariance, floor))


def log_joint(vectors: Tensor, mixture: Mixture, covariance: Covariance) -> Tensor:
    """Logarithms of weight and density, (N, M), of vectors (N, D) under each component.

    Raises:
        UserError: a covariance is singular.
    """
    dim = vectors.shape[1]
    weights, means, covariances = mixture
    if covariance in ("full", "tied"):
        factors, failed = torch.linalg.cholesky_ex(covariances if covariance == "full" else covariances[None])
        if failed.any():
            raise _singular()
        log_dets = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        inverses = torch.linalg.solve_triangular(factors, torch.eye(dim).to(factors), upper=False)
        inverses = inverses.expand(len(means), -1, -1)
        blocks = [
            torch.stack(
                [((block - mean) @ inverse.T).square().sum(1) for mean, inverse in zip(means, inverses, strict=True)], 1
            )
            for block in vectors.split(BLOCK_SIZE)
        ]
        distances = torch.cat(blocks)
    else:
        variances = covariances if covariance == "diag" else covariances[:, None].expand(-1, dim)
        if (variances <= 0).any():
            raise _singular()
        log_dets = variances.log().sum(1)
        blocks = [
            ((block[:, None] - means).square() / variances).sum(2)
            for block in vectors.split(BLOCK_SIZE // len(means) + 1)
        ]
        distances = torch.cat(blocks)
    return weights.log() - 0.5 * (distances + log_dets + dim * math.log(2 * math.pi))


def class_log_joint(vectors: Tensor, mixture: Mixture, covariance: Covariance, components_per_class: int = 1) -> Tensor:
    """Logarithms of p(x, y), (N, K), of vectors (N, D) with every class: logits of the classes."""
    joint = log_joint(vectors, mixture, covariance)
    return joint.unflatten(1, (-1, components_per_class)).logsumexp(2)


def initial_mixture(
    vectors: Tensor,
    labels: Tensor,
    num_classes: int,
    covariance: Covariance,
    *,
    components_per_class: int = 1,
    unlabelled_weight: float = 1.0,
    floor: float = 0.0,
    seed: int = 0,
) -> Mixture:
    """The M-step of vectors that belong to their nearest center, a labelled one to the nearest of its class.

    The centers of a class are the mean of its labelled vectors or, of several components, scikit-learn's k-means of
    them; without a label all centers are the k-means of all vectors, as scikit-learn's GaussianMixture begins.

    Args:
        vectors: (N, D) float64.
        labels: (N,) int64, -1 for unlabelled vectors.
        num_classes: K.
        covariance: kind.
        components_per_class: C.
        unlabelled_weight: w.
        floor: smallest variance in any direction.
        seed: of k-means.

    Raises:
        UserError: some class has fewer labelled vectors than components while another has some.
    """
    if (labels < 0).all():
        centers = _k_means(vectors, num_classes * components_per_class, seed)
    else:
        parts = []
        for label in range(num_classes):
            members = vectors[labels == label]
            if len(members) < components_per_class:
                raise UserError(
                    f"class {label} has {len(members)} labelled images and components_per_class="
                    f"{components_per_class}: set data.labelled_per_class to more, or fewer components"
                )
            parts.append(_k_means(members, components_per_class, seed))
        centers = torch.cat(parts)
    distances = torch.cdist(vectors, centers, compute_mode="donot_use_mm_for_euclid_dist")
    classes = torch.arange(len(centers)) // components_per_class
    distances.masked_fill_((labels[:, None] >= 0) & (labels[:, None] != classes), math.inf)
    belongs = torch.nn.functional.one_hot(distances.argmin(1), len(centers)).to(vectors)
    weights = torch.where(labels >= 0, 1.0, unlabelled_weight).to(vectors)
    return m_step(vectors, weights[:, None] * belongs, covariance, floor)


def _k_means(vectors: Tensor, number: int, seed: int) -> Tensor:
    if number == 1:
        return vectors.mean(0, keepdim=True)
    # Sums of several threads are made in another order each time.
    with threadpool_limits(limits=1, user_api="openmp"):
        found = KMeans(number, n_init=1, random_state=seed % 2**32).fit(vectors.numpy())
    return torch.from_numpy(found.cluster_centers_).to(vectors)


def _covariances(
    vectors: Tensor, responsibilities: Tensor, divisors: Tensor, means: Tensor, covariance: Covariance
) -> Tensor:
    if covariance in ("full", "tied"):
        pairs = zip(responsibilities.T, means, strict=True)
        scatters = torch.stack([(share[:, None] * (vectors - mean)).T @ (vectors - mean) for share, mean in pairs])
        if covariance == "full":
            return scatters / divisors[:, None, None]
        return scatters.sum(0) / responsibilities.sum()
    triples = zip(responsibilities.T, means, divisors, strict=True)
    variances = torch.stack([share @ (vectors - mean).square() / n for share, mean, n in triples])
    return variances if covariance == "diag" else variances.mean(1)


def _above(covariances: Tensor, covariance: Covariance, floor: float) -> Tensor:
    if covariance in ("diag", "spherical"):
        return covariances.clamp_min(floor)
    if not floor:
        return covariances
    values, vectors = torch.linalg.eigh(covariances)
    clamped = (vectors * values.clamp_min(floor)[..., None, :]) @ vectors.mT
    # To the bit as it was where nothing is below the floor.
    low = (values < floor).any(-1)[..., None, None]
    return torch.where(low, clamped, covariances)


def _singular() -> UserError:
    return UserError("a covariance of the mixture is singular: raise model.head.covariance_floor")
