"""Distributions of the sweep format against closed forms, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from scipy import stats

from lightning_gen.errors import UserError
from lightning_gen.sweeps.parameters import SETTINGS, TAIL, grid, read_parameter
from lightning_gen.sweeps.planning import distribution

DRAWS = 1500

# Each with the distribution function that its values must have, as W&B documents them.
CONTINUOUS: dict[str, tuple[dict[str, Any], Any]] = {
    "uniform": ({"min": -2.0, "max": 3.0}, lambda x: (x + 2) / 5),
    "log_uniform": ({"min": -3.0, "max": 1.0}, lambda x: (np.log(x) + 3) / 4),
    "log_uniform_values": ({"min": 1e-4, "max": 1e-1}, lambda x: np.log(x / 1e-4) / np.log(1e3)),
    "inv_log_uniform": ({"min": 1.0, "max": 4.0}, lambda x: 1 - (np.log(1 / x) - 1) / 3),
    "inv_log_uniform_values": ({"min": 0.5, "max": 8.0}, lambda x: 1 - (np.log(1 / x) + np.log(8)) / np.log(16)),
    "normal": ({"mu": 3.0, "sigma": 0.5}, lambda x: stats.norm.cdf((x - 3) / 0.5)),
    "log_normal": ({"mu": -1.0, "sigma": 0.7}, lambda x: stats.norm.cdf((np.log(x) + 1) / 0.7)),
    "beta": ({"a": 2.0, "b": 1.0}, lambda x: x**2),
}


def draw(settings: dict[str, Any], number: int = DRAWS) -> list[Any]:
    """Values of a parameter as Optuna's random sampler draws them."""
    parameter = read_parameter("x", settings)
    law = distribution(parameter)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    frozen = study.ask()
    return [
        parameter.value(study.sampler.sample_independent(study, frozen, "x", law))  # type: ignore[arg-type]
        for _ in range(number)
    ]


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_draws_follow_their_distribution_function(kind: str) -> None:
    settings, cdf = CONTINUOUS[kind]
    values = np.array(draw({"distribution": kind, **settings}))
    assert stats.kstest(values, cdf).pvalue > 0.01
    assert stats.kstest(values * 1.1 + 0.02, cdf).pvalue < 0.01


@pytest.mark.parametrize("kind", [kind for kind in CONTINUOUS if f"q_{kind}" in SETTINGS])
def test_quantized_draws_are_the_nearest_multiples_of_q(kind: str) -> None:
    settings, cdf = CONTINUOUS[kind]
    step = 0.25
    values = np.array(draw({"distribution": f"q_{kind}", "q": step, **settings}))
    assert np.allclose(values / step, np.round(values / step))
    for multiple in np.unique(values):
        low, high = (
            np.clip(cdf(max(edge, 1e-12) if "log" in kind else edge), 0, 1)
            for edge in (multiple - step / 2, multiple + step / 2)
        )
        share = float(np.mean(values == multiple))
        assert abs(share - (high - low)) < 5 * math.sqrt(0.25 / DRAWS)


def test_the_kind_of_q_is_that_of_the_values() -> None:
    whole = read_parameter("x", {"distribution": "q_uniform", "min": 0, "max": 100, "q": 10})
    assert [repr(whole.value(raw)) for raw in (14.9, 15.1, 99.0)] == ["10", "20", "100"]
    assert repr(read_parameter("x", {"distribution": "q_uniform", "min": 0, "max": 9}).value(3.2)) == "3.0"


def test_exact_values_of_the_inverse_distribution_functions() -> None:
    normal = read_parameter("x", {"distribution": "normal", "mu": 1.0, "sigma": 2.0})
    assert normal.value(0.5) == pytest.approx(1.0)
    assert normal.value(0.975) == pytest.approx(1 + 2 * 1.959963984540054)
    assert read_parameter("x", {"distribution": "log_normal"}).value(0.5) == pytest.approx(1.0)
    assert read_parameter("x", {"distribution": "beta", "a": 1, "b": 2}).value(0.75) == pytest.approx(0.5)
    assert math.isfinite(normal.value(TAIL))
    assert math.isfinite(normal.value(1 - TAIL))


def test_integers_and_choices_are_equally_likely() -> None:
    for settings, values in (
        ({"min": 3, "max": 6}, [3, 4, 5, 6]),
        ({"values": ["a", 2, None, [1, 2]]}, ["a", 2, None, [1, 2]]),
    ):
        drawn = draw(settings)
        counts = [sum(value == wanted for value in drawn) for wanted in values]
        assert sum(counts) == DRAWS
        assert stats.chisquare(counts).pvalue > 0.01


def test_probabilities_are_those_of_the_file() -> None:
    drawn = draw({"values": ["a", "b", "c"], "probabilities": [0.7, 0.0, 0.3]})
    assert "b" not in drawn
    assert stats.binomtest(drawn.count("a"), DRAWS, 0.7).pvalue > 0.01


def test_choices_that_are_equal_to_python_stay_apart() -> None:
    parameter = read_parameter("x", {"values": [1, True, 1.0, "1"]})
    assert parameter.labels == ("1", "True", "1.0", "1 (#3)")
    assert [repr(parameter.value(label)) for label in parameter.labels or ()] == ["1", "True", "1.0", "'1'"]


def test_the_distribution_that_is_not_named_is_the_one_of_wandb() -> None:
    implied = {
        "constant": {"value": 3},
        "categorical": {"values": [1, 2]},
        "categorical_w_probabilities": {"values": [1, 2], "probabilities": [0.5, 0.5]},
        "int_uniform": {"min": 1, "max": 2},
        "uniform": {"min": 1, "max": 2.0},
    }
    assert {kind: read_parameter("x", settings).kind for kind, settings in implied.items()} == {
        kind: kind for kind in implied
    }
    law = distribution(read_parameter("x", {"distribution": "log_uniform_values", "min": 0.1, "max": 10}))
    assert law == FloatDistribution(0.1, 10, log=True)


def test_a_grid_has_every_combination_once() -> None:
    parameters = [
        read_parameter("a", {"values": ["x", "y"]}).as_choices(),
        read_parameter("b", {"min": 1, "max": 3}).as_choices(),
        read_parameter("c", {"value": 7}).as_choices(),
        read_parameter("d", {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.5}).as_choices(),
    ]
    points = [tuple(point.values()) for point in grid(parameters)]
    assert points == list(itertools.product(["x", "y"], [1, 2, 3], [7], [0.0, 0.5]))


def test_a_grid_leaves_out_what_does_not_exist_and_repeats_nothing() -> None:
    parameters = [
        read_parameter("loss", {"values": ["hinge", "wasserstein", "hinge"]}),
        read_parameter("weight", {"values": [1, 10], "when": {"loss": "wasserstein"}}),
    ]
    assert grid(parameters) == [
        {"loss": "hinge"},
        {"loss": "wasserstein", "weight": 1},
        {"loss": "wasserstein", "weight": 10},
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give value, values, min and max"),
        (3, "give value, values, min and max"),
        ({"distribution": "gaussian"}, "unknown distribution 'gaussian'"),
        ({"distribution": "uniform", "min": 0}, "uniform needs max"),
        ({"min": 0, "max": 1, "q": 1}, "int_uniform has no 'q'"),
        ({"distribution": "normal", "mean": 0}, "normal has no 'mean'"),
        ({"min": "1e-4", "max": 1}, "is the text '1e-4'"),
        ({"distribution": "uniform", "min": "1e-4", "max": 1}, "is the text '1e-4'"),
        ({"min": 2, "max": 1}, "not less than max"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "greater than 0"),
        ({"distribution": "log_uniform", "min": 0, "max": 1000}, "log_uniform_values takes the value itself"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 2}, "must be integers"),
        ({"distribution": "normal", "sigma": 0}, "sigma must be greater than 0"),
        ({"values": []}, "at least one value"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "with the sum 1"),
        ({"values": [1, 2], "probabilities": [1.0]}, "a number for each"),
        ({"values": [1], "when": "a"}, "when names earlier parameters"),
    ],
)
def test_parameters_outside_the_format_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_parameter("model.x", settings)
    assert str(caught.value).startswith("model.x: ")
    assert "\n" not in str(caught.value)


def test_a_grid_refuses_continuous_parameters() -> None:
    with pytest.raises(UserError, match=r"x: a grid takes .* not uniform"):
        read_parameter("x", {"min": 0.0, "max": 1.0}).as_choices()
