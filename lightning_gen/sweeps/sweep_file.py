"""Sweep files in W&B's format, read and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_gen.errors import UserError, first_line
from lightning_gen.registry import suggestion
from lightning_gen.sweeps.commands import DEFAULT_COMMAND, check_command
from lightning_gen.sweeps.parameters import Parameter, grid, read_parameter

METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")

KEYS = ("program", "method", "metric", "parameters", "early_terminate", "command", "run_cap")
UNUSED_KEYS = ("name", "description", "project", "entity", "apiVersion", "kind")
"""Keys that say something to W&B alone."""
ONLINE_KEYS = ("controller", "job", "image_uri", "metrics", "scheduler")
"""Keys of W&B's format for which its server or its own launcher is needed."""

METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
HYPERBAND_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
SCORE_PREFIX = "score/"
"""What the names of scores begin with in W&B, and not in the record of a run."""


@dataclass(frozen=True)
class Halving:
    """When trials are stopped early: at evaluation number ``first``, ``first * factor``, ``first * factor**2``, ...

    Args:
        first: number of evaluations after which a trial is judged first.
        factor: of the trials that came so far, one in so many goes on (eta of Li et al. 2018, arXiv:1603.06560).
    """

    first: int
    factor: int


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        program: the training script, as the file names it.
        command: W&B's list of words and macros.
        method: grid, random or bayes.
        score: name of the score in a run's record.
        maximize: whether higher is better.
        target: score at which the sweep is done, or None.
        parameters: in the file's order, nested ones by their dotted names.
        halving: when trials are stopped early, or None for never.
        run_cap: number of trials, or None.
        source: the file as plain values.
    """

    program: str
    command: tuple[str, ...]
    method: str
    score: str
    maximize: bool
    target: float | None
    parameters: tuple[Parameter, ...]
    halving: Halving | None
    run_cap: int | None
    source: Mapping[str, Any]

    def grid(self) -> list[dict[str, Any]]:
        """The values of every trial of a grid.

        Raises:
            UserError: a parameter has no list of choices.
        """
        return grid([parameter.as_choices() for parameter in self.parameters])

    def is_better(self, score: float, other: float) -> bool:
        """Whether ``score`` is strictly better than ``other``."""
        return score > other if self.maximize else score < other


def read_sweep(path: Path) -> Sweep:
    """The sweep in a YAML file.

    Raises:
        UserError: it cannot be read, or is not in W&B's format; the line names the file.
    """
    try:
        source = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split()) or first_line(error)}") from error
    try:
        return parse_sweep(source)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse_sweep(source: Any) -> Sweep:
    """The sweep in plain values.

    Raises:
        UserError: an unknown key, a missing one, or a value that does not fit.
    """
    if not isinstance(source, Mapping):
        raise UserError("a sweep file has keys such as program, method, metric and parameters")
    for key in source:
        if key in ONLINE_KEYS:
            raise UserError(f"{key} needs W&B's server: run this file by wandb sweep")
        if key not in (*KEYS, *UNUSED_KEYS):
            raise UserError(f"unknown key {key!r}.{suggestion(str(key), list(KEYS))}")
    for key in ("program", "method", "metric", "parameters"):
        if key not in source:
            raise UserError(f"{key} is missing")
    if source["method"] not in METHODS:
        raise UserError(f"method must be {', '.join(METHODS[:-1])} or {METHODS[-1]}, not {source['method']!r}")
    score, maximize, target = _metric(source["metric"])
    sweep = Sweep(
        program=str(source["program"]),
        command=check_command(source.get("command", list(DEFAULT_COMMAND))),
        method=source["method"],
        score=score,
        maximize=maximize,
        target=target,
        parameters=tuple(_parameters(source["parameters"])),
        halving=_halving(source["early_terminate"]) if source.get("early_terminate") is not None else None,
        run_cap=_whole(source, "run_cap", "run_cap") if "run_cap" in source else None,
        source=dict(source),
    )
    _check_conditions(sweep.parameters)
    if sweep.method == "grid":
        sweep.grid()
    return sweep


def _metric(given: Any) -> tuple[str, bool, float | None]:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise UserError("metric needs a name: the score to search by, as score/fd_digits")
    for key in given:
        if key not in METRIC_KEYS:
            raise UserError(f"metric has no {key!r}.{suggestion(str(key), list(METRIC_KEYS))}")
    goal = given.get("goal", "minimize")
    if goal not in GOALS:
        raise UserError(f"metric.goal must be minimize or maximize, not {goal!r}")
    target = given.get("target")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        raise UserError(f"metric.target must be a number, not {target!r}")
    return given["name"].removeprefix(SCORE_PREFIX), goal == "maximize", target


def _parameters(given: Any, prefix: str = "") -> Iterator[Parameter]:
    where = f"{prefix.rstrip('.')}: parameters" if prefix else "parameters"
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{where} must name at least one parameter")
    for key, settings in given.items():
        if not isinstance(key, str) or not NAME.fullmatch(key):
            raise UserError(f"{where}: {key!r} is no name of a parameter: letters, digits, _, - and points")
        if isinstance(settings, Mapping) and "parameters" in settings:
            if len(settings) > 1:
                raise UserError(f"{prefix}{key}: nested parameters stand alone, without {list(settings)}")
            yield from _parameters(settings["parameters"], f"{prefix}{key}.")
        else:
            yield read_parameter(f"{prefix}{key}", settings)


def _check_conditions(parameters: tuple[Parameter, ...]) -> None:
    earlier: dict[str, Parameter] = {}
    for parameter in parameters:
        if parameter.name in earlier:
            raise UserError(f"{parameter.name} is there twice")
        for name, wanted in parameter.when.items():
            if name not in earlier:
                raise UserError(f"{parameter.name}: when names {name}, which is no parameter above it")
            choices = earlier[name].choices
            if choices is None:
                raise UserError(f"{parameter.name}: when names {name}, which is a number and has no choices")
            for value in wanted:
                if value not in choices:
                    raise UserError(f"{parameter.name}: when wants {value!r} of {name}, which is none of its values")
        earlier[parameter.name] = parameter


def _halving(given: Any) -> Halving:
    """Hyperband's bands as W&B computes them: up from ``min_iter``, or ``s`` of them down from ``max_iter``."""
    if not isinstance(given, Mapping) or given.get("type") != "hyperband":
        raise UserError("early_terminate must have type: hyperband")
    for key in given:
        if key not in HYPERBAND_KEYS:
            raise UserError(f"early_terminate has no {key!r}.{suggestion(str(key), list(HYPERBAND_KEYS))}")
    eta = given.get("eta", 3)
    if isinstance(eta, bool) or not isinstance(eta, int | float) or eta != int(eta) or eta < 2:
        raise UserError(f"early_terminate.eta must be a whole number of at least 2, not {eta!r}")
    eta = int(eta)
    if "max_iter" in given and "s" in given:
        most = _whole(given, "max_iter", "early_terminate.max_iter")
        bands = min(_whole(given, "s", "early_terminate.s"), math.floor(math.log(most, eta) + 1e-9))
        if bands < 1:
            raise UserError(f"early_terminate.max_iter must be at least eta, not {most}")
        return Halving(max(1, int(most / eta**bands)), eta)
    if "min_iter" not in given:
        raise UserError("early_terminate needs min_iter, or max_iter and s: numbers of evaluations")
    return Halving(_whole(given, "min_iter", "early_terminate.min_iter"), eta)


def _whole(given: Mapping[str, Any], key: str, name: str) -> int:
    value = given[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)
