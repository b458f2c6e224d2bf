"""Trainers that this machine, this Slurm job or manual optimization cannot serve."""

from __future__ import annotations

import pytest

from lightning_gen.configuration import compose_config
from lightning_gen.errors import UserError
from lightning_gen.tracking.processes import slurm_environment, slurm_tasks
from lightning_gen.training import check_trainer

RANKS = ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID")
SLURM = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_JOB_NAME", "SLURM_STEP_ID", "SLURM_JOB_ID")


def check(*overrides: str) -> None:
    config = compose_config([*overrides, "trainer.accelerator=cpu"])
    check_trainer(config["trainer"], config["model"])


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in (*SLURM, *RANKS, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def set_step(job: pytest.MonkeyPatch, nodes: int, tasks_per_node: int) -> None:
    values = (nodes * tasks_per_node, tasks_per_node, nodes, "run", 0, 12)
    for variable, value in zip(SLURM, values, strict=True):
        job.setenv(variable, str(value))
    for variable in RANKS:
        job.setenv(variable, "0")


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "model_parallel"])
def test_strategies_that_shard_are_refused(strategy: str) -> None:
    with pytest.raises(UserError, match=f"{strategy} shards networks, .*: set trainer=ddp"):
        check(f"trainer.strategy={strategy}")


def test_nodes_and_tasks_of_the_slurm_trainer_are_those_of_the_step(job: pytest.MonkeyPatch) -> None:
    set_step(job, 4, 2)
    config = compose_config(["trainer=slurm"])["trainer"]
    assert (config["num_nodes"], config["devices"]) == (4, 2)
    check("trainer=slurm")


def test_a_trainer_that_counts_otherwise_than_slurm_is_refused(job: pytest.MonkeyPatch) -> None:
    set_step(job, 2, 1)
    with pytest.raises(UserError, match="Slurm counts 2 tasks and the trainer 1 processes: set trainer=slurm"):
        check("trainer=cpu")
    set_step(job, 1, 1)
    with pytest.raises(UserError, match="Slurm counts 1 tasks and the trainer 2 processes: set trainer=slurm"):
        check("trainer=ddp_cpu")
    check("trainer=cpu")


def test_a_job_of_several_tasks_needs_srun(job: pytest.MonkeyPatch) -> None:
    set_step(job, 1, 2)
    job.delenv("SLURM_STEP_ID")
    with pytest.raises(UserError, match=r"was not started by srun: srun python train\.py"):
        check("trainer=slurm")


def test_lightnings_own_requeueing_is_off(job: pytest.MonkeyPatch) -> None:
    assert slurm_environment() is None
    set_step(job, 1, 1)
    environment = slurm_environment()
    assert environment is not None
    assert environment.auto_requeue is False


def test_slurm_is_not_asked_where_lightning_or_torchrun_start_the_processes(job: pytest.MonkeyPatch) -> None:
    set_step(job, 1, 2)
    job.setenv("SLURM_JOB_NAME", "interactive")
    assert slurm_tasks() is None
    job.setenv("SLURM_JOB_NAME", "run")
    assert slurm_tasks() == 2
    job.setenv("TORCHELASTIC_RUN_ID", "1")
    assert slurm_tasks() is None
