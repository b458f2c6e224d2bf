"""W&B answers from a stand-in that has the attributes of `wandb.Api`; no server is reached."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
import wandb
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.tracking.record import with_schema
from lightning_gen.tracking.wandb_records import read_project
from tests.tracking.records import record


class FakeRun:
    def __init__(self, name: str, state: str, summary: dict[str, Any]) -> None:
        self.url = f"https://wandb.example/entity/project/runs/{name}"
        self.state = state
        self.summary_metrics = summary


def stored(name: str, value: float, **changes: Any) -> dict[str, Any]:
    return {"record": json.dumps(with_schema(record(name, value, **changes))), "score/fid": value}


RUNS = [
    FakeRun("a", "finished", stored("a", 2.0)),
    FakeRun("b", "crashed", stored("b", 1.0, status="failed")),
    FakeRun("c", "running", stored("c", 0.5)),
    FakeRun("d", "finished", {"loss": 1.0}),
    FakeRun("e", "finished", {"record": "{torn"}),
    FakeRun("f", "finished", {"record": {"_type": "file"}}),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stand-in was asked for; a key is configured."""
    paths: list[str] = []

    class FakeApi:
        def runs(self, path: str, per_page: int, lazy: bool) -> Iterator[FakeRun]:
            paths.append(path)
            if path.endswith("/nowhere"):
                raise ValueError("Could not find project nowhere\nmore")
            if path.endswith("/down"):
                raise wandb.errors.CommError("no connection")
            return iter(RUNS)

    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(wandb, "Api", FakeApi)
    return paths


def test_the_stand_in_has_the_attributes_of_the_real_api() -> None:
    from wandb.apis.public import Run

    assert {"path", "per_page", "lazy"} <= inspect.signature(wandb.Api.runs).parameters.keys()
    assert isinstance(Run.summary_metrics, property)
    assert isinstance(Run.url, property)
    assert hasattr(Run, "state") or "state" in inspect.getsource(Run)


def test_records_of_finished_runs_come_back_and_damaged_ones_are_named(asked: list[str]) -> None:
    found, problems = read_project("entity/project")
    assert asked == ["entity/project"]
    assert [(run.record["run_name"], run.record["status"]) for run in found] == [("a", "completed"), ("b", "failed")]
    assert found[0].source == "https://wandb.example/entity/project/runs/a"
    assert [problem.split()[0] for problem in problems] == [RUNS[4].url, RUNS[5].url]


@pytest.mark.parametrize(
    ("project", "message"),
    [("project", "ENTITY/PROJECT"), ("a/nowhere", "Could not find project nowhere$"), ("a/down", "no connection")],
)
def test_a_project_that_cannot_be_read_is_one_line(asked: list[str], project: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_project(project)
    assert "\n" not in str(error.value)


def test_without_a_key_or_offline_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="wandb login"):
        read_project("a/b")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match="WANDB_MODE is offline"):
        read_project("a/b")


def test_the_command_ranks_runs_of_a_project(asked: list[str]) -> None:
    result = CliRunner().invoke(app, ["leaderboard", "--wandb", "entity/project", "--json"], catch_exceptions=False)
    (board,) = json.loads(result.stdout)["boards"]
    assert [(entry["name"], entry["place"]) for entry in board["entries"]] == [("e/b", None), ("e/a", 1)]
