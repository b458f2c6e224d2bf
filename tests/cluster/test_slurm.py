"""Runs in a real Slurm of two nodes on this machine (tests/cluster/slurm.py): srun, sbatch and arrays of jobs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_gen.models import read_checkpoint
from tests.cluster.slurm import LocalSlurm, local_slurm, missing_programs, wait_until
from tests.conftest import ROOT, SMALL, command_line, run_command
from tests.end_to_end.test_resume import assert_equal

TINY = (
    *SMALL,
    "trainer.accelerator=cpu",
    "callbacks.interpolation=null",
    "callbacks.checkpoint.every_n_iterations=null",
)
STEPS = 40
OPTIONS = (*TINY, f"trainer.max_steps={STEPS}", "callbacks.scores.every_n_images=1280")
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


@pytest.fixture(scope="module")
def undisturbed(slurm: LocalSlurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose two processes Lightning starts itself, without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    arguments = [*OPTIONS, "trainer=ddp_cpu", f"paths.output_dir={folder}", "run_name=undisturbed"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = run_command("train.py", *arguments, cwd=folder, env=environment)
    assert result.returncode == 0, result.stderr
    return folder / "tiny" / "undisturbed"


def assert_same_end(run: Path, expected: Path) -> None:
    first, second = (read_checkpoint(each / "checkpoints" / "last.ckpt") for each in (expected, run))
    for part in ("state_dict", "optimizer_states", "generative_model", "global_step"):
        assert_equal(first[part], second[part], part)
    assert (run / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()


def slow_first_attempt(file: Path | str, seconds: float) -> str:
    return f"+callbacks.slow={{_target_:tests.spies.SlowFirstAttempt,file:{file},seconds:{seconds}}}"


def start_at_once(slurm: LocalSlurm, job: str) -> None:
    """Let a job that was queued again not wait for the two minutes that Slurm makes it wait."""
    if slurm.job_field(job, "JobState") == "PENDING" and slurm.job_field(job, "Restarts") != "0":
        slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=20")


def has_ended(slurm: LocalSlurm, job: str) -> bool:
    """Whether a job is in a state that it does not leave; ``SIGNALING``, ``REQUEUED`` and others pass."""
    ends = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
    return slurm.job_field(job, "JobState") in ends


def make_work_folder(folder: Path) -> Path:
    """A folder as a user submits from: ``train.py`` and an environment to activate."""
    work = folder / "work"
    (work / ".venv" / "bin").mkdir(parents=True)
    (work / ".venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    (work / "train.py").symlink_to(ROOT / "train.py")
    return work


@pytest.mark.parametrize("name", SHAPES)
def test_srun_trains_what_lightnings_own_processes_train(
    slurm: LocalSlurm, undisturbed: Path, tmp_path: Path, name: str
) -> None:
    spy = ["+callbacks.spy._target_=tests.spies.RankSpy", f"+callbacks.spy.folder={tmp_path}"]
    overrides = [*OPTIONS, "trainer=slurm", *spy, f"paths.output_dir={tmp_path}/runs", f"run_name={name}"]
    result = slurm.run("srun", *SHAPES[name], sys.executable, str(ROOT / "train.py"), *overrides, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["parameters"] == second["parameters"]
    assert not set(first["latents"]) & set(second["latents"])
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    record = json.loads((run / "result.json").read_text())
    assert (record["run_name"], record["status"], record["images_seen"]) == (name, "completed", STEPS * 2 * 32)
    assert record["hardware"]["processes"] == 2
    assert record["hardware"]["nodes"] == (2 if name == "two_nodes" else 1)
    assert_same_end(run, undisturbed)


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


def test_a_job_that_runs_out_of_time_goes_on_when_it_is_queued_again(
    slurm: LocalSlurm, undisturbed: Path, tmp_path: Path
) -> None:
    attempts = tmp_path / "attempts"
    work = make_work_folder(tmp_path)
    submitted = time.monotonic()
    job = slurm.run(
        "sbatch", "--parsable", "--partition=cpu", "--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1",
        "--time=20", "--signal=USR1@90", str(ROOT / "slurm" / "single_node.sh"),
        *(each for each in OPTIONS if each != "trainer=cpu"), slow_first_attempt(attempts, 2),
        f"paths.output_dir={tmp_path}",
        cwd=work,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    number = job.stdout.strip()
    output = work / f"slurm-{number}.out"

    def finished() -> bool:
        start_at_once(slurm, number)
        return has_ended(slurm, number)

    wait_until(attempts.exists, "the first attempt", slurm, seconds=240)
    # A limit so near that the signal is due when Slurm looks at the limits next, which it does every 30 s.
    minutes = math.ceil((time.monotonic() - submitted + 45) / 60)
    assert slurm.run("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}").returncode == 0
    wait_until(finished, "the job", slurm, seconds=240)
    assert slurm.job_field(number, "JobState") == "COMPLETED", output.read_text()
    assert slurm.job_field(number, "Restarts") == "1"
    first, second = map(int, attempts.read_text().split())
    assert first == 0
    assert 0 < second < STEPS
    assert "stopped: SIGUSR1 at iteration" in output.read_text()
    run = tmp_path / "tiny" / f"slurm-{number}"
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert_same_end(run, undisturbed)


def test_a_job_that_is_cancelled_keeps_its_checkpoint_and_is_not_queued_again(
    slurm: LocalSlurm, tmp_path: Path
) -> None:
    attempts = tmp_path / "attempts"
    work = make_work_folder(tmp_path)
    job = slurm.run(
        "sbatch", "--parsable", "--partition=cpu", "--gpus-per-node=0", "--ntasks-per-node=1", "--cpus-per-task=1",
        str(ROOT / "slurm" / "single_node.sh"), *(each for each in OPTIONS if each != "trainer=cpu"),
        slow_first_attempt(attempts, 0.5), f"paths.output_dir={tmp_path}",
        cwd=work,
    )  # fmt: skip
    number = job.stdout.strip()
    wait_until(attempts.exists, "the job", slurm, seconds=120)
    assert slurm.run("scancel", number).returncode == 0
    wait_until(lambda: has_ended(slurm, number), "the end of the job", slurm)
    assert slurm.job_field(number, "JobState") == "CANCELLED"
    assert slurm.job_field(number, "Restarts") == "0"
    run = tmp_path / "tiny" / f"slurm-{number}"
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"
    assert 0 < read_checkpoint(run / "checkpoints" / "last.ckpt")["generative_model"]["iteration"] < STEPS


def test_submitit_trains_an_array_and_a_trial_that_is_told_to_stop_goes_on(slurm: LocalSlurm, tmp_path: Path) -> None:
    """SIGUSR2 is what submitit has Slurm send before a time limit or a preemption."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'lightning-gen[slurm]'")
    launcher = ["partition=cpu", "gpus_per_node=null", "cpus_per_task=1", "timeout_min=20"]
    command = command_line(
        "train.py", "-m", *OPTIONS, "metrics=digits", "launcher=submitit_slurm",
        *(f"hydra.launcher.{each}" for each in launcher), "seed=0,1",
        slow_first_attempt(f"{tmp_path}/attempts_${{seed}}", 0.5), f"paths.output_dir={tmp_path}/runs",
    )  # fmt: skip
    multirun = subprocess.Popen(command, cwd=tmp_path, env=slurm.environment, stderr=subprocess.PIPE, text=True)

    def finished() -> bool:
        start_at_once(slurm, f"{array}_0")
        return multirun.poll() is not None

    try:
        wait_until((tmp_path / "attempts_0").exists, "the first trial", slurm, seconds=120)
        folders = [path.name.split("_") for path in (tmp_path / "runs" / ".submitit").glob("[0-9]*_*")]
        (array,) = {folder[0] for folder in folders}
        assert {folder[1] for folder in folders} == {"0", "1"}
        assert slurm.run("scancel", "--signal=USR2", f"{array}_0").returncode == 0
        wait_until(finished, "both trials", slurm, seconds=400)
    finally:
        multirun.kill()
        _, stderr = multirun.communicate()
    assert multirun.returncode == 0, stderr
    assert [slurm.job_field(f"{array}_{trial}", "Restarts") for trial in range(2)] == ["1", "0"]
    first, second = map(int, (tmp_path / "attempts_0").read_text().split())
    assert first == 0
    assert 0 < second < STEPS
    assert (tmp_path / "attempts_1").read_text() == "0\n"
    board = run_command("lightning-gen", "leaderboard", str(tmp_path / "runs"), "--json", cwd=tmp_path)
    (entry,) = json.loads(board.stdout)["boards"][0]["entries"]
    assert (entry["status"], [run["seed"] for run in entry["runs"]]) == ("completed", [0, 1])
    assert [run["images_seen"] for run in entry["runs"]] == [STEPS * 32] * 2
