import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_gen.errors import UserError
from lightning_gen.tracking.leaderboard import build_boards, find_records, render
from lightning_gen.tracking.record import config_digest, read_record, write_record
from tests.conftest import run_command


def record(name: str, value: float, protocol: str = "p1", **changes: Any) -> dict[str, Any]:
    score = {
        "name": "fid",
        "value": value,
        "std": None,
        "images_seen": 1000,
        "lower_is_better": True,
        "ranked": True,
        "protocol": {"num_samples": 10, "reference": {"dataset": "d", "split": "train", "size": 5}},
        "protocol_hash": protocol,
    }
    base = {"status": "completed", "experiment": "e", "run_name": name, "model": "m", "data": "d", "seed": 0}
    base |= {"images_seen": 1000, "train_seconds": 1.5, "images_per_second": 10.0, "parameters": {"g": 3, "d": 4}}
    return {**base, "scores": [{**score, **changes.pop("score", {})}], **changes}


def write(folder: Path, *records: dict[str, Any]) -> None:
    for item in records:
        path = folder / item["experiment"] / item["run_name"] / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, item)


def test_runs_are_ranked_within_their_protocol(tmp_path: Path) -> None:
    write(tmp_path, record("a", 3.0), record("b", 1.0), record("c", 2.0), record("other", 0.5, "p2"))
    boards = build_boards(find_records(tmp_path)[0])
    assert {board.protocol_hash: [row["run"] for row in board.rows] for board in boards} == {
        "p1": ["e/b", "e/c", "e/a"],
        "p2": ["e/other"],
    }
    assert boards[0].rows[0]["parameters"] == 7


def test_higher_is_better_turns_the_order(tmp_path: Path) -> None:
    turned = {"lower_is_better": False, "name": "inception_score"}
    write(tmp_path, record("a", 3.0, score=turned), record("b", 1.0, score=turned))
    (board,) = build_boards(find_records(tmp_path)[0])
    assert [row["value"] for row in board.rows] == [3.0, 1.0]


def test_scores_of_unranked_extractors_stay_off(tmp_path: Path) -> None:
    write(tmp_path, record("a", 3.0, score={"ranked": False}))
    assert build_boards(find_records(tmp_path)[0]) == []


def test_damaged_records_are_reported_and_skipped(tmp_path: Path) -> None:
    write(tmp_path, record("good", 1.0))
    for name, text in (
        ("torn", '{"schema": 1, "sta'),
        ("other", "{}"),
        ("list", "[]"),
        ("lacks", '{"schema": 1, "status": "failed"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    records, problems = find_records(tmp_path)
    assert [item["run_name"] for _, item in records] == ["good"]
    assert len(problems) == 4
    assert all("result.json" in problem and "\n" not in problem for problem in problems)
    with pytest.raises(UserError, match="No folder"):
        find_records(tmp_path / "nowhere")


def test_the_table_fits_a_terminal_and_marks_unfinished_runs(tmp_path: Path) -> None:
    write(tmp_path, record("seed0-123456", 1.23456), record("stopped", 2.0, status="interrupted"))
    (board,) = build_boards(find_records(tmp_path)[0])
    console = Console(width=80, record=True)
    console.print(render(board))
    text = console.export_text()
    assert "1.235" in text
    assert "interrupted" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_command_prints_json_without_importing_torch(tmp_path: Path) -> None:
    write(tmp_path, record("a", 1.0))
    result = run_command("lightning-gen", "leaderboard", str(tmp_path), "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["boards"][0]["rows"][0]["run"] == "e/a"
    script = (
        "import sys; from lightning_gen.cli import app; from typer.testing import CliRunner; "
        f"result = CliRunner().invoke(app, ['leaderboard', {str(tmp_path)!r}]); assert result.exit_code == 0, result; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_config_digests_are_canonical() -> None:
    assert config_digest({"a": 1, "b": [1, 2]}) == config_digest({"b": [1, 2], "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


def test_records_are_whole_json(tmp_path: Path) -> None:
    write_record(tmp_path / "result.json", record("a", 1.0))
    assert read_record(tmp_path / "result.json")["schema"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
