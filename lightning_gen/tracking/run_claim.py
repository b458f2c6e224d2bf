"""Which directory a run gets: a new one, or its old one back; the same on all of its processes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_gen.errors import UserError
from lightning_gen.tracking.last_checkpoint import mend_last_checkpoint
from lightning_gen.tracking.processes import (
    MEETING_TIMEOUT,
    meeting_store,
    process_rank,
    started_by_srun,
    started_by_torchrun,
    world_size,
)
from lightning_gen.tracking.record import config_digest
from lightning_gen.tracking.run_directory import RunDirectory, create_run, find_run, open_folder, open_run
from lightning_gen.tracking.run_lock import hold
from lightning_gen.tracking.settings import defining

RUN_VARIABLE = "LIGHTNING_GEN_RUN"
"""Environment variable that tells the processes which Lightning starts for DDP the run of the first one."""

_meetings = itertools.count()


def claim_run(config: Mapping[str, Any]) -> tuple[RunDirectory, Path | None]:
    """The run's directory, and the checkpoint to go on from or None.

    Raises:
        UserError: the directory cannot be written or is taken, or the old run was another one.
    """
    together = started_by_torchrun() or started_by_srun()
    if process_rank() == 0 and not together:
        run, checkpoint = _claim(config)
        os.environ[RUN_VARIABLE] = str(run.path.resolve())
        return run, checkpoint
    if together:
        os.environ[RUN_VARIABLE] = _agree(config)
    elif RUN_VARIABLE not in os.environ:
        raise UserError("processes of one run must be started by Lightning (trainer=ddp), torchrun or srun")
    run = RunDirectory(Path(os.environ[RUN_VARIABLE]))
    resumes = config["resume"] is not None and run.last_checkpoint.exists()
    return run, _checkpoint_of(config, run) if resumes else None


def _agree(config: Mapping[str, Any]) -> str:
    """Rank zero claims the run and tells the others its path, or why it could not; it waits until all have heard."""
    store = meeting_store()
    # A multirun meets several times, and torchrun's store outlives a restart of its processes.
    key = f"lightning_gen/run/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_meetings)}"
    if process_rank() == 0:
        try:
            answer = {"path": str(_claim(config)[0].path.resolve())}
        except UserError as error:
            answer = {"error": str(error)}
        store.set(key, json.dumps(answer))
        store.wait([f"{key}/{rank}" for rank in range(1, world_size())], MEETING_TIMEOUT)
    else:
        answer = json.loads(store.get(key))
        store.set(f"{key}/{process_rank()}", "heard")
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["path"]


def _claim(config: Mapping[str, Any]) -> tuple[RunDirectory, Path | None]:
    experiment_dir = Path(config["paths"]["output_dir"], config["experiment_name"])
    default_name = f"seed{config['seed']}-{config_digest(defining(config))[:6]}"
    name = default_name if config["run_name"] is None else str(config["run_name"])
    if config["resume"] is None:
        run = create_run(experiment_dir, name, exact=config["run_name"] is not None)
        hold(run.path)
        return run, None
    if config["resume"] == "auto":
        # A directory without a config is that of a run which was stopped before it began, or which begins just now.
        found = find_run(experiment_dir, name) or open_folder(experiment_dir / name)
    else:
        found, _ = open_run(Path(config["resume"]))
    if found.config_file.exists():
        check_same_run(found, config)
    hold(found.path)
    if not found.config_file.exists():
        return found, None
    check_same_run(found, config)  # what another process wrote before this one held the directory
    if not Path(config["resume"]).is_file():
        mend_last_checkpoint(found)
    return found, _checkpoint_of(config, found) if found.last_checkpoint.exists() else None


def _checkpoint_of(config: Mapping[str, Any], run: RunDirectory) -> Path:
    named = Path(config["resume"])
    return named if named.is_file() else run.last_checkpoint


def check_same_run(run: RunDirectory, config: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under another config; more iterations are fine.

    Raises:
        UserError: naming the first keys that differ.
    """
    before, now = _flat(defining(run.read_config())), _flat(defining(config))
    differing = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith("trainer.max_")
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"Run {run.path} was made with another config ({'; '.join(differing[:3])}{more}): repeat its options, or "
            "start a new run with resume=null"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix.rstrip("."): value}
    return {key: leaf for name, item in value.items() for key, leaf in _flat(item, f"{prefix}{name}.").items()}
