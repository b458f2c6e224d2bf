"""Errors by number of labels: what shares a table, means over seeds, and the command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.tracking.label_board import build_label_boards, describe_label_board, format_cell, to_label_table
from lightning_gen.tracking.record_files import FoundRun
from tests.tracking.records import record, write


def error(
    experiment: str, seed: int, number: int | None, value: float, *, split: str = "test", **changes: Any
) -> dict[str, Any]:
    """A record of a classifier that was given so many labels."""
    protocol: dict[str, Any] = {
        "metric": {"name": "classification_error"},
        "reference": {"dataset": "mnist", "split": split, "size": 10_000, "digest": "abc"},
        "labels": None if number is None else {"number": number, "digest": f"draw {number} {seed}"},
        "scoring_version": 1,
        "weights": "ema",
        **changes.pop("protocol", {}),
    }
    score = {"name": f"{split}_error", "protocol": protocol, "protocol_hash": f"{number} {seed}"}
    return record(
        f"labels{number}-seed{seed}",
        value,
        experiment=experiment,
        seed=seed,
        data="mnist",
        model=changes.pop("model", "classifier"),
        settings_digest=changes.pop("settings_digest", f"{experiment} {number}"),
        score=score,
        **changes,
    )


def found(*records: dict[str, Any]) -> list[FoundRun]:
    return [FoundRun(item, f"{item['experiment']}/{item['run_name']}") for item in records]


def test_a_row_has_the_mean_over_seeds_at_every_number_of_labels() -> None:
    (board,) = build_label_boards(
        found(
            *(error("plain", seed, 100, value) for seed, value in enumerate((20.0, 24.0, 22.0))),
            error("plain", 0, 1000, 8.0),
            error("plain", 0, None, 1.5),
            error("clever", 0, 100, 5.0, model="m2"),
            error("clever", 1, 100, 6.0, model="m2"),
        )
    )
    assert board.columns == ["100", "1000", "all"]
    assert [row.name for row in board.rows] == ["clever", "plain"]
    cell = board.rows[1].cells["100"]
    assert (cell.value, cell.spread, cell.seeds, cell.draws, cell.settings) == (22.0, 2.0, 3, 3, 1)
    assert format_cell(cell) == "22.00 ± 2.00"
    assert format_cell(board.rows[1].cells["all"]) == "1.50"
    assert board.rows[0].cells.keys() == {"100"}
    assert format_cell(board.rows[0].cells.get("all")) == ""
    assert "labels" not in board.protocol


def test_only_errors_on_the_same_images_share_a_table() -> None:
    other = {"dataset": "mnist", "split": "test", "size": 10_000, "digest": "other images"}
    runs = found(
        error("one", 0, 100, 9.0),
        error("two", 0, 100, 8.0, protocol={"weights": "raw"}),
        error("eight", 0, 100, 8.0, protocol={"scoring_version": 2}),
        error("three", 0, 100, 7.0, protocol={"reference": other}),
        error("four", 0, 100, 6.0),
        error("five", 0, 100, 5.0, split="val"),
        error("six", 0, 100, 4.0, status="interrupted"),
        error("seven", 0, 100, 3.0, protocol={"metric": {"name": "something else"}}),
        record("other", 2.0),
    )
    names = sorted(sorted(row.name for row in board.rows) for board in build_label_boards(runs))
    assert names == [["eight"], ["four", "one", "two"], ["three"]], "averaged weights belong to the method"
    (board,) = build_label_boards(runs, "val")
    assert (board.score, [row.name for row in board.rows]) == ("val_error", ["five"])


def test_errors_on_one_set_at_several_sizes_share_a_table_where_that_is_asked_for() -> None:
    def at(size: int, labels: str = "l", **changes: Any) -> dict[str, Any]:
        reference = {"dataset": "mnist", "split": "test", "size": 10_000, "digest": f"{size}", "labels_digest": labels}
        return {"reference": {**reference, **changes}}

    runs = found(
        error("a", 0, 100, 9.0, protocol=at(28)),
        error("b", 0, 100, 8.0, protocol=at(32)),
        error("other classes", 0, 100, 7.0, protocol=at(28, "m")),
        error("other set", 0, 100, 6.0, protocol=at(28, dataset="fashion_mnist")),
        error("no digest of labels", 0, 100, 5.0),
    )
    assert len(build_label_boards(runs)) == 5
    boards = build_label_boards(runs, any_size=True)
    names = sorted(sorted(row.name for row in board.rows) for board in boards)
    assert names == [["a", "b"], ["no digest of labels"], ["other classes"], ["other set"]]
    (both,) = (board for board in boards if len(board.rows) == 2)
    assert describe_label_board(both) == "percent of 10,000 mnist test images of any size"


def test_averaged_and_raw_weights_of_one_experiment_are_two_rows() -> None:
    raw = {"weights": "raw"}
    (board,) = build_label_boards(
        found(error("a", 0, 100, 9.0), error("a", 1, 100, 7.0, protocol=raw), error("b", 0, 100, 8.0, protocol=raw))
    )
    assert [row.name for row in board.rows] == ["a, raw weights", "b", "a, averaged weights"]
    assert [row.weights for row in board.rows] == ["raw", "raw", "ema"]


def test_a_seed_counts_once_and_a_cell_of_several_settings_says_so() -> None:
    twice = error("plain", 0, 100, 30.0, settings_digest="another")
    twice["run_name"] = "again"
    (board,) = build_label_boards(found(error("plain", 0, 100, 20.0), twice, error("plain", 1, 100, 27.0)))
    (row,) = board.rows
    cell = row.cells["100"]
    assert (cell.value, cell.seeds, len(cell.runs), cell.settings) == (26.0, 2, 3, 2)
    assert cell.spread == pytest.approx(2**0.5)
    assert format_cell(cell).endswith("*")
    assert "several settings" in str(to_label_table(board).caption)


def test_runs_with_generated_images_are_a_row_of_their_own() -> None:
    made = {"generated": {"number": 1437, "digest": "x"}}
    alone = {**made, "labels": {"number": 0, "digest": "none"}}
    (board,) = build_label_boards(
        found(
            error("plain", 0, 100, 20.0),
            error("plain", 1, 100, 10.0, protocol=made),
            error("plain", 2, 100, 12.0, protocol=alone),
        )
    )
    assert board.columns == ["0", "100"]
    assert {row.name: {key: cell.value for key, cell in row.cells.items()} for row in board.rows} == {
        "plain": {"100": 20.0},
        "plain + 1,437 generated": {"100": 10.0, "0": 12.0},
    }


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["labels", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = [error("plain", seed, number, 200 / number**0.5) for seed in (1, 2) for number in (10, 100, 1000)]
    write(tmp_path / "runs", *runs, error("clever", 1, 100, 5.0, model="m2"), error("plain", 1, None, 1.0))
    return tmp_path / "runs"


def test_the_command_prints_tables_and_json(folder: Path) -> None:
    shown = run(folder).stdout
    assert "test_error by number of labels" in shown
    assert "1,000" in shown
    assert "percent of 10,000 mnist test images" in " ".join(shown.split())
    (board,) = json.loads(run(folder, "--json").stdout)["boards"]
    assert board["columns"] == ["10", "100", "1000", "all"]
    assert board["rows"][0]["cells"]["100"]["runs"][0]["draw"] == "draw 100 1"
    (board,) = json.loads(run(folder, "--json", "--model", "m*").stdout)["boards"]
    assert [row["experiment"] for row in board["rows"]] == ["clever"]
    nothing = run(folder, "--json", "--experiment", "none")
    assert json.loads(nothing.stdout)["boards"] == []
    assert "add callbacks=classification" in nothing.stderr


def test_the_command_draws_one_table(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "labels.png"
    assert str(target) in run(folder, "--plot", target).stdout
    assert Image.open(io.BytesIO(target.read_bytes())).size[0] > 500
    with pytest.raises(UserError, match="--force"):
        run(folder, "--plot", target)
    with pytest.raises(UserError, match="must be a PNG file"):
        run(folder, "--plot", tmp_path / "labels.pdf")
    with pytest.raises(UserError, match="there are 0"):
        run(folder, "--plot", tmp_path / "none.png", "--split", "val")
    write(folder, error("plain", 5, None, 1.0, split="val"))
    with pytest.raises(UserError, match="given every label"):
        run(folder, "--plot", tmp_path / "none.png", "--split", "val")
