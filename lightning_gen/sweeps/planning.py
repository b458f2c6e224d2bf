"""Which trial a worker runs next: one that lost its worker, or a new one with parameters from Optuna."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_gen.sweeps.folder import VALUES, SweepFolder
from lightning_gen.sweeps.locks import FileLock
from lightning_gen.sweeps.parameters import Parameter
from lightning_gen.sweeps.sweep_file import Sweep

MOST_RANDOM_TRIALS = 10


class Idle(Enum):
    """Why there is no trial to run."""

    wait = "others still run"
    done = "all have ended"


@dataclass
class Job:
    """A trial that this process has to itself.

    Args:
        trial: with all its parameters.
        values: of the parameters that it has.
        lease: held; it is released when the trial has ended.
    """

    trial: Trial
    values: dict[str, Any]
    lease: FileLock


class GridSampler(BaseSampler):
    """One point of a grid.

    Args:
        point: value of every parameter, as labels.
    """

    def __init__(self, point: Mapping[str, str]) -> None:
        self._point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: parameters are given one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None: parameters are given one by one."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value of a parameter."""
        return self._point[param_name]


def next_job(folder: SweepFolder, most: int) -> Job | Idle:
    """The next trial of a study, or that there is none.

    Trials that are running and on which no process works any more come first. All processes choose one after another
    (`SweepFolder.planning`), so no trial is chosen twice and no more than ``most`` are begun.

    Args:
        folder: an open study.
        most: trials of the study, over all restarts.
    """
    with folder.planning:
        job = _abandoned(folder)
        if job is not None:
            return job
        begun = len(folder.trials())
        if folder.stopped is None and begun < limit(folder.sweep, most) and not _reached_target(folder):
            lease = folder.lease(begun)
            lease.acquire(wait=True)
            folder.study.sampler = make_sampler(folder.sweep, folder.settings.search_seed, begun)
            return _filled(folder, folder.study.ask(), lease)
        return Idle.wait if folder.trials(TrialState.RUNNING) else Idle.done


def limit(sweep: Sweep, most: int) -> int:
    """How many trials a study gets: no more than asked for, than ``run_cap``, and than a grid has points."""
    caps = [most, *([sweep.run_cap] if sweep.run_cap else []), *([len(sweep.grid())] if sweep.method == "grid" else [])]
    return min(caps)


def _abandoned(folder: SweepFolder) -> Job | None:
    for trial in folder.trials(TrialState.RUNNING):
        lease = folder.lease(trial.number)
        if not lease.acquire(wait=False):
            continue
        if folder.trials()[trial.number].state is not TrialState.RUNNING:  # it ended after we had looked
            lease.release()
            continue
        folder.study.sampler = make_sampler(folder.sweep, folder.settings.search_seed, trial.number)
        return _filled(folder, folder.live_trial(trial), lease)
    return None


def _filled(folder: SweepFolder, trial: Trial, lease: FileLock) -> Job:
    """The job of a trial, whose parameters are drawn now if that was not finished before."""
    values = trial.user_attrs.get(VALUES)
    if values is None:
        values = {}
        for parameter in folder.sweep.parameters:
            if parameter.exists(values):
                values[parameter.name] = _draw(trial, parameter, grid=folder.sweep.method == "grid")
        trial.set_user_attr(VALUES, values)
    return Job(trial, values, lease)


def _draw(trial: Trial, parameter: Parameter, *, grid: bool) -> Any:
    if parameter.kind == "constant":
        return parameter.settings["value"]
    if grid:
        parameter = parameter.as_choices()
    law = distribution(parameter)
    if isinstance(law, CategoricalDistribution):
        return parameter.value(trial.suggest_categorical(parameter.name, law.choices))
    if isinstance(law, IntDistribution):
        return parameter.value(trial.suggest_int(parameter.name, law.low, law.high))
    return parameter.value(trial.suggest_float(parameter.name, law.low, law.high, log=law.log))


def distribution(parameter: Parameter) -> CategoricalDistribution | IntDistribution | FloatDistribution:
    """What Optuna draws of a parameter that is no constant; `Parameter.value` makes the value of it."""
    if parameter.labels is not None:
        return CategoricalDistribution(parameter.labels)
    low, high = parameter.bounds
    if parameter.kind == "int_uniform":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=parameter.logarithmic)


def make_sampler(sweep: Sweep, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial. What it draws depends on the seed, the trial's number and the trials before it alone.

    Args:
        sweep: the sweep file; for ``bayes`` trials are drawn at random until there are twice as many as parameters, at
            most `MOST_RANDOM_TRIALS`, and by the multivariate tree-structured Parzen estimator with a constant liar
            afterwards.
        seed: of the whole search.
        number: of the trial.
    """
    if sweep.method == "grid":
        return GridSampler({name: str(value) for name, value in sweep.grid()[number].items()})
    own = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
    if sweep.method == "random":
        return RandomSampler(seed=own)
    searched = sum(parameter.kind != "constant" for parameter in sweep.parameters)
    return TPESampler(
        n_startup_trials=min(2 * searched, MOST_RANDOM_TRIALS),
        multivariate=True,
        group=any(parameter.when for parameter in sweep.parameters),
        constant_liar=True,
        seed=own,
    )


def _reached_target(folder: SweepFolder) -> bool:
    target = folder.sweep.target
    scores = [trial.value for trial in folder.trials(TrialState.COMPLETE)]
    return target is not None and any(
        score is not None and not folder.sweep.is_better(target, score) for score in scores
    )
