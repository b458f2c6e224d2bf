"""What a study has found: its trials, the best of them, and which parameters matter."""

from __future__ import annotations

import statistics
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_gen.sweeps.folder import ERROR, RUNS, SCORES, VALUES, SweepFolder

ENOUGH_TRIALS = 8
"""Completed trials below which importances would be noise."""

STATES = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def summarize(folder: SweepFolder) -> dict[str, Any]:
    """The study as plain values.

    ``trials`` by number, each with ``state``, ``score`` (mean over seeds; of a pruned one the last that it had),
    ``spread`` (sample standard deviation over seeds, or None), ``values``, ``runs`` by seed, ``error`` and ``seconds``;
    ``best`` is the number of the best completed trial, or None; ``importances`` are shares of the variance of the score
    that a random forest explains by each parameter (fANOVA, Hutter et al. 2014), from `ENOUGH_TRIALS` trials on;
    ``logarithmic`` names the parameters that are drawn in their logarithm.
    """
    sweep = folder.sweep
    trials = [_trial(trial) for trial in folder.trials()]
    completed = [trial for trial in trials if trial["state"] == "completed"]
    order = sorted(completed, key=lambda trial: -trial["score"] if sweep.maximize else trial["score"])
    return {
        "study": folder.study.study_name,
        "method": sweep.method,
        "score": sweep.score,
        "goal": "maximize" if sweep.maximize else "minimize",
        "seeds": list(folder.settings.seeds) if folder.settings.seeds else None,
        "overrides": list(folder.settings.overrides),
        "output_dir": str(folder.settings.output_dir),
        "parameters": [parameter.name for parameter in sweep.parameters if parameter.kind != "constant"],
        "logarithmic": [parameter.name for parameter in sweep.parameters if parameter.logarithmic],
        "counts": {state: sum(trial["state"] == state for trial in trials) for state in STATES.values()},
        "best": order[0]["number"] if order else None,
        "ranking": [trial["number"] for trial in order],
        "importances": importances(folder.study),
        "trials": trials,
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    scores = list(trial.user_attrs.get(SCORES, {}).values())
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "score": trial.value,
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "values": trial.user_attrs.get(VALUES, {}),
        "runs": trial.user_attrs.get(RUNS, {}),
        "error": trial.user_attrs.get(ERROR, {}).get("reason"),
        "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
    }


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of each parameter in the explained variance of the score, largest first; empty for too few trials.

    Parameters that only some trials have are left out.
    """
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < ENOUGH_TRIALS or len({trial.value for trial in completed}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def describe_trial(folder: SweepFolder, trial: FrozenTrial) -> str:
    """One line about a trial: its number, what came out and its parameters."""
    facts = _trial(trial)
    if facts["state"] == "failed":
        outcome = f"failed: {facts['error']}"
    elif facts["state"] == "pruned":
        outcome = "stopped early" + (f" at {facts['score']:.4g}" if facts["score"] is not None else "")
    else:
        outcome = f"{folder.sweep.score} {facts['score']:.4g}"
    return f"trial {trial.number}: {outcome} ({format_values(facts['values'])})"


def format_values(values: dict[str, Any]) -> str:
    """``key=value`` of a trial for a person, with four digits."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_value(value: Any) -> str:
    """A parameter's value for a person: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
