"""Full, read-only and vanished disks, clocks that go backwards, two runs of one name: one line, nothing overwritten."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_gen.callbacks.checkpoints import WholeFiles
from lightning_gen.errors import UserError
from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.last_checkpoint import damage
from lightning_gen.tracking.record import read_record
from tests.conftest import ROOT, SMALL, command_line, run_command
from tests.end_to_end.test_resume import assert_equal
from tests.faults import check_no_torn_file, make_images

Train = Callable[..., dict[str, Any]]

QUIET = ("callbacks.samples=null", "callbacks.interpolation=null", "run_name=run", "resume=auto")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def arguments(output: Path, *overrides: str) -> list[str]:
    periods = ("trainer.max_steps=30", "callbacks.checkpoint.every_n_iterations=5")
    return ["train.py", *SMALL, *QUIET, *periods, f"paths.output_dir={output}", *overrides]


def spy(name: str, **options: object) -> list[str]:
    values = {key: f'"{value}"' if isinstance(value, str) else value for key, value in options.items()}
    return [f"+callbacks.spy._target_=tests.spies.{name}", *(f"+callbacks.spy.{k}={v}" for k, v in values.items())]


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a run which could not go on ends with."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def checkpoints(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints").glob("*.ckpt")}


def assert_same_ends(first: Path, second: Path) -> None:
    states = [read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (first, second)]
    for part in ("state_dict", "optimizer_states", "generative_model", "global_step"):
        assert_equal(states[0][part], states[1][part], part)
    assert (first / "metrics.jsonl").read_text() == (second / "metrics.jsonl").read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_the_one_before(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    options = (*QUIET, "trainer.max_steps=20", "callbacks.checkpoint.every_n_iterations=5")
    train_here(*options, "run_name=whole")
    original = WholeFiles.save_checkpoint

    def fail(self: WholeFiles, checkpoint: dict[str, Any], path: Path, storage_options: Any = None) -> None:
        if checkpoint["global_step"] > 10:
            path.write_bytes(b"a part")
            raise OSError(number, os.strerror(number))
        original(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeFiles, "save_checkpoint", fail)
    run = tmp_path / "runs" / "tiny" / "run"
    with pytest.raises(UserError) as caught:
        train_here(*options)
    assert str(caught.value) == (
        f"{os.strerror(number)}: {run}: training stopped; the last good checkpoint is {run}/checkpoints/last.ckpt; "
        "mend that and go on with resume=auto"
    )
    assert sorted(checkpoints(run)) == ["iteration_00000005.ckpt", "iteration_00000010.ckpt", "last.ckpt"]
    assert not list(run.rglob("*.tmp"))
    assert damage(run / "checkpoints" / "last.ckpt") is None
    monkeypatch.undo()
    monkeypatch.setenv("LIGHTNING_GEN_OUTPUT_DIR", str(tmp_path / "runs"))
    train_here(*options)
    assert_same_ends(run.with_name("whole"), run)


def test_a_file_size_limit_stops_a_run_as_a_full_disk_does(tmp_path: Path) -> None:
    """The limit is the system's own, so every writer meets it where it writes."""
    run = tmp_path / "tiny" / "run"
    options = arguments(tmp_path)
    assert run_command(*options, "trainer.max_steps=7", cwd=tmp_path).returncode == 0
    before = checkpoints(run)
    limit = len(before["last.ckpt"]) // 2
    result = run_command(
        *options,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    line = error_of(result)
    assert "File too large" in line
    assert f"the last good checkpoint is {run}/checkpoints/last.ckpt" in line
    assert checkpoints(run) == before
    check_no_torn_file(tmp_path)
    assert run_command(*options, cwd=tmp_path).returncode == 0
    assert read_record(run / "result.json")["iterations"] == 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_and_more_room_later(disk: Path, tmp_path: Path) -> None:
    options = arguments(disk, "callbacks.checkpoint.keep=null", "trainer.max_steps=60")
    line = error_of(run_command(*options, cwd=tmp_path))
    assert "No space left on device" in line
    run = disk / "tiny" / "run"
    check_no_torn_file(disk)
    stopped_at = read_checkpoint(run / "checkpoints" / "last.ckpt")["generative_model"]["iteration"]
    assert 0 < stopped_at < 60
    assert "No space left on device" in error_of(run_command(*options, cwd=tmp_path))
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    result = run_command(*options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run_command(*arguments(tmp_path, "trainer.max_steps=60"), cwd=tmp_path).returncode == 0
    assert_same_ends(tmp_path / "tiny" / "run", run)


def test_a_disk_that_becomes_read_only(disk: Path, tmp_path: Path) -> None:
    remount = spy("CommandAt", iteration=12, command=f"mount -o remount,ro {disk}")
    line = error_of(run_command(*arguments(disk), *remount, cwd=tmp_path, env=ENVIRONMENT))
    assert "Read-only file system" in line
    run = disk / "tiny" / "run"
    before = checkpoints(run)
    assert "iteration_00000010.ckpt" in before
    line = error_of(run_command(*arguments(disk), cwd=tmp_path))
    assert line == f"error: Cannot write to {run} (Read-only file system): make it writable"
    line = error_of(run_command(*arguments(disk, "run_name=other"), cwd=tmp_path))
    assert "set paths.output_dir to a folder that you may write" in line
    assert checkpoints(run) == before
    check_no_torn_file(disk)


def test_a_run_directory_that_vanishes(tmp_path: Path) -> None:
    run = tmp_path / "tiny" / "run"
    remove = spy("CommandAt", iteration=12, command=f"mv {run} {tmp_path}/away")
    line = error_of(run_command(*arguments(tmp_path), *remove, cwd=tmp_path, env=ENVIRONMENT))
    assert "No such file or directory" in line
    assert str(run) in line
    check_no_torn_file(tmp_path)
    (tmp_path / "away").rename(run)
    assert run_command(*arguments(tmp_path), cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_data_directory_that_vanishes_and_comes_back(tmp_path: Path, on_error: str) -> None:
    images, away = tmp_path / "images", tmp_path / "away"
    make_images(images)
    data = ["data=image_folder", f"data.path={images}", "data.image_size=32", "data.batch_size=8"]
    data += ["data.test_share=0.2", "data.residency=stream", "data.num_workers=1", f"data.on_error={on_error}"]
    options = [*arguments(tmp_path), *data, "metrics.num_samples=32"]
    remove = spy("CommandAt", iteration=12, command=f"mv {images} {away}")
    line = error_of(run_command(*options, *remove, cwd=tmp_path, env=ENVIRONMENT))
    assert line == f"error: {images} is gone: bring the images back, and go on with resume=auto"
    away.rename(images)
    result = run_command(*options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert run_command(*options, "run_name=whole", cwd=tmp_path).returncode == 0
    assert_same_ends(tmp_path / "tiny" / "whole", tmp_path / "tiny" / "run")


def test_a_clock_that_goes_backwards_changes_nothing(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*QUIET, "trainer.max_steps=20", "callbacks.scores.every_n_images=160")
    options = (*options, "callbacks.checkpoint.every_n_iterations=5", "callbacks.stall.timeout=30")
    train_here(*options, "run_name=whole")
    begin = time.time()
    backwards = itertools.count(begin, -3600)
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(backwards) * 1e9))
    train_here(*options, "trainer.max_steps=13", "callbacks.preemption.max_time=3600")
    record = train_here(*options)
    assert next(backwards) < begin - 3600  # it was asked
    assert record["status"] == "completed"
    assert record["train_seconds"] > 0
    assert_same_ends(tmp_path / "runs" / "tiny" / "whole", tmp_path / "runs" / "tiny" / "run")


def test_two_runs_of_one_name_at_once(tmp_path: Path) -> None:
    reached, go_on = tmp_path / "reached", tmp_path / "go_on"
    options = arguments(tmp_path)
    wait = spy("WaitAt", iteration=12, reached=reached, go_on=go_on)
    first = subprocess.Popen(command_line(*options, *wait), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        while not reached.exists():
            assert first.poll() is None
            time.sleep(0.05)
        run = tmp_path / "tiny" / "run"
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        line = error_of(run_command(*options, cwd=tmp_path))
        assert line.startswith(f"error: Run {run} is in use by process {first.pid} on ")
        line = error_of(run_command(*options, f"resume={run}", cwd=tmp_path))
        assert "is in use by" in line
        line = error_of(run_command(*options, "resume=null", cwd=tmp_path))
        assert line.startswith(f"error: Run {run} exists")
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    finally:
        go_on.touch()
        assert first.wait(timeout=60) == 0
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["run"]
    assert run_command(*options, "run_name=whole", cwd=tmp_path).returncode == 0
    assert_same_ends(tmp_path / "tiny" / "whole", run)


def test_two_runs_of_one_name_that_start_together(tmp_path: Path) -> None:
    command = command_line(*arguments(tmp_path))
    both = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    # One of them trains. The other is told, or comes so late that it finds a finished run and leaves it.
    assert 0 in codes, errors
    for code, error in zip(codes, errors, strict=True):
        assert code == 0 or (code == 2 and "is in use by" in error.splitlines()[-1]), error
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["run"]
    assert read_record(tmp_path / "tiny" / "run" / "result.json")["iterations"] == 30
