from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from lightning_gen.callbacks.scores import walk_step
from lightning_gen.errors import UserError
from lightning_gen.metrics import distribution_scores
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, ScoringPlan, WalkMetric, score_metrics
from lightning_gen.metrics.distribution_scores import line_distance, subset_discrepancies
from lightning_gen.metrics.extractors import Features, create_extractor
from lightning_gen.metrics.frechet import frechet_distance, jackknife_error
from lightning_gen.metrics.neighbors import ReferenceFeatures
from lightning_gen.metrics.reference import Reference
from lightning_gen.metrics.shared import NUM_SEGMENTS, FeatureReservoir, SegmentStatistics
from lightning_gen.metrics.statistics import FeatureStatistics, GaussianStatistics


def normal(number: int, dimensions: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(number, dimensions))).float()


def statistics_of(features: Tensor) -> GaussianStatistics:
    sums = FeatureStatistics(features.shape[1])
    sums.update(features)
    return sums.compute()


def compute(
    name: str, samples: Tensor, reference: Reference, labels: Tensor | None = None, **options: Any
) -> ScoreValue:
    """A score of features that arrive in blocks of 7, out of order."""
    extractor = create_extractor("random", num_features=samples.shape[1])
    extractor.num_spatial = samples.shape[1]
    metric_class = score_metrics[name]
    made: dict[str, Any] = {}
    if "reservoir" in metric_class.shared:
        assert reference.features is not None
        made["reservoir"] = FeatureReservoir(samples.shape[1], len(samples), reference.features, 1000)
    if "segments" in metric_class.shared:
        made["segments"] = SegmentStatistics(samples.shape[1], len(samples), NUM_SEGMENTS)
    metric: ScoreMetric = metric_class(extractor, len(samples), reference, **made, **options)
    for indices in torch.arange(len(samples)).flip(0).split(7):
        part = Features(samples[indices], None, samples[indices])
        for state in (*made.values(), metric):
            state.update(part, indices, None if labels is None else labels[indices])
    value: ScoreValue = metric.compute()
    return value


def test_kernel_distance_is_the_unbiased_estimator_on_each_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reference = normal(30, 5, 0).double(), normal(40, 5, 1).double() + 0.5
    rng = np.random.default_rng(2)
    picks = [(rng.choice(30, 6, replace=False), rng.choice(40, 6, replace=False)) for _ in range(4)]
    expected = []
    for chosen, others in picks:
        x, y = samples[chosen].numpy(), reference[others].numpy()

        def kernel(a: np.ndarray, b: np.ndarray) -> float:
            return float((a @ b / 5 + 1) ** 3)

        within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i in range(6) for j in range(6) if i != j) / (6 * 5)
        expected.append(within - 2 * sum(kernel(a, b) for a in x for b in y) / 36)
    in_sample, in_reference = torch.zeros(4, 30, dtype=torch.float64), torch.zeros(4, 40, dtype=torch.float64)
    for row, (chosen, others) in enumerate(picks):
        in_sample[row, chosen] = 1
        in_reference[row, others] = 1
    for pairs in (2**22, 100):
        monkeypatch.setattr(distribution_scores, "MAX_PAIRS", pairs)
        found = subset_discrepancies(samples, reference, in_sample, in_reference)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_kernel_distance_of_one_law_is_zero_within_its_error() -> None:
    reference = Reference(features=ReferenceFeatures(normal(400, 6, 1)))
    same = compute("kernel_distance", normal(400, 6, 2), reference, subset_size=100)
    other = compute("kernel_distance", normal(400, 6, 2) + 0.3, reference, subset_size=100)
    assert same.std is not None
    assert abs(same.value) < 3 * same.std / 2
    assert other.value > 10 * abs(same.value)


def test_line_distance_is_that_of_the_quantile_functions() -> None:
    # 0, 1 against 0, 1, 2: the quantile functions differ by 0, 1 and 1 on sixths 0-2, 2-3 (0 against 1), 3-4, 4-6.
    assert float(line_distance(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0, 1.0]))) == pytest.approx(
        (1 + 0 + 2 * 1) / 6
    )
    one, two = normal(12, 1, 0)[:, 0].double(), normal(20, 1, 1)[:, 0].double()
    repeated = one.repeat_interleave(5).sort().values - two.repeat_interleave(3).sort().values
    assert float(line_distance(one, two)) == pytest.approx(float(repeated.square().mean()))


def test_sliced_distance_of_a_shift_is_the_shifts_length_on_a_line() -> None:
    points = normal(50, 8, 0)
    shift = torch.zeros(8)
    shift[0] = 3.0
    reference = Reference(features=ReferenceFeatures(points))
    found = compute("sliced_distance", points + shift, reference, directions=4000).value
    assert found == pytest.approx((9 / 8) ** 0.5, rel=0.05)
    assert compute("sliced_distance", points.flip(0), reference).value == pytest.approx(0, abs=1e-7)


def test_the_distance_is_extrapolated_to_infinitely_many_samples() -> None:
    shift = 0.5
    exact = GaussianStatistics(10**9, torch.full((16,), shift, dtype=torch.float64), torch.eye(16, dtype=torch.float64))
    reference, truth = Reference(statistics=exact), 16 * shift**2
    errors = []
    for seed in range(5):
        samples = normal(4000, 16, seed)
        biased = compute("frechet_distance", samples, reference).value
        value, error = compute("frechet_infinity", samples, reference)
        assert error is not None
        assert 0 < error < 0.2
        errors.append((value - truth, biased - truth))
    extrapolated, plain = np.abs(np.mean(errors, axis=0))
    assert extrapolated < plain / 2


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=8)
    left_out = [np.delete(values, index).mean() for index in range(8)]
    assert jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / 8**0.5)


def test_the_error_bar_of_the_distance_is_its_spread_over_draws() -> None:
    reference = Reference(statistics=statistics_of(normal(5000, 4, 99) + 0.5))
    found = [compute("frechet_distance", normal(400, 4, seed), reference) for seed in range(30)]
    spread = np.std([value for value, _ in found], ddof=1)
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.4)


def test_segments_add_up_to_all_samples() -> None:
    samples = normal(101, 5, 0)
    whole, parts = SegmentStatistics(5, 101), SegmentStatistics(5, 101, NUM_SEGMENTS)
    for indices in torch.arange(101).split(13):
        for state in (whole, parts):
            state.update(Features(samples[indices], None), indices)
    one, eight = whole.compute(), parts.compute()
    np.testing.assert_allclose(one.statistics().covariance, eight.statistics().covariance, rtol=1e-12)
    np.testing.assert_allclose(eight.statistics().covariance, np.cov(samples.numpy(), rowvar=False), atol=1e-6)
    without_first = samples[int(eight.numbers[0]) :]
    np.testing.assert_allclose(eight.statistics(leave_out=0).mean, without_first.double().mean(0), rtol=1e-9)


def test_spatial_and_class_distances_are_frechet_distances() -> None:
    samples, real = normal(60, 4, 0), normal(80, 4, 1) + 1
    labels, real_labels = torch.arange(60) % 3, torch.arange(80) % 3
    spatial = compute("spatial_frechet_distance", samples, Reference(spatial_statistics=statistics_of(real)))
    assert spatial.value == pytest.approx(frechet_distance(statistics_of(samples), statistics_of(real)))
    by_class = [statistics_of(real[real_labels == label]) for label in range(3)]
    found = compute("class_frechet_distance", samples, Reference(class_statistics=by_class), labels)
    expected = [
        fid_statistics_to_metric(
            *(fid_features_to_statistics(part.double()) for part in (samples[labels == c], real[real_labels == c])),
            verbose=False,
        )[KEY_METRIC_FID]
        for c in range(3)
    ]
    assert found.value == pytest.approx(np.mean(expected))


def test_a_copy_is_three_times_nearer_to_one_training_image_than_to_the_next() -> None:
    training = torch.tensor([0.0, 1.0, 10.0, 30.0, 60.0, 100.0, 150.0])[:, None]
    samples = torch.tensor([0.1, 0.4, 9.0, 5.0])[:, None]  # copy (0.1 of 0.9), not (0.4 of 0.6), copy (1 of 8), not
    found = compute("memorization", samples, Reference(features=ReferenceFeatures(training)))
    assert found == ScoreValue(0.5, 0.5 / 2)


def test_diversity_is_the_mean_squared_distance_of_pairs() -> None:
    metric = score_metrics["diversity"](create_extractor("random"), 5, None)
    metric.update(Features(torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 2.0]]), None), torch.arange(4))
    metric.update(Features(torch.tensor([[9.0, 9.0]]), None), torch.tensor([4]))
    assert metric.compute() == ScoreValue(13.0, pytest.approx(12 / 2**0.5))


class Plane:
    """Decodes a latent to an image whose pixels are twice the latent."""

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        return torch.eye(4)[:num_samples]

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return 2 * latents.reshape(-1, 1, 2, 2)


def test_path_length_of_a_linear_decoder_is_the_speed_on_the_arc() -> None:
    model = Plane()
    start, end = torch.eye(4, dtype=torch.float64)[:2], torch.eye(4, dtype=torch.float64)[2:]
    metric = score_metrics["path_length"](create_extractor("random"), 2, None)
    assert isinstance(metric, WalkMetric)
    pair = walk_step(model, start, end, torch.tensor([0.0, 0.7], dtype=torch.float64), metric.step, None)
    metric.update(Features(torch.stack(pair, 1).flatten(2), None), torch.arange(2))
    # Twice the unit arc of a right angle, at constant speed: (2 * pi / 2)^2.
    assert metric.compute().value == pytest.approx(np.pi**2, rel=1e-6)


def test_outermost_path_lengths_are_left_out() -> None:
    metric = score_metrics["path_length"](create_extractor("random"), 200, None, step=0.5)
    assert isinstance(metric, WalkMetric)
    ends = torch.stack([torch.arange(200.0).sqrt(), torch.zeros(200)], 1)[:, :, None]
    metric.update(Features(ends, None), torch.arange(200))
    assert metric.compute().value == pytest.approx(np.arange(1, 199).mean() / 0.25)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("frechet_infinity", {"num_samples": 128}, "raise metrics.num_samples to 136"),
        ("class_frechet_distance", {"label_classes": None}, "model.conditional=true"),
        ("class_frechet_distance", {"num_samples": 100}, "20 samples a class"),
        ("memorization", {"reference_split": "test"}, "metrics.reference_split=train"),
        ("path_length", {"walks": False}, "model with latents"),
        ("spatial_frechet_distance", {}, "metrics.extractor.name=inception"),
    ],
)
def test_what_cannot_be_computed_is_refused(name: str, change: dict[str, Any], message: str) -> None:
    extractor = create_extractor("random")
    extractor.num_spatial = None
    plan = ScoringPlan(extractor, 2000, "train", 100, 10)
    if name != "spatial_frechet_distance":
        score_metrics[name].check(plan)
    with pytest.raises(UserError, match=message):
        score_metrics[name].check(plan._replace(**change))
