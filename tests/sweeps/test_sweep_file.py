"""Reading sweep files: what they mean, and one line for what they cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_gen.errors import UserError
from lightning_gen.sweeps.sweep_file import Halving, parse_sweep, read_sweep

COMMAND = ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
FILE: dict[str, Any] = {
    "program": "train.py",
    "method": "random",
    "metric": {"name": "score/fd_digits"},
    "parameters": {"a": {"values": [1, 2]}},
    "command": COMMAND,
}


def test_the_whole_format() -> None:
    sweep = parse_sweep(
        {
            **FILE,
            "method": "bayes",
            "name": "mine",
            "description": "text",
            "project": "p",
            "entity": "e",
            "metric": {"name": "score/inception", "goal": "maximize", "target": 9.5},
            "run_cap": 7,
            "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 4},
        }
    )
    assert (sweep.score, sweep.maximize, sweep.target, sweep.run_cap) == ("inception", True, 9.5, 7)
    assert sweep.halving == Halving(2, 4)
    assert sweep.is_better(2.0, 1.0)
    assert not parse_sweep(FILE).is_better(2.0, 1.0)


def test_nested_parameters_get_dotted_names() -> None:
    nested = {"model": {"parameters": {"optimizer": {"parameters": {"lr": {"value": 1}}}, "b": {"values": [1]}}}}
    sweep = parse_sweep({**FILE, "parameters": {**nested, "z": {"min": 0, "max": 1}}})
    assert [parameter.name for parameter in sweep.parameters] == ["model.optimizer.lr", "model.b", "z"]


@pytest.mark.parametrize(
    ("settings", "bands"),
    [
        # W&B: min_iter, min_iter * eta, ...
        ({"min_iter": 3}, (3, 3)),
        # W&B: max_iter / eta, max_iter / eta**2, ..., s of them, at least 1.
        ({"max_iter": 27, "s": 2, "eta": 3}, (3, 3)),
        ({"max_iter": 27, "s": 9, "eta": 3}, (1, 3)),
        ({"max_iter": 10, "s": 1, "eta": 2}, (5, 2)),
    ],
)
def test_bands_of_hyperband(settings: dict[str, Any], bands: tuple[int, int]) -> None:
    sweep = parse_sweep({**FILE, "early_terminate": {"type": "hyperband", **settings}})
    assert sweep.halving == Halving(*bands)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parametres": {}}, "unknown key 'parametres'. Did you mean 'parameters'"),
        ({"controller": {"type": "local"}}, "controller needs W&B's server"),
        ({"method": "annealing"}, "method must be grid, random or bayes, not 'annealing'"),
        ({"metric": "fd"}, "metric needs a name"),
        ({"metric": {"name": "a", "gaol": "minimize"}}, "metric has no 'gaol'. Did you mean 'goal'"),
        ({"metric": {"name": "a", "goal": "down"}}, "minimize or maximize, not 'down'"),
        ({"parameters": {}}, "at least one parameter"),
        ({"parameters": {"a b": {"value": 1}}}, "'a b' is no name"),
        ({"parameters": {"a": {"parameters": {"b": {"value": 1}}, "value": 1}}}, "nested parameters stand alone"),
        ({"parameters": {"a.b": {"value": 1}, "a": {"parameters": {"b": {"value": 2}}}}}, "a.b is there twice"),
        ({"method": "grid", "parameters": {"a": {"min": 0.0, "max": 1.0}}}, "a: a grid takes"),
        ({"command": "python train.py"}, "command must be a list"),
        ({"command": ["${prgram}"]}, "unknown macro ${prgram}. Did you mean 'program'"),
        ({"command": ["${program}", "${args}"]}, "command must pass key=value"),
        ({"early_terminate": {"type": "median"}}, "type: hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "needs min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "min_iter must be a whole number"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2.5}}, "eta must be a whole number"),
        ({"early_terminate": {"type": "hyperband", "min_itr": 1}}, "has no 'min_itr'. Did you mean 'min_iter'"),
        ({"run_cap": 0}, "run_cap must be a whole number of at least 1"),
        (
            {"parameters": {"a": {"value": 1, "when": {"b": 1}}, "b": {"value": 1}}},
            "names b, which is no parameter above",
        ),
        ({"parameters": {"b": {"values": [1]}, "a": {"value": 1, "when": {"b": 2}}}}, "wants 2 of b, which is none of"),
        ({"parameters": {"b": {"min": 1, "max": 2}, "a": {"value": 1, "when": {"b": 2}}}}, "b, which is a number"),
    ],
)
def test_what_is_no_sweep_is_refused_with_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        parse_sweep({**FILE, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["program", "method", "metric", "parameters"])
def test_needed_keys(key: str) -> None:
    with pytest.raises(UserError, match=f"^{key} is missing$"):
        parse_sweep({name: value for name, value in FILE.items() if name != key})


def test_without_a_command_the_file_is_refused_as_wandbs_default_fits_no_run() -> None:
    with pytest.raises(UserError, match="command must pass key=value"):
        parse_sweep({key: value for key, value in FILE.items() if key != "command"})


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read .*missing.yaml"):
        read_sweep(tmp_path / "missing.yaml")
    for text in ("a: [", "just text", "\0"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UserError, match=r"bad\.yaml") as caught:
            read_sweep(tmp_path / "bad.yaml")
        assert "\n" not in str(caught.value)
