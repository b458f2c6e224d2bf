"""``lightning-gen sweep`` with a program that only pretends to train: searches, failures, early stops, kills."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_gen.sweeps.folder import SweepFolder
from tests.conftest import ROOT, command_line

PROGRAM = Path(__file__).with_name("fake_training.py")
COMMAND = ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
X = {"x": {"min": 0.0, "max": 6.0}}


class Sweeps:
    """Starts sweeps in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.storage = folder / "storage"

    def write(self, **changes: Any) -> None:
        """The sweep file: a random search for x in [0, 6] by fd_fake, changed."""
        file = {
            "program": str(PROGRAM),
            "method": "random",
            "metric": {"name": "score/fd_fake"},
            "parameters": X,
            "command": COMMAND,
            **changes,
        }
        (self.folder / "fake.yaml").write_text(yaml.safe_dump(file, sort_keys=False))

    def start(self, *options: str, overrides: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        arguments = ["fake.yaml", "--storage", "storage", "--json", *options, "--", f"ledger={self.ledger}", *overrides]
        return subprocess.Popen(
            command_line("lightning-gen", "sweep", *arguments),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
        """The summary of a sweep that ends well."""
        process = self.start(*options, overrides=overrides)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        summary: dict[str, Any] = json.loads(output)
        return summary

    def refused(self, *options: str, overrides: tuple[str, ...] = ()) -> str:
        """The line that a sweep ends with."""
        process = self.start(*options, overrides=overrides)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2, errors
        assert "Traceback" not in errors
        return errors.splitlines()[-1]

    def noted(self, word: str) -> list[tuple[str, int, dict[str, Any]]]:
        """What the runs have put down: run name, process, parameters."""
        if not self.ledger.exists():
            return []
        lines = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        return [(name, process, values) for kind, name, process, values in lines if kind == word]

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)

    def names(self, word: str) -> Counter[str]:
        return Counter(name for name, _, _ in self.noted(word))


@pytest.fixture
def sweeps(tmp_path: Path) -> Sweeps:
    return Sweeps(tmp_path)


def children(process: int) -> list[int]:
    """Processes that a process has started and that still live."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def test_every_trial_is_one_run_on_the_leaderboard(sweeps: Sweeps) -> None:
    sweeps.write()
    summary = sweeps.run("--trials", "5", "--workers", "2", "--output-dir", "here")
    assert summary["counts"]["completed"] == 5
    assert set(sweeps.names("end").values()) == {1}
    by_run = {name: float(values["x"]) for name, _, values in sweeps.noted("end")}
    assert len(set(by_run.values())) == 5
    for trial in summary["trials"]:
        name = Path(trial["runs"]["run"]).name
        assert trial["values"] == {"x": by_run[name]}
        assert trial["score"] == pytest.approx((by_run[name] - 3) ** 2)
    best = min(summary["trials"], key=lambda trial: trial["score"])
    assert summary["best"] == best["number"] == summary["ranking"][0]
    board = subprocess.run(
        command_line("lightning-gen", "leaderboard", "here", "--json"),
        cwd=sweeps.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    entries = json.loads(board.stdout)["boards"][0]["entries"]
    assert {run["run"] for entry in entries for run in entry["runs"]} == {f"fake/{name}" for name in by_run}


def test_a_search_draws_the_same_for_the_same_seed_and_number(tmp_path: Path) -> None:
    drawn = []
    for folder, workers, seed in (("a", "1", "0"), ("b", "2", "0"), ("c", "1", "1")):
        (tmp_path / folder).mkdir()
        sweeps = Sweeps(tmp_path / folder)
        sweeps.write()
        summary = sweeps.run("--trials", "3", "--workers", workers, "--search-seed", seed)
        drawn.append([trial["values"]["x"] for trial in summary["trials"]])
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_a_grid_runs_every_combination_once_over_restarts(sweeps: Sweeps) -> None:
    sweeps.write(method="grid", parameters={"x": {"values": [1, 2, 3]}, "y": {"values": [0.5, 1.5]}})
    assert sweeps.run("--trials", "2")["counts"]["completed"] == 2
    assert sweeps.run("--workers", "2")["counts"]["completed"] == 6
    assert sweeps.run()["counts"]["completed"] == 6
    points = Counter((values["x"], values["y"]) for _, _, values in sweeps.noted("end"))
    assert points == Counter((x, y) for x in "123" for y in ("0.5", "1.5"))


def test_bayes_comes_closer_than_its_random_beginning(sweeps: Sweeps) -> None:
    sweeps.write(method="bayes", parameters={**X, "y": {"min": 0.0, "max": 5.0}})
    trials = sweeps.run("--trials", "16")["trials"]
    scores = [trial["score"] for trial in trials]
    assert statistics.median(scores[8:]) < statistics.median(scores[:8])


def test_nested_and_conditional_parameters_reach_the_runs_that_have_them(sweeps: Sweeps) -> None:
    sweeps.write(
        method="bayes",
        parameters={
            "z": {"parameters": {"kind": {"values": ["plain", "shifted"]}}},
            "y": {"min": 0.0, "max": 1.0, "when": {"z.kind": "shifted"}},
        },
    )
    trials = sweeps.run("--trials", "14", "--workers", "2")["trials"]
    kinds = {trial["values"]["z.kind"] for trial in trials}
    assert kinds == {"plain", "shifted"}
    for trial in trials:
        assert ("y" in trial["values"]) == (trial["values"]["z.kind"] == "shifted")
    log = (sweeps.storage / "trials" / "0000.log").read_text()
    assert f" z.kind={trials[0]['values']['z.kind']}" in log
    assert (" y=" in log) == ("y" in trials[0]["values"])


def test_the_score_is_the_mean_over_seeds_and_each_seed_a_run(sweeps: Sweeps) -> None:
    sweeps.write(parameters={"x": {"value": 4}}, method="grid")
    summary = sweeps.run("--seeds", "0,1,5")
    (trial,) = summary["trials"]
    assert trial["score"] == pytest.approx(1 + (0 + 1 + 5) / 3)
    assert trial["spread"] == pytest.approx(7**0.5)
    assert sorted(trial["runs"]) == ["0", "1", "5"]
    assert len(sweeps.names("end")) == 3
    assert {Path(run).name[-6:] for run in trial["runs"].values()} == {"-seed0", "-seed1", "-seed5"}


def test_failed_trials_are_kept_with_their_reason_and_stop_nothing(sweeps: Sweeps) -> None:
    sweeps.write(method="grid", parameters={"x": {"values": [5, 1, 2, 3, 4]}})
    overrides = ("mistake=1", "broken=2", "nan=3", "dies=4")
    summary = sweeps.run("--workers", "2", overrides=overrides)
    by_x = {trial["values"]["x"]: trial for trial in summary["trials"]}
    assert by_x[5]["state"] == "completed"
    assert by_x[5]["error"] is None
    assert by_x[1]["error"] == "model.x cannot be that: use model.x=3"
    assert by_x[2]["error"] == "RuntimeError: the network blew up"
    assert by_x[3]["error"] == "fd_fake is nan"
    assert by_x[4]["error"] == "was ended 3 times, at last by SIGKILL"
    assert {by_x[x]["state"] for x in (1, 2, 3, 4)} == {"failed"}
    assert sweeps.run("--report")["counts"]["failed"] == 4
    assert len(sweeps.noted("start")) == 1 + 1 + 3  # x = 5 and 3 once, 4 three times


def test_a_mistake_that_fails_the_first_trials_stops_the_sweep_with_its_line(sweeps: Sweeps) -> None:
    sweeps.write()
    line = sweeps.refused("--trials", "50", overrides=("mistake=always",))
    assert line == "error: the first trials all failed: model.x cannot be that: use model.x=3"
    folder = SweepFolder(sweeps.storage)
    folder.open()
    assert len(folder.trials()) == 3


def test_a_score_that_no_run_has_stops_the_sweep(sweeps: Sweeps) -> None:
    sweeps.write(metric={"name": "score/fd_digits"})
    assert "has no score fd_digits; it has fd_fake" in sweeps.refused("--trials", "50")


def test_a_command_that_cannot_start_stops_the_sweep(sweeps: Sweeps) -> None:
    sweeps.write(command=["/nowhere/python", "${program}", "${args_no_hyphens}"])
    assert "cannot start /nowhere/python: No such file" in sweeps.refused("--trials", "50")


def test_a_target_ends_the_search(sweeps: Sweeps) -> None:
    sweeps.write(method="grid", parameters={"x": {"values": [6, 5, 3, 2]}}, metric={"name": "fd_fake", "target": 4.0})
    assert [trial["score"] for trial in sweeps.run()["trials"]] == [9.0, 4.0]


def test_hopeless_trials_are_stopped_early_and_their_runs_interrupted(sweeps: Sweeps) -> None:
    sweeps.write(
        method="grid",
        parameters={"x": {"values": [3, 6]}},
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    summary = sweeps.run(overrides=("steps=8", "seconds=0.25"))
    good, bad = summary["trials"]
    assert good["state"] == "completed"
    assert bad["state"] == "pruned"
    assert bad["score"] == pytest.approx(9 + 10 * (1 / 2 - 1 / 8))
    assert sweeps.names("interrupted") == sweeps.names("start") - sweeps.names("end")
    (stopped,) = sweeps.names("interrupted")
    record = json.loads((sweeps.folder / "runs" / "fake" / stopped / "result.json").read_text())
    assert record["status"] == "interrupted"
    assert record["iterations"] < 8


def test_killed_drivers_workers_and_runs_lose_no_trial_and_repeat_none(sweeps: Sweeps) -> None:
    sweeps.write()
    options = ("--trials", "8", "--workers", "2")
    slow = ("steps=4", "seconds=0.25")
    driver = sweeps.start(*options, overrides=slow)
    sweeps.wait_until(lambda: len(sweeps.noted("end")) >= 1 and len(children(driver.pid)) == 2)
    sweeps.wait_until(lambda: len(sweeps.noted("start")) >= len(sweeps.noted("end")) + 2)
    victim = children(driver.pid)[0]
    os.kill(victim, signal.SIGKILL)
    sweeps.wait_until(lambda: len(sweeps.noted("end")) >= 3)
    others = children(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    os.kill(others[0], signal.SIGKILL)
    driver.communicate()
    sweeps.wait_until(lambda: not any(_alive(process) for process in others))
    before = {name: values for name, _, values in sweeps.noted("start")}
    summary = sweeps.run(*options, overrides=slow)
    assert [trial["state"] for trial in summary["trials"]] == ["completed"] * 8
    assert sweeps.names("end") == Counter({Path(trial["runs"]["run"]).name: 1 for trial in summary["trials"]})
    for name, _, values in sweeps.noted("start"):
        assert values == before.get(name, values)
    assert len({process for _, process, _ in sweeps.noted("start")}) > 8
    again = sweeps.run(*options, overrides=slow)
    assert again["trials"] == summary["trials"]


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_that_outlives_its_worker_keeps_its_trial(sweeps: Sweeps) -> None:
    """The lock of a trial is its run's too: while one process has it, no other is started."""
    sweeps.write()
    sweeps.run("--trials", "1")
    folder = SweepFolder(sweeps.storage)
    folder.open()
    lease = folder.lease(1)
    assert lease.acquire(wait=False)
    holder = subprocess.Popen(["sleep", "60"], pass_fds=(lease.descriptor,))
    lease.release()
    assert not folder.lease(1).acquire(wait=False)
    holder.kill()
    holder.wait()
    assert folder.lease(1).acquire(wait=False)


def test_two_drivers_on_one_storage_share_the_trials(sweeps: Sweeps) -> None:
    sweeps.write()
    overrides = ("seconds=0.2",)
    drivers = [sweeps.start("--trials", "9", "--workers", "2", overrides=overrides) for _ in range(2)]
    summaries = []
    for driver in drivers:
        output, errors = driver.communicate(timeout=120)
        assert driver.returncode == 0, errors
        summaries.append(json.loads(output))
    assert summaries[0]["trials"] == summaries[1]["trials"]
    assert summaries[0]["counts"]["completed"] == 9
    assert len(sweeps.names("start")) == 9
    assert set(sweeps.names("start").values()) == set(sweeps.names("end").values()) == {1}


def test_ctrl_c_leaves_trials_to_be_taken_up(sweeps: Sweeps) -> None:
    sweeps.write()
    overrides = ("steps=20", "seconds=0.1")
    driver = sweeps.start("--trials", "2", overrides=overrides)
    sweeps.wait_until(lambda: len(sweeps.noted("start")) == 1)
    time.sleep(0.5)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "the same command goes on" in errors
    assert len(sweeps.noted("interrupted")) == 1
    assert sweeps.run("--trials", "2", overrides=overrides)["counts"]["completed"] == 2
    assert set(sweeps.names("end").values()) == {1}


def test_a_storage_holds_one_sweep(sweeps: Sweeps) -> None:
    sweeps.write()
    sweeps.run("--trials", "1")
    assert "(the overrides differ)" in sweeps.refused("--trials", "2", overrides=("y=1",))
    assert "(--seeds differ)" in sweeps.refused("--trials", "2", "--seeds", "1")
    sweeps.write(parameters={"x": {"min": 0.0, "max": 5.0}})
    assert "(the file's parameters differ)" in sweeps.refused("--trials", "2")


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ((), (), "give --trials N, or run_cap"),
        (("--trials", "1"), ("run_name=mine",), "run_name is given to every trial by the sweep itself"),
        (("--trials", "1"), ("paths.output_dir=x",), "given by --output-dir"),
        (("--trials", "1", "--seeds", "1"), ("seed=3",), "seed is given by --seeds"),
        (("--trials", "1", "--seeds", "one"), (), "--seeds takes numbers"),
        (("--trials", "1"), ("x=3",), "x is a parameter of the sweep"),
        (("--trials", "1"), ("word",), "'word' is no override"),
        (("--report",), (), "There is no sweep in"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    sweeps: Sweeps, options: tuple[str, ...], overrides: tuple[str, ...], message: str
) -> None:
    sweeps.write()
    assert message in sweeps.refused(*options, overrides=overrides)
    assert not sweeps.storage.exists()


def test_a_program_that_is_not_there_is_named(sweeps: Sweeps) -> None:
    sweeps.write(program="trian.py")
    assert "There is no program trian.py" in sweeps.refused("--trials", "1")


def test_a_torn_line_in_the_journal_is_dropped(sweeps: Sweeps) -> None:
    sweeps.write()
    sweeps.run("--trials", "1")
    journal = sweeps.storage / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker_')
    assert sweeps.run("--trials", "2")["counts"]["completed"] == 2
    assert journal.read_bytes().startswith(whole)
