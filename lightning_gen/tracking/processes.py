"""How the processes of a run came to be: by Lightning, by torchrun or by Slurm's srun, and where they meet."""

from __future__ import annotations

import os
from datetime import timedelta

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed

from lightning_gen.errors import UserError

MEETING_TIMEOUT = timedelta(seconds=300)
"""How long the processes that srun started wait for each other before the run is claimed."""

INTERACTIVE_JOB_NAMES = ("bash", "interactive")
"""Names of Slurm jobs in which a person types commands, so that Lightning starts the processes there itself."""


def process_rank() -> int:
    """This process's rank over all nodes, known before any process group is."""
    return int(getattr(rank_zero_only, "rank", 0))


def started_by_torchrun() -> bool:
    """Whether torchrun started this process beside others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def slurm_tasks() -> int | None:
    """Number of tasks of the Slurm job or step that this process is one of; None where Lightning sees no such job."""
    if "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("SLURM_JOB_NAME") in INTERACTIVE_JOB_NAMES:
        return None
    tasks = os.environ.get("SLURM_NTASKS")
    return None if tasks is None else int(tasks)


def started_by_srun() -> bool:
    """Whether srun started this process beside others."""
    return (slurm_tasks() or 1) > 1


def slurm_environment() -> SLURMEnvironment | None:
    """What Lightning has to know in a Slurm job; None elsewhere.

    Lightning's own requeueing is off: it saves inside the signal handler, so possibly between two optimizer steps.
    """
    return None if slurm_tasks() is None else SLURMEnvironment(auto_requeue=False)


def check_srun() -> None:
    """Refuse one process where Slurm was asked for several.

    Raises:
        UserError: it would wait for ones that never come.
    """
    if started_by_srun() and "SLURM_STEP_ID" not in os.environ:
        raise UserError(
            f"This Slurm job has {slurm_tasks()} tasks and this process was not started by srun: srun python train.py"
        )


def check_slurm(processes: int) -> None:
    """Refuse a trainer that counts other processes than Slurm started.

    Args:
        processes: devices of all nodes, as the trainer counts them.

    Raises:
        UserError: the processes would wait for ones that never come, or train apart from each other.
    """
    tasks = slurm_tasks()
    if tasks not in (None, processes):
        raise UserError(
            f"Slurm counts {tasks} tasks and the trainer {processes} processes: set trainer=slurm, and "
            "--ntasks-per-node to the number of GPUs of a node"
        )


def meeting_store() -> distributed.TCPStore:  # type: ignore[name-defined]
    """A key-value store that all processes of the run reach before there is a process group.

    torchrun has one. For srun, rank zero opens one on the address that Lightning will use, at another port: the port
    itself is left to the process group.

    Raises:
        UserError: the others did not come, or the port is taken.
    """
    if started_by_torchrun():
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return distributed.TCPStore(address, port, is_master=False)  # type: ignore[attr-defined]
    environment = SLURMEnvironment(auto_requeue=False)
    address, port = environment.main_address, _meeting_port(environment.main_port)
    try:
        return distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=process_rank() == 0, timeout=MEETING_TIMEOUT, wait_for_workers=False
        )
    except RuntimeError as error:
        raise UserError(
            f"The processes of this Slurm step do not meet at {address}:{port}: set MASTER_ADDR to the first node and "
            "MASTER_PORT to a free port of it"
        ) from error


def world_size() -> int:
    """Number of processes that torchrun or srun started."""
    return int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else slurm_tasks() or 1


def _meeting_port(port: int) -> int:
    # Lightning takes 15000 to 24999, by the job's number; this stays below the ports that systems hand out at random.
    return port + 7000 if port < 50000 else port - 7000
