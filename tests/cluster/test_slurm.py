"""Runs in a real Slurm of two nodes on this machine (tests/cluster/slurm.py): srun, sbatch and arrays of jobs."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.models import read_checkpoint
from tests.cluster.slurm import LocalSlurm, local_slurm, missing_programs, wait_until
from tests.conftest import ROOT, SMALL, run_command
from tests.end_to_end.test_resume import assert_equal

TINY = (
    *SMALL,
    "trainer.accelerator=cpu",
    "callbacks.interpolation=null",
    "callbacks.checkpoint.every_n_iterations=null",
)
SHAPES = {
    "two_nodes": ("--nodes=2", "--ntasks-per-node=1"),
    "two_tasks_of_one_node": ("--nodes=1", "--ntasks-per-node=2"),
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSlurm]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    with local_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        slurm.environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        yield slurm


def state(run: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    return {part: checkpoint[part] for part in ("state_dict", "optimizer_states", "generative_model", "global_step")}


def ddp_of_lightning(folder: Path, *overrides: str) -> Path:
    """The run whose two processes Lightning starts itself."""
    arguments = [*TINY, "trainer=ddp_cpu", *overrides, f"paths.output_dir={folder}", "run_name=undisturbed"]
    result = run_command("train.py", *arguments, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    return folder / "tiny" / "undisturbed"


def test_srun_trains_what_lightnings_own_processes_train(slurm: LocalSlurm, tmp_path: Path) -> None:
    options = ["trainer.max_steps=12", "callbacks.scores.every_n_images=384"]
    expected = ddp_of_lightning(tmp_path, *options)
    for name, shape in SHAPES.items():
        spies = tmp_path / f"spies_{name}"
        spies.mkdir()
        spy = ["+callbacks.spy._target_=tests.spies.RankSpy", f"+callbacks.spy.folder={spies}"]
        overrides = [*TINY, "trainer=slurm", *options, *spy, f"paths.output_dir={tmp_path}", f"run_name={name}"]
        result = slurm.run("srun", *shape, sys.executable, str(ROOT / "train.py"), *overrides, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        first, second = (json.loads((spies / f"rank{rank}.json").read_text()) for rank in range(2))
        assert first["parameters"] == second["parameters"]
        assert not set(first["latents"]) & set(second["latents"])
        run = tmp_path / "tiny" / name
        record = json.loads((run / "result.json").read_text())
        assert record["status"] == "completed"
        assert record["images_seen"] == 12 * 2 * 32
        assert record["hardware"]["processes"] == 2
        assert record["hardware"]["nodes"] == (2 if name == "two_nodes" else 1)
        assert_equal(state(expected), state(run))
        assert (run / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"undisturbed", *SHAPES}


def test_a_mistake_that_only_rank_zero_sees_ends_all_tasks(slurm: LocalSlurm, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "taken").mkdir(parents=True)
    overrides = [*TINY, "trainer=slurm", f"paths.output_dir={tmp_path}", "run_name=taken"]
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    result = slurm.run("srun", *SHAPES["two_nodes"], *command, cwd=tmp_path, timeout=90)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert all("choose another run_name" in line for line in lines)


def test_a_trainer_that_slurm_did_not_start_processes_for_is_refused(slurm: LocalSlurm, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "trainer=ddp_cpu", f"paths.output_dir={tmp_path}"]
    result = slurm.run("srun", "--nodes=1", "--ntasks-per-node=1", *command, cwd=tmp_path, timeout=90)
    assert result.returncode == 2
    assert "Slurm counts 1 tasks and the trainer 2 processes: set trainer=slurm" in result.stderr


def test_a_job_that_runs_out_of_time_goes_on_when_it_is_queued_again(slurm: LocalSlurm, tmp_path: Path) -> None:
    options = ["trainer.max_steps=150", "callbacks.scores.every_n_images=3200"]
    attempts = tmp_path / "attempts"
    slow = ["+callbacks.slow._target_=tests.spies.SlowFirstAttempt", f"+callbacks.slow.file={attempts}"]
    work = make_work_folder(tmp_path)
    submitted = time.monotonic()
    job = slurm.run(
        "sbatch", "--parsable", "--partition=cpu", "--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1",
        "--time=20", "--signal=USR1@90", str(ROOT / "slurm" / "single_node.sh"),
        *(each for each in TINY if each != "trainer=cpu"), *options, *slow, "+callbacks.slow.seconds=1",
        f"paths.output_dir={tmp_path}",
        cwd=work,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    number = job.stdout.strip()
    output = work / f"slurm-{number}.out"

    def finished() -> bool:
        state = slurm.job_field(number, "JobState")
        if state == "PENDING" and slurm.job_field(number, "Restarts") != "0":
            # It would wait for two minutes, and its time would be as short.
            slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now", "TimeLimit=20")
        return state not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")

    expected = ddp_of_lightning(tmp_path, *options)
    wait_until(attempts.exists, "the first attempt", slurm, seconds=240)
    # A limit so near that the signal is due when Slurm looks at the limits next, which it does every 30 s.
    minutes = math.ceil((time.monotonic() - submitted + 80) / 60)
    assert slurm.run("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}").returncode == 0
    wait_until(finished, "the job", slurm, seconds=240)
    assert slurm.job_field(number, "JobState") == "COMPLETED", output.read_text()
    assert slurm.job_field(number, "Restarts") == "1"
    first, second = map(int, attempts.read_text().split())
    assert first == 0
    assert 0 < second < 150
    run = tmp_path / "tiny" / f"slurm-{number}"
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert_equal(state(expected), state(run))
    assert (run / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()


def make_work_folder(folder: Path) -> Path:
    """A folder as a user submits from: ``train.py`` and an environment to activate."""
    work = folder / "work"
    (work / ".venv" / "bin").mkdir(parents=True)
    (work / ".venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    (work / "train.py").symlink_to(ROOT / "train.py")
    return work


def test_submitit_trains_the_runs_of_a_multirun_as_an_array(slurm: LocalSlurm, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'lightning-gen[slurm]'")
    launcher = ["partition=cpu", "gpus_per_node=null", "cpus_per_task=1", "timeout_min=5"]
    result = run_command(
        "train.py", "-m", *SMALL, "launcher=submitit_slurm", *(f"hydra.launcher.{each}" for each in launcher),
        "seed=0,1", "trainer.max_steps=4", f"paths.output_dir={tmp_path}/runs",
        cwd=tmp_path, env=slurm.environment, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    board = run_command("lightning-gen", "leaderboard", str(tmp_path / "runs"), "--json", cwd=tmp_path)
    records = [json.loads(file.read_text()) for file in (tmp_path / "runs" / "tiny").glob("*/result.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert all(record["status"] == "completed" for record in records)
    assert all(record["run_name"] in board.stdout for record in records)
    folders = [path.name for path in (tmp_path / "runs" / ".submitit").iterdir()]
    arrays = {name.split("_")[0] for name in folders if name[0].isdigit()}
    assert len(arrays) == 1
    assert {name.split("_")[1] for name in folders if name[0].isdigit()} == {"0", "1"}
