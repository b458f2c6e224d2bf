import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from tests.tracking.records import HARDWARE, record, seeds, write


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["leaderboard", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def entries(*arguments: str) -> list[str]:
    boards = json.loads(run(*arguments, "--json"))["boards"]
    return [f"{board['score']}:{entry['name']}" for board in boards for entry in board["entries"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three experiments under one protocol, one of them stopped, and another score."""
    hours = {"hardware": HARDWARE, "train_seconds": 3600.0}
    write(
        tmp_path,
        record("x", 3.0, experiment="gan_mnist", model="gan", data="mnist", parameters={"g": 50}, **hours),
        record("x", 1.0, experiment="gan_cifar", model="gan", data="cifar10", parameters={"g": 70}),
        record("x", 2.0, "p22", experiment="vae_mnist", model="vae", data="mnist", status="interrupted"),
        record("y", 9.0, experiment="gan_mnist", model="gan", data="mnist", score={"name": "kid"}, images_seen=5),
    )
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["fid:gan_cifar/x", "fid:gan_mnist/x", "fid:vae_mnist/x", "kid:gan_mnist/y"]),
        (["--score", "kid"], ["kid:gan_mnist/y"]),
        (["--data", "mnist", "--score", "fid"], ["fid:gan_mnist/x", "fid:vae_mnist/x"]),
        (["--model", "vae"], ["fid:vae_mnist/x"]),
        (["--model", "va*", "--model", "none"], ["fid:vae_mnist/x"]),
        (["--experiment", "*_cifar"], ["fid:gan_cifar/x"]),
        (["--status", "interrupted"], ["fid:vae_mnist/x"]),
        (["--protocol", "p2"], ["fid:vae_mnist/x"]),
        (["--score", "fid", "--protocol", "p1", "--reverse"], ["fid:gan_mnist/x", "fid:gan_cifar/x"]),
        (["--score", "nothing"], []),
    ],
)
def test_filters_let_through_what_they_name(folder: Path, options: list[str], expected: list[str]) -> None:
    assert sorted(entries(str(folder), *options)) == sorted(expected)
    if "--reverse" in options:
        assert entries(str(folder), *options) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("value", ["b", "a", "c"]),
        ("images_seen", ["c", "b", "a"]),
        ("hours", ["b", "a", "c"]),
        ("parameters", ["a", "c", "b"]),
        ("name", ["a", "b", "c"]),
    ],
)
def test_entries_are_sorted_by_what_is_asked_for_and_lack_of_it_comes_last(
    tmp_path: Path, sort: str, expected: list[str]
) -> None:
    def item(name: str, value: float, seen: int, seconds: float | None, count: int) -> dict[str, Any]:
        changes = {"train_seconds": seconds, "hardware": HARDWARE, "parameters": {"g": count}}
        return record(name, value, score={"images_seen": seen}, **changes)

    write(tmp_path, item("a", 2.0, 30, 7.0, 1), item("b", 1.0, 20, 5.0, 3), item("c", 3.0, 10, None, 2))
    found = [name.removeprefix("fid:e/") for name in entries(str(tmp_path), "--sort", sort)]
    assert found == expected
    turned = [name.removeprefix("fid:e/") for name in entries(str(tmp_path), "--sort", sort, "--reverse")]
    assert turned == ([*expected[-2::-1], "c"] if sort == "hours" else expected[::-1])


def test_csv_cells_are_safe_for_spreadsheets_and_numbers_stay_numbers(tmp_path: Path) -> None:
    bad = {"model": "=HYPERLINK(1)", "data": "+d", "score": {"value": -2.5, "name": "-score"}}
    write(tmp_path, record("@run", 0.0, experiment="\tx", **bad), record("plain,\"'|", 1.0, data="d", model="m-1"))
    rows = list(csv.DictReader(io.StringIO(run(str(tmp_path), "--format", "csv"))))
    (risky,) = [row for row in rows if row["score"] == "'-score"]
    assert (risky["model"], risky["data"], risky["experiment"]) == ("'=HYPERLINK(1)", "'+d", "'\tx")
    assert (float(risky["value"]), int(risky["parameters"]), risky["spread"]) == (-2.5, 7, "")
    (plain,) = [row for row in rows if row["score"] == "fid"]
    assert (plain["entry"], plain["model"]) == ("e/plain,\"'|", "m-1")


def test_markdown_rows_keep_their_columns_whatever_the_names_are(tmp_path: Path) -> None:
    write(tmp_path, record("a|b`c", 1.25, model="<b>x</b>"), *seeds("one", [1.0, 1.1]))
    lines = [line for line in run(str(tmp_path), "--format", "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "e/a\\|b\\`c" in lines[3]
    assert "\\<b\\>" in lines[3]
    assert "| 1 | one | m | d | 1.05 ± 0.071 | 2 |" in lines[2]


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_every_format_goes_to_a_file_that_is_not_overwritten(folder: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / "out" / "board.txt"
    assert run(str(folder), "--format", form, "--output", str(target)) == ""
    assert "gan_mnist" in target.read_text()
    with pytest.raises(UserError, match="--force"):
        run(str(folder), "--format", form, "--output", str(target))
    run(str(folder), "--format", form, "--output", str(target), "--force")


def test_damaged_records_are_named_on_standard_error(folder: Path) -> None:
    (folder / "torn").mkdir()
    (folder / "torn" / "result.json").write_text("{")
    result = CliRunner().invoke(app, ["leaderboard", str(folder), "--json"])
    assert "torn/result.json cannot be read" in result.stderr
    assert json.loads(result.stdout)["skipped"] == [result.stderr.strip().removeprefix("skipped: ")]


def test_a_filter_that_lets_nothing_through_says_which_scores_there_are(folder: Path) -> None:
    result = CliRunner().invoke(app, ["leaderboard", str(folder), "--score", "fdi"])
    assert result.exit_code == 0
    assert "scores there: fid, kid" in result.stderr
