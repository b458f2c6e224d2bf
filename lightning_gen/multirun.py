"""Several runs of one command (``-m``): which launchers there are, and what cannot be combined."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch import distributed

from lightning_gen.errors import UserError
from lightning_gen.tracking.processes import started_by_srun, started_by_torchrun
from lightning_gen.tracking.run_claim import RUN_VARIABLE

LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}
"""Options of ``configs/launcher``: Hydra's plugin that each needs, and the extra that installs it."""

PROCESS_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", RUN_VARIABLE)
"""What a run with several processes leaves in the environment and the next one must not find."""


def check_launcher(overrides: Sequence[str], multirun: bool) -> None:
    """Refuse a launcher whose plugin is not installed, and one of a single run.

    Args:
        overrides: the command line's ``key=value``.
        multirun: whether ``-m`` is on it.

    Raises:
        UserError: naming the extra, or ``-m``.
    """
    chosen = [override.split("=", 1)[1] for override in overrides if override.startswith("launcher=")]
    launcher = chosen[-1] if chosen else "null"
    if launcher not in LAUNCHERS:
        return
    if not multirun:
        raise UserError(f"launcher={launcher} starts the runs of a multirun: add -m")
    plugin, extra = LAUNCHERS[launcher]
    if not _installed(plugin):
        raise UserError(f"launcher={launcher} needs a plugin of Hydra: pip install 'lightning-gen[{extra}]'")


def check_multirun(config: Mapping[str, Any]) -> None:
    """Refuse, within a multirun, several processes that would not train one run together.

    Args:
        config: the resolved config of one of its runs.

    Raises:
        UserError: the sweeper draws parameters, or the launcher's processes cannot be repeated.
    """
    hydra = HydraConfig.get()
    trainer = config["trainer"]
    several = str(trainer["strategy"]).startswith("ddp") and (trainer["devices"], trainer["num_nodes"]) != (1, 1)
    launcher, sweeper = (str(each["_target_"]) for each in (hydra.launcher, hydra.sweeper))
    if hydra.mode != RunMode.MULTIRUN or not several or launcher.endswith(".SlurmLauncher"):
        return
    if not sweeper.startswith("hydra._internal."):
        raise UserError(
            f"The sweeper {sweeper.rpartition('.')[2]} would draw other parameters in every process of a run: sweep "
            "runs of one process (trainer=gpu or cpu), or set launcher=submitit_slurm"
        )
    if not launcher.startswith("hydra._internal."):
        raise UserError(
            f"Lightning cannot start a run's processes under {launcher.rpartition('.')[2]}: use runs of one process "
            "(trainer=gpu or cpu), launcher=submitit_slurm with trainer=slurm, or no launcher"
        )


@contextmanager
def one_of_many() -> Iterator[None]:
    """Within the context this process's command line is that of one run of the multirun; nothing where there is none.

    Lightning starts the other processes of a run by repeating the command line: that of the multirun would run all of
    it again. Afterwards the environment is as before, so that the next run starts processes of its own.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or started_by_torchrun() or started_by_srun():
        yield
        return
    arguments, variables = sys.argv, {name: os.environ.get(name) for name in PROCESS_VARIABLES}
    sys.argv = [arguments[0], *(each for each in hydra.overrides.task if not each.startswith("launcher="))]
    try:
        yield
    finally:
        sys.argv = arguments
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _installed(plugin: str) -> bool:
    try:
        return importlib.util.find_spec(plugin) is not None
    except ModuleNotFoundError:
        return False
