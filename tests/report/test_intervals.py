import pytest
from scipy.stats import binomtest

from lightning_gen.report.intervals import wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (1, 20), (10, 20), (199, 200), (1, 1), (7, 13)])
def test_wilsons_interval_is_scipys(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_ends_solve_wilsons_equation() -> None:
    for share in wilson_interval(3, 10, z=2.0):
        assert (0.3 - share) ** 2 == pytest.approx(4 * share * (1 - share) / 10)


def test_no_trials_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
