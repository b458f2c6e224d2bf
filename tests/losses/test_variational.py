"""Bounds of the evidence: closed forms against scipy, sampling and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_gen.losses.variational import (
    gaussian_kl,
    gaussian_log_density,
    importance_weighted_bound,
    labelled_objective,
    reparameterize,
    standard_normal_log_density,
    unlabelled_objective,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_densities_are_scipys() -> None:
    values, means, log_variances = draw(4, 3, seed=1), draw(4, 3, seed=2), draw(4, 3, seed=3)
    expected = stats.norm.logpdf(values, means, (0.5 * log_variances).exp()).sum(1)
    np.testing.assert_allclose(gaussian_log_density(values, means, log_variances), expected)
    np.testing.assert_allclose(standard_normal_log_density(values), stats.norm.logpdf(values).sum(1))


@pytest.mark.parametrize("standard", [True, False])
def test_the_analytic_kl_is_that_of_monte_carlo(standard: bool) -> None:
    means, log_variances = draw(3, 4, seed=1), draw(3, 4, seed=2)
    prior = (torch.zeros(3, 4), torch.zeros(3, 4)) if standard else (draw(3, 4, seed=3), draw(3, 4, seed=4))
    number = 200_000
    estimates = []
    for row in range(3):
        q = means[row].expand(number, 4), log_variances[row].expand(number, 4)
        p = prior[0][row].expand(number, 4), prior[1][row].expand(number, 4)
        z = reparameterize(*q, draw(number, 4, seed=10 + row))
        estimates.append(gaussian_log_density(z, *q) - gaussian_log_density(z, *p))
    drawn = torch.stack(estimates)
    error = drawn.std(1) / math.sqrt(number)
    found = gaussian_kl(means, log_variances, *(() if standard else prior))
    assert ((found - drawn.mean(1)).abs() < 4 * error).all()
    assert (error < 0.02 * found).all(), "tight enough to tell"


def test_the_kl_of_a_hand_computed_pair() -> None:
    # KL(N(1, 4) || N(0, 1)) = (1 + 4 - 1 - log 4) / 2; KL(N(1, 4) || N(3, 2)) = ((4 + 4) / 2 - 1 - log 2) / 2
    one, four = torch.tensor([[1.0]]), torch.tensor([[math.log(4.0)]])
    assert float(gaussian_kl(one, four)) == pytest.approx((4 - math.log(4)) / 2)
    against = gaussian_kl(one, four, torch.tensor([[3.0]]), torch.tensor([[math.log(2.0)]]))
    assert float(against) == pytest.approx((3 - math.log(2)) / 2)


def test_the_bound_of_one_draw_is_its_weight_and_of_several_the_log_of_their_mean() -> None:
    weights = draw(5, 7)
    assert torch.equal(importance_weighted_bound(weights[:1]), weights[0])
    torch.testing.assert_close(importance_weighted_bound(weights), weights.exp().mean(0).log())
    far = importance_weighted_bound(weights - 5000)
    torch.testing.assert_close(far, importance_weighted_bound(weights) - 5000)


def test_the_unlabelled_objective_is_the_expectation_over_classes_and_the_negative_entropy() -> None:
    log_q = draw(2, 3, seed=1).log_softmax(1)
    losses = draw(2, 3, seed=2)
    expected = []
    for row in range(2):
        total = 0.0
        for label in range(3):
            probability = math.exp(float(log_q[row, label]))
            total += probability * float(losses[row, label]) + probability * math.log(probability)
        expected.append(total)
    np.testing.assert_allclose(unlabelled_objective(log_q, losses), expected)


def test_the_unlabelled_objective_is_least_at_the_posterior_of_the_classes_and_there_the_evidence() -> None:
    # U(x) >= -log sum_y exp(-L(x, y)), with equality at q(y | x) ~ exp(-L(x, y)).
    losses = draw(4, 5, seed=3)
    evidence = -torch.logsumexp(-losses, 1)
    torch.testing.assert_close(unlabelled_objective((-losses).log_softmax(1), losses), evidence)
    others = unlabelled_objective(draw(4, 5, seed=4).log_softmax(1), losses)
    assert (others > evidence + 1e-3).all()


def test_the_labelled_objective_is_minus_the_bound_of_the_joint_probability() -> None:
    found = labelled_objective(torch.tensor(-10.0), torch.tensor(3.0), torch.tensor(math.log(0.1)))
    assert float(found) == pytest.approx(10 + 3 + math.log(10))
