"""The parameters of a sweep file: W&B's distributions, drawn through those that Optuna has."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_gen.errors import UserError
from lightning_gen.registry import suggestion

TAIL = 1e-6
"""Probability that is cut off each end of a distribution without bounds: 4.75 standard deviations of a normal one."""

_RANGE: dict[str, Any] = {"min": ..., "max": ...}
_STEP = {"q": 1.0}
_NORMAL = {"mu": 0.0, "sigma": 1.0}
_BETA = {"a": 1.0, "b": 1.0}

SETTINGS: dict[str, dict[str, Any]] = {
    "constant": {"value": ...},
    "categorical": {"values": ...},
    "categorical_w_probabilities": {"values": ..., "probabilities": ...},
    "int_uniform": _RANGE,
    "uniform": _RANGE,
    "q_uniform": _RANGE | _STEP,
    "log_uniform": _RANGE,
    "log_uniform_values": _RANGE,
    "q_log_uniform": _RANGE | _STEP,
    "q_log_uniform_values": _RANGE | _STEP,
    "inv_log_uniform": _RANGE,
    "inv_log_uniform_values": _RANGE,
    "normal": _NORMAL,
    "q_normal": _NORMAL | _STEP,
    "log_normal": _NORMAL,
    "q_log_normal": _NORMAL | _STEP,
    "beta": _BETA,
    "q_beta": _BETA | _STEP,
}
"""Every distribution of W&B's format with its settings and their defaults; ``...`` where one must be given."""

NUMBERS = ("min", "max", "q", "mu", "sigma", "a", "b")


@dataclass(frozen=True)
class Parameter:
    """One parameter and its distribution.

    Optuna draws a raw value between bounds that it knows (`bounds`, `labels`), and `value` makes of it what a trial is
    run with. Quantized distributions round to the nearest multiple of ``q`` after the draw, as W&B does, so a value may
    lie up to q/2 outside its bounds. Distributions that Optuna lacks go through the inverse of their distribution
    function at a uniform raw value.

    Args:
        name: the override's key, with dots.
        kind: W&B's name of the distribution, a key of `SETTINGS`.
        settings: all settings of that distribution.
        when: values of earlier parameters under which this one exists; of every name, any of the values.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def choices(self) -> Sequence[Any] | None:
        """The values to choose from; None of a number."""
        if self.kind == "constant":
            return [self.settings["value"]]
        values: Sequence[Any] | None = self.settings.get("values")
        return values

    @property
    def labels(self) -> tuple[str, ...] | None:
        """A different text for each of the choices of a categorical parameter, else None."""
        if self.kind != "categorical":
            return None
        texts = [str(value) for value in self.settings["values"]]
        return tuple(text if text not in texts[:at] else f"{text} (#{at})" for at, text in enumerate(texts))

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which a raw number is drawn.

        For logarithmic distributions these are the bounds of the value; the inverse ones of W&B (the logarithm of 1/x
        is uniform) are logarithmic ones between the reciprocal bounds.
        """
        if self.kind in ("log_uniform", "q_log_uniform"):
            return math.exp(self.settings["min"]), math.exp(self.settings["max"])
        if self.kind == "inv_log_uniform":
            return math.exp(-self.settings["max"]), math.exp(-self.settings["min"])
        if "min" in self.settings:
            return self.settings["min"], self.settings["max"]
        return TAIL, 1 - TAIL

    @property
    def logarithmic(self) -> bool:
        """Whether the raw number is drawn uniformly in its logarithm."""
        return "log_uniform" in self.kind

    def value(self, raw: Any) -> Any:
        """What a trial is run with: a choice, or a number.

        Args:
            raw: a label of a categorical parameter, else a number between `bounds`.
        """
        if self.kind == "constant":
            return self.settings["value"]
        labels = self.labels
        if labels is not None:
            return self.settings["values"][labels.index(raw)]
        if self.kind == "categorical_w_probabilities":
            sums = list(itertools.accumulate(self.settings["probabilities"]))
            return self.settings["values"][min(bisect.bisect_right(sums, raw), len(sums) - 1)]
        if self.kind == "int_uniform":
            return int(raw)
        number = self._number(float(raw))
        step = self.settings.get("q")
        return number if step is None else round(number / step) * step

    def _number(self, raw: float) -> float:
        from scipy import stats

        if self.kind.endswith("normal"):
            normal = float(stats.norm.ppf(raw, self.settings["mu"], self.settings["sigma"]))
            return math.exp(normal) if self.kind.endswith("log_normal") else normal
        if self.kind.endswith("beta"):
            return float(stats.beta.ppf(raw, self.settings["a"], self.settings["b"]))
        return raw

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial with these values of the earlier parameters has this one."""
        return all(name in values and values[name] in wanted for name, wanted in self.when.items())

    def as_choices(self) -> Parameter:
        """The same parameter as a list of choices, for a grid.

        As W&B does it: the integers of ``int_uniform`` with both ends, and the steps of ``q_uniform`` from ``min``
        without ``max``.

        Raises:
            UserError: it is continuous, or has probabilities.
        """
        if self.kind in ("constant", "categorical"):
            return self
        if self.kind == "int_uniform":
            values: list[Any] = list(range(self.settings["min"], self.settings["max"] + 1))
        elif self.kind == "q_uniform":
            low, high, step = (self.settings[key] for key in ("min", "max", "q"))
            values = [low + number * step for number in range(math.ceil((high - low) / step))]
        else:
            raise UserError(f"{self.name}: a grid takes value, values, int_uniform or q_uniform, not {self.kind}")
        return Parameter(self.name, "categorical", {"values": values}, self.when)


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """The values of every trial of a grid, once each; the last parameter changes fastest.

    Args:
        parameters: all with choices.
    """
    return list(_grid(list(parameters), {}))


def _grid(parameters: list[Parameter], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not parameters:
        yield chosen
        return
    first, *rest = parameters
    if not first.exists(chosen):
        yield from _grid(rest, chosen)
        return
    for value in {str(value): value for value in first.choices or ()}.values():
        yield from _grid(rest, {**chosen, first.name: value})


def read_parameter(name: str, given: Any) -> Parameter:
    """One entry of ``parameters`` of a sweep file.

    Args:
        name: full name with dots.
        given: what the file says.

    Raises:
        UserError: it is none of W&B's format.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{name}: give value, values, min and max or a distribution, not {given!r}")
    settings = {key: value for key, value in given.items() if key not in ("distribution", "when")}
    kind = given.get("distribution", _implied(settings))
    if kind is None:
        raise UserError(f"{name}: give value, values, min and max or a distribution")
    if kind not in SETTINGS:
        raise UserError(f"{name}: unknown distribution {kind!r}.{suggestion(str(kind), list(SETTINGS))}")
    known = SETTINGS[kind]
    for key in settings:
        if key not in known:
            raise UserError(f"{name}: {kind} has no {key!r}.{suggestion(str(key), [*known, 'distribution'])}")
    settings = {key: value for key, value in known.items() if value is not ...} | settings
    missing = [key for key in known if key not in settings]
    if missing:
        raise UserError(f"{name}: {kind} needs {' and '.join(missing)}")
    _check(name, kind, settings)
    return Parameter(name, kind, settings, _conditions(name, given.get("when", {})))


def _implied(settings: Mapping[str, Any]) -> str | None:
    """The distribution that W&B takes where none is named."""
    if "value" in settings:
        return "constant"
    if "values" in settings:
        return "categorical_w_probabilities" if "probabilities" in settings else "categorical"
    if "min" in settings and "max" in settings:
        return "int_uniform" if all(_is_integer(settings[key]) for key in ("min", "max")) else "uniform"
    return None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(name: str, kind: str, settings: Mapping[str, Any]) -> None:
    for key in NUMBERS:
        value = settings.get(key, 0)
        if isinstance(value, str):
            raise UserError(f"{name}: {key} is the text {value!r}; YAML reads numbers with a point, as 1.0e-4")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{name}: {key} must be a number, not {value!r}")
        if key in ("q", "sigma", "a", "b") and key in settings and value <= 0:
            raise UserError(f"{name}: {key} must be greater than 0, not {value}")
    if "min" in settings:
        if settings["min"] >= settings["max"]:
            raise UserError(f"{name}: min {settings['min']} is not less than max {settings['max']}")
        if kind.endswith("log_uniform_values") and settings["min"] <= 0:
            raise UserError(f"{name}: min of {kind} must be greater than 0, not {settings['min']}")
        if kind in ("log_uniform", "q_log_uniform", "inv_log_uniform") and settings["max"] > 700:
            raise UserError(f"{name}: max of {kind} is a natural logarithm: {kind}_values takes the value itself")
        if kind == "int_uniform" and not all(_is_integer(settings[key]) for key in ("min", "max")):
            raise UserError(f"{name}: min and max of int_uniform must be integers")
    if "values" in settings and (not isinstance(settings["values"], list) or not settings["values"]):
        raise UserError(f"{name}: values must be a list with at least one value")
    if "probabilities" in settings:
        weights = settings["probabilities"]
        numbers = isinstance(weights, list) and all(
            isinstance(weight, int | float) and not isinstance(weight, bool) and weight >= 0 for weight in weights
        )
        if not numbers or len(weights) != len(settings["values"]) or abs(sum(weights) - 1) > 1e-6:
            raise UserError(f"{name}: probabilities must be a number for each of the values, with the sum 1")


def _conditions(name: str, given: Any) -> dict[str, list[Any]]:
    if not isinstance(given, Mapping):
        raise UserError(f"{name}: when names earlier parameters and their values, as when: {{model.loss: hinge}}")
    return {str(key): list(value) if isinstance(value, list) else [value] for key, value in given.items()}
