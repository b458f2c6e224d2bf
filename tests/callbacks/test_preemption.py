"""Runs that are told to stop: what they leave, how they leave, and that they go on as if nothing had been."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_gen.callbacks import preemption
from lightning_gen.callbacks.preemption import Preemption, parse_duration
from lightning_gen.errors import UserError
from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.record import read_record
from tests.end_to_end.test_resume import assert_equal

Train = Callable[..., dict[str, Any]]

ALONE = ("callbacks.samples=null", "callbacks.interpolation=null", "run_name=run", "resume=auto")


def signal_at(iteration: int, name: str, times: int = 1) -> tuple[str, ...]:
    options = {"_target_": "tests.spies.SignalAt", "iteration": iteration, "signal": name, "times": times}
    return tuple(f"+callbacks.spy.{key}={value}" for key, value in options.items())


def stopped(train: Train, *overrides: str) -> int:
    with pytest.raises(SystemExit) as caught:
        train(*ALONE, *overrides)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny" / "run"


def last_checkpoint(tmp_path: Path) -> dict[str, Any]:
    return read_checkpoint(run(tmp_path) / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGUSR2", 75), ("SIGINT", 130)])
def test_a_signal_ends_the_iteration_with_a_checkpoint_and_no_score(
    train_here: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, status: int
) -> None:
    before = [signal.getsignal(number) for number in preemption.SIGNALS]
    assert stopped(train_here, "trainer.max_steps=20", *signal_at(7, name)) == status
    assert [signal.getsignal(number) for number in preemption.SIGNALS] == before
    assert last_checkpoint(tmp_path)["generative_model"]["iteration"] == 8
    record = read_record(run(tmp_path) / "result.json")
    assert (record["status"], record["iterations"], record["scores"]) == ("interrupted", 8, [])
    assert not (run(tmp_path) / "metrics.jsonl").exists()
    assert f"stopped: {name} at iteration 8, checkpoint written\n" in capfd.readouterr().err


def test_a_stopped_run_goes_on_to_the_same_bits(train_here: Train, tmp_path: Path) -> None:
    options = ("trainer.max_steps=20", "callbacks.scores.every_n_images=192")
    train_here(*ALONE, *options, "run_name=whole")
    for iteration in (3, 11):
        assert stopped(train_here, *options, *signal_at(iteration, "SIGTERM")) == 75
    assert train_here(*ALONE, *options)["status"] == "completed"
    whole = run(tmp_path).with_name("whole")
    expected, resumed = read_checkpoint(whole / "checkpoints" / "last.ckpt"), last_checkpoint(tmp_path)
    for part in ("state_dict", "optimizer_states", "generative_model", "global_step"):
        assert_equal(expected[part], resumed[part], part)
    assert (whole / "metrics.jsonl").read_text() == (run(tmp_path) / "metrics.jsonl").read_text()


def test_a_second_interrupt_from_the_keyboard_stops_at_once(train_here: Train, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert stopped(train_here, "trainer.max_steps=20", *signal_at(7, "SIGINT", times=2)) == 1
    assert signal.getsignal(signal.SIGINT) == before
    assert read_record(run(tmp_path) / "result.json")["status"] == "interrupted"
    assert not (run(tmp_path) / "checkpoints" / "last.ckpt").exists()


def test_the_last_iteration_is_never_cut_off(train_here: Train) -> None:
    record = train_here(*ALONE, "trainer.max_steps=8", *signal_at(7, "SIGTERM"))
    assert record["status"] == "completed"
    assert [score["name"] for score in record["scores"]] == ["fd_random", "class_score_random"]


def test_a_signal_before_the_first_iteration_ends_the_run_there(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_stop(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("lightning_gen.callbacks.scores.Scores.on_fit_start", told_to_stop)
    assert stopped(train_here, "trainer.max_steps=8") == 75
    assert read_record(run(tmp_path) / "result.json")["status"] == "interrupted"


def test_a_run_stops_while_its_longest_iteration_still_fits_into_its_time(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(preemption, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    # The clock is read once when the callback is made, once as training starts and once an iteration, so iteration n
    # ends 10 + 10 n seconds after the start and takes 10. The tenth would end at 110.
    assert stopped(train_here, "trainer.max_steps=50", "callbacks.preemption.max_time='00:01:40'") == 75
    assert last_checkpoint(tmp_path)["generative_model"]["iteration"] == 9
    assert "callbacks.preemption.max_time (100 s) is up at iteration 9" in capfd.readouterr().err
    # The time is that of a process: the next one has all of it again.
    assert stopped(train_here, "trainer.max_steps=50", "callbacks.preemption.max_time='00:01:40'") == 75
    assert last_checkpoint(tmp_path)["generative_model"]["iteration"] == 18


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:30", 30), ("01:30:05", 5405), ("100:00:00", 360000), ("2-03:00:00", 183600), (90, 90), ("1.5", 1.5)],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:2:3", "00:00:00", -5, "nan", "12:30"])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(UserError, match=r"callbacks\.preemption\.max_time"):
        parse_duration(text)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Slurm's command, which knows a running job; returns the file that other questions go to."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    (folder / "job").write_text("JobState=RUNNING Reason=None Dependency=(null)\n")
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\nif [ "$1" = show ]; then cat {folder}/job; exit; fi\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    calls.touch()
    return calls


def test_a_slurm_job_is_requeued_once_everything_is_written(
    train_here: Train, tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "scontrol"
    program.write_text(program.read_text() + f"cp {run(tmp_path)}/result.json {tmp_path}/then.json\n")
    assert stopped(train_here, "trainer.max_steps=20", *signal_at(3, "SIGUSR1")) == 75
    assert scontrol.read_text() == "requeue 123\n"
    then = read_record(tmp_path / "then.json")
    assert (then["status"], then["iterations"]) == ("interrupted", 4)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "123")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert stopped(train_here, "trainer.max_steps=20", *signal_at(9, "SIGTERM")) == 75
    assert scontrol.read_text() == "requeue 123\nrequeue 123_7\n"
    assert train_here(*ALONE, "trainer.max_steps=20")["iterations"] == 20
    assert [path.name for path in run(tmp_path).parent.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("callbacks.preemption.requeue=false",), "SIGTERM"),
        (("resume=null",), "SIGTERM"),
        ((), "SIGINT"),
    ],
)
def test_a_job_is_not_requeued(
    train_here: Train, scontrol: Path, capfd: pytest.CaptureFixture[str], overrides: tuple[str, ...], name: str
) -> None:
    stopped(train_here, "trainer.max_steps=20", *signal_at(3, name), *overrides)
    assert scontrol.read_text() == ""
    assert ("not requeued" in capfd.readouterr().err) == ("resume=null" in overrides)


@pytest.mark.parametrize(
    ("job", "requeued"),
    [
        ("JobState=COMPLETING Reason=None", False),
        ("JobState=CANCELLED Reason=None", False),
        ("JobState=COMPLETING Reason=TimeLimit", True),
        ("JobState=COMPLETING Reason=None PreemptEligibleTime=1 PreemptTime=2026-11-01T00:00:00", True),
        ("JobState=RUNNING Reason=None PreemptEligibleTime=1 PreemptTime=None", True),
    ],
)
def test_a_job_that_was_cancelled_stays_so(tmp_path: Path, scontrol: Path, job: str, requeued: bool) -> None:
    (tmp_path / "bin" / "job").write_text(f"JobId=123 JobName=a\n   {job} Dependency=(null)\n")
    line = preemption.requeue("123")
    assert scontrol.read_text() == ("requeue 123\n" if requeued else "")
    left = "was cancelled or requeued by others, so it is left as it is"
    assert line == f"Slurm job 123 {'is requeued' if requeued else left}"


def test_a_requeue_that_fails_is_told(
    train_here: Train, tmp_path: Path, scontrol: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Requeue is disabled' >&2\nexit 1\n")
    assert stopped(train_here, "trainer.max_steps=20", *signal_at(3, "SIGTERM")) == 75
    assert "Slurm job 123 could not be requeued (Requeue is disabled)" in capfd.readouterr().err


def test_without_checkpoints_it_says_so(train_here: Train, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("trainer.max_steps=20", "callbacks.checkpoint=null", *signal_at(3, "SIGTERM"))
    assert stopped(train_here, *options) == 75
    assert "no checkpoint (callbacks.checkpoint=null)" in capfd.readouterr().err


def test_processes_agree_about_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for two processes: this one and one that answers the same."""
    seconds_per_iteration = 0.01
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(preemption, "time", SimpleNamespace(monotonic=lambda: clock.now))
    votes = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, op: votes.append(clock.now))
    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device="cpu"))
    callback = Preemption()
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    for _ in range(1000):
        clock.now += seconds_per_iteration
        callback._agree(trainer)
    between = [second - first for first, second in itertools.pairwise(votes[6:])]
    assert between == pytest.approx([0.2] * len(between), abs=0.02)
    assert 45 < len(votes) < 65
    for _ in range(100):  # iterations that are suddenly slow: a signal waits for few of them
        clock.now += 30
        callback._agree(trainer)
    assert len(votes) > 65 + 50
