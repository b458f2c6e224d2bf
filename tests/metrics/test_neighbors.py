from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from lightning_gen.errors import UserError
from lightning_gen.metrics import neighbors
from lightning_gen.metrics.base import ScoringPlan, score_metrics
from lightning_gen.metrics.extractors import Features, create_extractor
from lightning_gen.metrics.neighbors import ReferenceFeatures, distance_blocks, neighbor_distances
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.shared import FeatureReservoir

NAMES = ("precision", "recall", "density", "coverage", "authenticity")


def scores(samples: Any, reference: Any, order: torch.Tensor | None = None) -> dict[str, float]:
    """All scores of features, or of points on a line, that arrive in blocks of 7."""
    samples, points = (torch.as_tensor(points, dtype=torch.float32) for points in (samples, reference))
    samples, points = (points[:, None] if points.ndim == 1 else points for points in (samples, points))
    features = ReferenceFeatures(points)
    reservoir = FeatureReservoir(samples.shape[1], len(samples), features, 1000)
    extractor = create_extractor("random")
    metrics = {
        name: score_metrics[name](extractor, len(samples), Reference(None, features), reservoir=reservoir)
        for name in NAMES
    }
    for indices in (torch.arange(len(samples)) if order is None else order).split(7):
        for state in (reservoir, *metrics.values()):
            state.update(Features(samples[indices], None), indices)
    return {name: metric.compute().value for name, metric in metrics.items()}


def brute_force(samples: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The formulas point by point."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a.astype(np.float64) - b.astype(np.float64)) ** 2).sum()))

    def radius(points: np.ndarray, i: int, k: int) -> float:
        return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    def near(points: np.ndarray, centers: np.ndarray) -> float:
        reach = [radius(centers, i, 3) for i in range(len(centers))]
        return float(np.mean([any(distance(p, c) <= r for c, r in zip(centers, reach, strict=True)) for p in points]))

    balls = [radius(reference, i, 5) for i in range(len(reference))]
    inside = [[distance(y, x) < r for x, r in zip(reference, balls, strict=True)] for y in samples]
    nearest = [min(range(len(reference)), key=lambda i, y=y: distance(y, reference[i])) for y in samples]
    authentic = [distance(y, reference[i]) > radius(reference, i, 1) for y, i in zip(samples, nearest, strict=True)]
    return {
        "precision": near(samples, reference),
        "recall": near(reference, samples),
        "density": np.sum(inside) / (5 * len(samples)),
        "coverage": float(np.mean(np.any(inside, axis=0))),
        "authenticity": float(np.mean(authentic)),
    }


def cloud(number: int, seed: int, dimensions: int = 4) -> torch.Tensor:
    return torch.randn(number, dimensions, generator=torch.Generator().manual_seed(seed))


LINE = [0.0, 1, 2, 3, 4, 5]
"""Distances to the first, third and fifth neighbors: all 1; 3 2 2 2 2 3; 5 4 3 3 4 5."""


def test_precision_counts_the_surface_of_a_ball_and_density_does_not() -> None:
    # Third neighbors: the balls of 0 and 5 reach from -3 and to 8. Fifth neighbors: 2.5 is in all six balls, -3 on the
    # surface of the ball of 1 and in that of 0, 8 on that of 4 and in that of 5, -3.5 and 9 in one each.
    found = scores([-3.5, -3, 2.5, 8, 9], LINE)
    assert found["precision"] == 3 / 5
    assert found["density"] == (1 + 1 + 6 + 1 + 1) / (5 * 5)


def test_coverage_is_the_share_of_reference_points_with_a_sample_in_their_open_ball() -> None:
    assert scores([9.5, 20, 21, 22], LINE)["coverage"] == 1 / 6
    assert scores([10, 20, 21, 22], LINE)["coverage"] == 0
    assert scores([7.75, 20, 21, 22], LINE)["coverage"] == 2 / 6


def test_recall_is_the_share_of_reference_points_in_a_samples_closed_ball() -> None:
    # Third neighbors of 8, 9, 10, 11 are at 3, 2, 2, 3: the first ball reaches from 5.
    assert scores([8, 9, 10, 11], LINE)["recall"] == 1 / 6
    assert scores([7.5, 8.5, 9.5, 10.5], LINE)["recall"] == 1 / 6
    assert scores([8.125, 9.125, 10.125, 11.125], LINE)["recall"] == 0
    assert scores([7, 8, 9, 10], LINE)["recall"] == 2 / 6


def test_samples_no_farther_from_a_training_image_than_its_neighbor_are_not_authentic() -> None:
    assert scores([2.25, 6, 6.5, -4], LINE)["authenticity"] == 2 / 4
    assert scores(LINE, LINE)["authenticity"] == 0
    assert (
        scores([0, 0.5, 9, 9], [0.0, 0, 10, 20, 30, 40])["authenticity"] == 1 / 4
    )  # 9 is near 10, whose next is at 10


@pytest.mark.parametrize(("number", "size", "shift"), [(30, 20, 0.0), (15, 40, 0.7), (40, 40, 2.0)])
def test_all_scores_agree_with_the_formulas_point_by_point(number: int, size: int, shift: float) -> None:
    samples, reference = cloud(number, 1, 2) * 0.8 + shift, cloud(size, 2, 2)
    expected = brute_force(samples.numpy(), reference.numpy())
    assert scores(samples, reference) == pytest.approx(expected, rel=1e-12)
    assert 0 < expected["precision"] <= 1


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_precision_and_recall_agree_with_torch_fidelity(shift: float) -> None:
    samples, reference = cloud(300, 3, 16) * 0.9 + shift, cloud(400, 4, 16)
    theirs = prc_features_to_metric(
        samples.double(),
        reference.double(),
        prc_neighborhood=3,
        prc_batch_size=10000,
        save_cpu_ram=False,
        verbose=False,
    )
    ours = scores(samples, reference)
    assert 0.05 < ours["recall"] < 0.95
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=1e-6)


def test_equal_sets_score_one_and_distant_ones_zero() -> None:
    points = cloud(200, 5)
    assert scores(points, points) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1, "authenticity": 0}
    assert scores(points + 100, points) == {
        "precision": 0,
        "recall": 0,
        "density": 0,
        "coverage": 0,
        "authenticity": 1,
    }


def test_two_draws_of_one_law_have_a_density_of_about_one_and_are_authentic_half_of_the_time() -> None:
    found = scores(cloud(1000, 6), cloud(1000, 7))
    assert found["density"] == pytest.approx(1, abs=0.05)
    # Covered unless the five nearest points of both sets are all of the reference (Naeem et al. 2020, section 3.3).
    assert found["coverage"] == pytest.approx(1 - 0.5**5, abs=0.03)
    assert found["authenticity"] == pytest.approx(0.5, abs=0.1)


def test_a_dropped_mode_lowers_recall_and_coverage_but_not_precision() -> None:
    def modes(shifts: tuple[float, ...], seed: int) -> torch.Tensor:
        return torch.cat([cloud(100, seed + i) + shift for i, shift in enumerate(shifts)])

    reference = modes((0, 50), 10)
    whole, dropped = scores(modes((0, 50), 20), reference), scores(modes((0, 0), 30), reference)
    assert dropped["precision"] == pytest.approx(whole["precision"], abs=0.1)
    assert dropped["recall"] <= 0.5 < 0.8 < whole["recall"]
    assert dropped["coverage"] <= 0.5 < 0.8 < whole["coverage"]


def test_a_collapsed_generator_recalls_nothing() -> None:
    reference = cloud(100, 11)
    found = scores(reference[:1].repeat(50, 1), reference)
    assert (found["precision"], found["recall"], found["authenticity"]) == (1, 1 / 100, 0)
    assert found["coverage"] < 0.2


def test_block_size_changes_no_distance_and_bounds_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reference = cloud(90, 12), cloud(70, 13)
    whole, radii = scores(samples, reference), neighbor_distances(samples, 5)
    (block,) = distance_blocks(samples, reference)
    monkeypatch.setattr(neighbors, "MAX_PAIRS", 300)
    blocks = list(distance_blocks(samples, reference))
    assert max(part.numel() for part in blocks) <= 300
    assert torch.equal(torch.cat(blocks), block)
    assert torch.equal(neighbor_distances(samples, 5), radii)
    assert scores(samples, reference) == whole
    monkeypatch.setattr(neighbors, "MAX_PAIRS", 1)
    assert scores(samples, reference) == whole


def test_equal_points_are_at_distance_zero_however_far_from_the_origin() -> None:
    points = cloud(100, 14, 64) + 1000
    (block,) = distance_blocks(points, points)
    assert (block.diagonal() == 0).all()
    assert torch.equal(block, block.T)


def test_the_order_of_arrival_does_not_matter() -> None:
    samples, reference = cloud(60, 15), cloud(50, 16)
    order = torch.from_numpy(np.random.default_rng(0).permutation(60))
    assert scores(samples, reference, order) == scores(samples, reference)


def test_a_reservoir_keeps_the_first_samples_in_order_and_does_not_grow() -> None:
    samples = cloud(50, 17)
    reservoir = FeatureReservoir(4, 50, ReferenceFeatures(cloud(10, 18)), 20)
    for indices in torch.arange(50).flip(0).split(8):
        reservoir.update(Features(samples[indices], None), indices)
        reservoir.update(Features(samples[indices], None), indices)
        assert reservoir.features.shape == (20, 4)
    assert torch.equal(reservoir.compute().samples, samples[:20])
    assert FeatureReservoir(4, 12, ReferenceFeatures(cloud(10, 18)), 20).features.shape == (12, 4)


def test_what_cannot_be_computed_is_refused() -> None:
    extractor = create_extractor("random")
    for name, plan, message in (
        ("recall", ScoringPlan(extractor, 3, "train", 100, None), r"metrics\.num_samples"),
        ("coverage", ScoringPlan(extractor, 100, "train", 5, None), r"metrics\.reference_split"),
        ("authenticity", ScoringPlan(extractor, 100, "test", 100, None), r"metrics\.reference_split=train"),
    ):
        with pytest.raises(UserError, match=message):
            score_metrics[name].check(plan)
    score_metrics["authenticity"].check(ScoringPlan(extractor, 4, "train", 6, None))
