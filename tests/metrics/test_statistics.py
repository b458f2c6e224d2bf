import numpy as np
import pytest
import torch
from scipy import linalg
from torch_fidelity.metric_fid import fid_statistics_to_metric

from lightning_gen.metrics.frechet import frechet_distance
from lightning_gen.metrics.statistics import FeatureStatistics, GaussianStatistics


def statistics_of(features: torch.Tensor, batch: int = 37) -> GaussianStatistics:
    metric = FeatureStatistics(features.shape[1])
    for part in features.split(batch):
        metric.update(part)
    return metric.compute()


def gaussian(n: int, mean: list[float], covariance: list[list[float]] | np.ndarray) -> GaussianStatistics:
    return GaussianStatistics(
        n, torch.tensor(mean, dtype=torch.float64), torch.as_tensor(np.asarray(covariance), dtype=torch.float64)
    )


def test_streamed_statistics_equal_numpys() -> None:
    features = torch.randn(500, 20, dtype=torch.float64) * 3 + 7
    statistics = statistics_of(features)
    assert statistics.n == 500
    np.testing.assert_allclose(statistics.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(features.numpy(), rowvar=False), rtol=1e-9)


def test_size_does_not_grow_with_the_number_of_features() -> None:
    metric = FeatureStatistics(8)
    sizes = []
    for _ in range(3):
        metric.update(torch.randn(1000, 8))
        sizes.append(sum(getattr(metric, name).numel() for name in metric._defaults))
    assert sizes == [8 * 8 + 8 + 1] * 3


def test_one_feature_has_no_covariance() -> None:
    metric = FeatureStatistics(3)
    metric.update(torch.randn(1, 3))
    with pytest.raises(ValueError, match="two"):
        metric.compute()


@pytest.mark.parametrize(("n", "rank"), [(5, 4), (21, 20), (500, 20)])
def test_the_factor_multiplies_back_to_the_covariance(n: int, rank: int) -> None:
    statistics = statistics_of(torch.randn(n, 20))
    assert statistics.factor.shape == (rank, 20)
    np.testing.assert_allclose(statistics.factor.T @ statistics.factor, statistics.covariance, atol=1e-12)


def test_distance_of_one_dimensional_gaussians() -> None:
    # W2 of N(1, 4) and N(4, 25): (1 - 4)^2 + (2 - 5)^2 = 18
    assert frechet_distance(gaussian(100, [1.0], [[4.0]]), gaussian(100, [4.0], [[25.0]])) == pytest.approx(
        18, abs=1e-8
    )


def test_distance_of_commuting_gaussians() -> None:
    # common eigenvectors: sum over axes of (sqrt(a) - sqrt(b))^2
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    first, second = np.array([1.0, 4, 9, 16, 25, 0.01]), np.array([4.0, 1, 9, 1, 36, 0.04])
    expected = ((np.sqrt(first) - np.sqrt(second)) ** 2).sum() + 6 * 0.25
    distance = frechet_distance(
        gaussian(100, [0.0] * 6, rotation * first @ rotation.T),
        gaussian(100, [0.5] * 6, rotation * second @ rotation.T),
    )
    assert distance == pytest.approx(expected, abs=1e-8)


def test_distance_of_any_gaussians_against_the_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    a, b = (m @ m.T / 10 for m in rng.normal(size=(2, 10, 30)))
    mean = rng.normal(size=10)
    root = linalg.sqrtm(a @ b)
    expected = (mean**2).sum() + np.trace(a + b - 2 * root.real)
    assert frechet_distance(gaussian(99, mean.tolist(), a), gaussian(99, [0.0] * 10, b)) == pytest.approx(
        expected, 1e-10
    )


@pytest.mark.parametrize("n", [40, 64, 65, 400])
def test_distance_agrees_with_torch_fidelity_and_vanishes_on_itself(n: int) -> None:
    mixing = torch.randn(64, 64, dtype=torch.float64)
    first, second = torch.randn(n, 64).double() @ mixing, torch.randn(300, 64).double() @ mixing + 0.3
    ours = frechet_distance(statistics_of(first), statistics_of(second))
    sides = [{"mu": f.numpy().mean(0), "sigma": np.cov(f.numpy(), rowvar=False)} for f in (first, second)]
    theirs = fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-5)
    itself = statistics_of(first)
    assert abs(frechet_distance(itself, itself)) < 1e-6


def test_few_samples_give_the_exact_distance_of_their_singular_values() -> None:
    # With fewer samples than dimensions the trace term is the nuclear norm of the product of the centred features.
    first, second = torch.randn(30, 200, dtype=torch.float64), torch.randn(50, 200, dtype=torch.float64) * 2 + 1
    centred = [(f - f.mean(0)) / (len(f) - 1) ** 0.5 for f in (first, second)]
    trace = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    expected = (first.mean(0) - second.mean(0)).square().sum() + sum(c.square().sum() for c in centred) - 2 * trace
    assert frechet_distance(statistics_of(first), statistics_of(second)) == pytest.approx(float(expected), rel=1e-11)


def test_bad_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(gaussian(9, [0.0], [[1.0]]), gaussian(9, [0.0, 0.0], np.eye(2)))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(gaussian(9, [0.0], [[float("nan")]]), gaussian(9, [0.0], [[1.0]]))
