"""Bounds of the evidence log p(x), in nats.

Everything is summed over the D latents and left one value an image, so that models take the mean over a batch and
scores every image's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2_PI = math.log(2 * math.pi)


def gaussian_kl(
    means: Tensor,
    log_variances: Tensor,
    prior_means: Tensor | None = None,
    prior_log_variances: Tensor | None = None,
) -> Tensor:
    """KL(q || p) of diagonal normal laws, in closed form (Kingma and Welling 2013, appendix B).

    Args:
        means: (N, D) of q.
        log_variances: (N, D) of q.
        prior_means: of p, of a shape that fits; None for 0.
        prior_log_variances: of p; None for 0.

    Returns:
        (N,) nats.
    """
    distance = means if prior_means is None else means - prior_means
    log_ratio = log_variances if prior_log_variances is None else log_variances - prior_log_variances
    square = distance.square()
    if prior_log_variances is not None:
        square = square * (-prior_log_variances).exp()
    return 0.5 * (square + log_ratio.exp() - 1 - log_ratio).sum(1)


def gaussian_log_density(values: Tensor, means: Tensor, log_variances: Tensor) -> Tensor:
    """Log-density (N,) of values (N, D) under a diagonal normal law."""
    standard_square = (values - means).square() * (-log_variances).exp()
    return -0.5 * (standard_square + log_variances + LOG_2_PI).sum(1)


def standard_normal_log_density(values: Tensor) -> Tensor:
    """Log-density (N,) of values (N, D) under N(0, I)."""
    return -0.5 * (values.square() + LOG_2_PI).sum(1)


def reparameterize(means: Tensor, log_variances: Tensor, noise: Tensor) -> Tensor:
    """Latents ~ q as a function of noise ~ N(0, I): mean + deviation * noise (Kingma and Welling 2013, section 2.4)."""
    return means + (0.5 * log_variances).exp() * noise


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """L_k = log (1/k) sum_i w_i (Burda et al. 2016, "Importance weighted autoencoders", equation 8).

    Its mean over draws is a lower bound of log p(x) that rises with k; k = 1 gives the evidence lower bound.

    Args:
        log_weights: (k, N), log p(x, z_i) - log q(z_i | x) for z_i ~ q(z | x).

    Returns:
        (N,) nats.
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def labelled_objective(log_likelihood: Tensor, kl: Tensor, log_class_prior: Tensor) -> Tensor:
    """L(x, y) = -(E[log p(x | y, z)] + log p(y) - KL(q(z | x, y) || p(z))) (Kingma et al. 2014, equation 6).

    An upper bound of -log p(x, y).

    Args:
        log_likelihood: of the image given latents and class.
        kl: of the latents' posterior.
        log_class_prior: log p(y).

    Returns:
        Of the arguments' common shape.
    """
    return -(log_likelihood + log_class_prior - kl)


def unlabelled_objective(class_log_probabilities: Tensor, labelled: Tensor) -> Tensor:
    """U(x) = sum_y q(y | x) L(x, y) - H(q(y | x)) (Kingma et al. 2014, equation 7), every class enumerated.

    An upper bound of -log p(x).

    Args:
        class_log_probabilities: (N, K), log q(y | x).
        labelled: (N, K), L(x, y) of `labelled_objective` for every class.

    Returns:
        (N,) nats.
    """
    return (class_log_probabilities.exp() * (labelled + class_log_probabilities)).sum(1)
