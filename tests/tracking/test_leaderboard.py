import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_gen.configuration import compose_config
from lightning_gen.errors import UserError
from lightning_gen.metrics.base import Score
from lightning_gen.tracking.exports import to_table
from lightning_gen.tracking.leaderboard import Board, build_boards
from lightning_gen.tracking.record import config_digest, read_record, write_record
from lightning_gen.tracking.record_files import find_records
from lightning_gen.tracking.settings import settings_digest
from tests.conftest import SMALL, run_command
from tests.tracking.records import HARDWARE, record, seeds, write


def boards_of(folder: Path, *records: dict[str, Any]) -> list[Board]:
    write(folder, *records)
    return build_boards(find_records(folder)[0])


def places(board: Board) -> list[tuple[str, int | None, bool]]:
    return [(entry.experiment, entry.place, entry.tied) for entry in board.entries]


def test_runs_are_ranked_within_their_protocol(tmp_path: Path) -> None:
    boards = boards_of(tmp_path, record("a", 3.0), record("b", 1.0), record("c", 2.0), record("other", 0.5, "p2"))
    assert {board.protocol_hash: [entry.name for entry in board.entries] for board in boards} == {
        "p1": ["e/b", "e/c", "e/a"],
        "p2": ["e/other"],
    }
    assert [entry.place for entry in boards[0].entries] == [1, 2, 3]
    assert boards[0].entries[0].parameters == 7


def test_higher_is_better_turns_the_order(tmp_path: Path) -> None:
    turned = {"lower_is_better": False, "name": "inception_score"}
    (board,) = boards_of(tmp_path, record("a", 3.0, score=turned), record("b", 1.0, score=turned))
    assert [(entry.value, entry.place) for entry in board.entries] == [(3.0, 1), (1.0, 2)]


def test_scores_of_unranked_extractors_stay_off(tmp_path: Path) -> None:
    assert boards_of(tmp_path, record("a", 3.0, score={"ranked": False})) == []


def test_seeds_of_one_setting_form_one_entry_of_mean_and_sample_deviation(tmp_path: Path) -> None:
    (board,) = boards_of(tmp_path, *seeds("one", [10.0, 12.0, 17.0]), *seeds("two", [20.0]))
    first, second = board.entries
    assert (first.name, first.value, first.seeds) == ("one", 13.0, 3)
    assert first.spread == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert first.error == pytest.approx(first.spread / math.sqrt(3))
    assert [(run.seed, run.value) for run in first.runs] == [(0, 10.0), (1, 12.0), (2, 17.0)]
    assert (second.name, second.spread) == ("two/seed0", None)
    assert second.error == pytest.approx(0.26)
    assert board.to_json()["entries"][0]["runs"][2]["run"] == "one/seed2"


def test_a_seed_that_ran_twice_is_one_draw(tmp_path: Path) -> None:
    again = {**seeds("one", [14.0])[0], "run_name": "seed0-2"}
    (board,) = boards_of(tmp_path, *seeds("one", [10.0, 20.0]), again)
    (entry,) = board.entries
    assert (entry.value, entry.seeds, len(entry.runs)) == (16.0, 2, 3)
    assert entry.spread == pytest.approx(math.sqrt(32))


def test_other_settings_models_data_and_experiments_are_other_entries(tmp_path: Path) -> None:
    first, second = seeds("one", [1.0, 2.0])
    changes = [{"settings_digest": "x"}, {"model": "m2"}, {"data": "d2"}]
    for number, change in enumerate(changes):
        (board,) = boards_of(tmp_path / str(number), first, {**second, **change})
        assert [entry.seeds for entry in board.entries] == [1, 1]


def test_unfinished_runs_are_shown_without_a_place_and_not_averaged(tmp_path: Path) -> None:
    runs = seeds("one", [10.0, 12.0, 1.0, 50.0])
    runs[2]["status"], runs[3]["status"] = "interrupted", "failed"
    (board,) = boards_of(tmp_path, *runs, *seeds("two", [30.0]))
    found = [(entry.name, entry.value, entry.place, entry.status) for entry in board.entries]
    assert found == [
        ("one/seed2", 1.0, None, "interrupted"),
        ("one", 11.0, 1, "completed"),
        ("two/seed0", 30.0, 2, "completed"),
        ("one/seed3", 50.0, None, "failed"),
    ]


def test_runs_without_a_settings_digest_are_entries_of_their_own(tmp_path: Path) -> None:
    (board,) = boards_of(tmp_path, record("a", 1.0, seed=0), record("b", 2.0, seed=1))
    assert [entry.name for entry in board.entries] == ["e/a", "e/b"]


def test_the_settings_digest_of_an_old_record_comes_from_the_config_beside_it(tmp_path: Path) -> None:
    import yaml

    for seed in (0, 1):
        write(tmp_path, record(f"seed{seed}", 1.0 + seed, seed=seed))
        config = compose_config([*SMALL, f"seed={seed}"])
        (tmp_path / "e" / f"seed{seed}" / "config.yaml").write_text(yaml.safe_dump(config))
    (board,) = build_boards(find_records(tmp_path)[0])
    assert [entry.seeds for entry in board.entries] == [2]
    (tmp_path / "e" / "seed0" / "config.yaml").write_text("model: [torn")
    (board,) = build_boards(find_records(tmp_path)[0])
    assert [entry.seeds for entry in board.entries] == [1, 1]


def test_the_settings_digest_forgets_the_seed_and_nothing_else() -> None:
    first = settings_digest(compose_config([*SMALL, "seed=0"]))
    assert settings_digest(compose_config([*SMALL, "seed=5"])) == first
    assert settings_digest(compose_config([*SMALL, "paths.data_dir=elsewhere"])) == first
    for change in ("model.latent_dim=9", "metrics.seed=1", "data.split_seed=1", "trainer.max_steps=7"):
        assert settings_digest(compose_config([*SMALL, change])) != first


def test_ties_lie_within_two_standard_errors_of_the_best_of_their_group(tmp_path: Path) -> None:
    # Two seeds d apart have a standard error of d / 2: 1 for each of these, so that 2 * sqrt(2) = 2.83 separates.
    groups = {"a": 10.0, "b": 12.8, "c": 12.9, "d": 15.7}
    records = [item for name, mean in groups.items() for item in seeds(name, [mean - 1, mean + 1])]
    (board,) = boards_of(tmp_path, *records)
    assert places(board) == [("a", 1, True), ("b", 1, True), ("c", 3, True), ("d", 3, True)]


def test_the_error_of_a_single_run_is_its_error_bar_and_a_relative_one_together(tmp_path: Path) -> None:
    # 1.3% of 100 and of 103.6 are 1.3 and 1.35: 2 * sqrt(1.3^2 + 1.35^2) = 3.74.
    (board,) = boards_of(tmp_path / "tied", *seeds("a", [100.0]), *seeds("b", [103.6]))
    assert places(board) == [("a", 1, True), ("b", 1, True)]
    (board,) = boards_of(tmp_path / "apart", *seeds("a", [100.0]), *seeds("b", [103.9]))
    assert places(board) == [("a", 1, False), ("b", 2, False)]
    own = {"std": 3.0}
    # 2 * sqrt(3^2 + 1.3^2 + 3^2 + 1.42^2) = 9.32
    for value, places_of_both in ((109.0, (1, 1)), (109.5, (1, 2))):
        runs = (*seeds("a", [100.0], score=own), *seeds("b", [value], score=own))
        (board,) = boards_of(tmp_path / f"own{value}", *runs)
        assert tuple(entry.place for entry in board.entries) == places_of_both


@pytest.mark.parametrize(
    ("hardware", "hours", "kind"),
    [
        (HARDWARE, 4 * 2.0, "CPU core"),
        ({**HARDWARE, "device": "NVIDIA H100", "processes": 8, "nodes": 2}, 8 * 2.0, "GPU"),
        ({}, None, "CPU core"),
    ],
)
def test_device_hours_count_processes_over_all_nodes_once(
    tmp_path: Path, hardware: dict[str, Any], hours: float | None, kind: str
) -> None:
    (board,) = boards_of(tmp_path, record("a", 1.0, hardware=hardware, train_seconds=7200.0))
    assert (board.entries[0].hours, board.entries[0].hours_of) == (hours, kind)


def test_network_evaluations_come_from_the_sampler(tmp_path: Path) -> None:
    sampler = {"protocol": {"sampler": {"name": "heun", "network_evaluations": 35}}}
    (one, many) = boards_of(tmp_path, record("a", 1.0), record("b", 1.0, "p2", score=sampler))
    assert (one.entries[0].network_evaluations, many.entries[0].network_evaluations) == (1, 35)


PROTOCOL: dict[str, Any] = {
    "metric": {"name": "frechet_distance"},
    "extractor": {"name": "inception", "weights_sha256": "ab", "resize": "tf1_bilinear"},
    "reference": {"dataset": "cifar10", "split": "train", "size": 50000, "digest": "cd"},
    "num_samples": 50000,
    "weights": "ema",
    "sampler": {"steps": 18},
}


@pytest.mark.parametrize(
    "change",
    [
        {"extractor": {**PROTOCOL["extractor"], "resize": "pil_bicubic"}},
        {"extractor": {**PROTOCOL["extractor"], "weights_sha256": "ff"}},
        {"num_samples": 10000},
        {"reference": {**PROTOCOL["reference"], "split": "test"}},
        {"weights": "raw"},
        {"sampler": {"steps": 35}},
    ],
    ids=["resize", "extractor weights", "n", "split", "ema", "sampler"],
)
def test_runs_that_differ_in_their_protocol_land_in_two_tables(tmp_path: Path, change: dict[str, Any]) -> None:
    def score(protocol: dict[str, Any]) -> dict[str, Any]:
        return Score("fid", 5.0, None, 1000, True, True, protocol).to_json()

    same = boards_of(tmp_path / "same", record("a", 0, score=score(PROTOCOL)), record("b", 0, score=score(PROTOCOL)))
    assert [len(board.entries) for board in same] == [2]
    other = score({**PROTOCOL, **change})
    apart = boards_of(tmp_path / "apart", record("a", 0, score=score(PROTOCOL)), record("b", 0, score=other))
    assert [len(board.entries) for board in apart] == [1, 1]


DAMAGED: dict[str, Any] = {
    "value a string": {"score": {"value": "3.0"}},
    "value null": {"score": {"value": None}},
    "value a boolean": {"score": {"value": True}},
    "value missing": {"scores": [{"name": "fid"}]},
    "scores no list": {"scores": {}},
    "a score no object": {"scores": [3]},
    "protocol no object": {"score": {"protocol": "p"}},
    "reference no object": {"score": {"protocol": {"reference": 5}}},
    "seed a string": {"seed": "0"},
    "parameters a list": {"parameters": [1]},
    "a parameter count a string": {"parameters": {"g": "1"}},
    "hardware a string": {"hardware": "cpu"},
    "threads a string": {"hardware": {**HARDWARE, "threads": "4"}},
    "seconds a string": {"train_seconds": "1"},
    "experiment a number": {"experiment": 5, "run_name": "number"},
    "status unknown": {"status": "done"},
    "status a list": {"status": []},
    "half a surrogate pair": {"model": "\ud800"},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_record_with_a_wrong_field_is_reported_and_skipped(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, record("good", 1.0))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(json.dumps({"schema": 1, **record("bad", 2.0, **change)}))
    found, problems = find_records(tmp_path)
    assert [run.record["run_name"] for run in found] == ["good"]
    assert len(problems) == 1
    assert "bad" in problems[0]
    assert "\n" not in problems[0]
    assert len(build_boards(found)) == 1


def test_torn_files_are_reported_and_skipped(tmp_path: Path) -> None:
    write(tmp_path, record("good", 1.0))
    texts = ['{"schema": 1, "sta', "{}", "[]", '{"schema": 1, "status": "failed"}', "", "[" * 5000, "\x00"]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_text(text)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "result.json").write_bytes(b"\xff\xfe\x00")
    found, problems = find_records(tmp_path)
    assert [run.record["run_name"] for run in found] == ["good"]
    assert len(problems) == len(texts) + 1
    assert all("result.json" in problem and "\n" not in problem for problem in problems)
    with pytest.raises(UserError, match="No folder"):
        find_records(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400", "1" + "0" * 400])
def test_a_score_that_is_no_finite_number_is_reported_and_the_others_stay(tmp_path: Path, text: str) -> None:
    item = record("a", 1.0)
    item["scores"].append({**item["scores"][0], "name": "other", "value": "VALUE"})
    write(tmp_path, item)
    path = tmp_path / "e" / "a" / "result.json"
    path.write_text(path.read_text().replace('"VALUE"', text))
    found, problems = find_records(tmp_path)
    assert [board.score for board in build_boards(found)] == ["fid"]
    assert len(problems) == 1
    assert "other is no finite number" in problems[0]


def test_folders_of_checkpoints_and_of_runs_are_not_walked(tmp_path: Path) -> None:
    write(tmp_path, record("a", 1.0))
    inside = [("e", "a", "backup"), ("wandb", "x"), ("e", "b", "checkpoints"), (".cache", "x")]
    for parts in inside:
        folder = tmp_path.joinpath(*parts)
        folder.mkdir(parents=True)
        write_record(folder / "result.json", record("hidden", 0.5))
    assert [run.record["run_name"] for run in find_records(tmp_path)[0]] == ["a"]


def test_several_folders_are_read_and_a_run_in_two_of_them_once(tmp_path: Path) -> None:
    write(tmp_path / "one", record("a", 1.0))
    write(tmp_path / "two", record("b", 2.0))
    found, _ = find_records([tmp_path / "one", tmp_path / "two", tmp_path])
    assert sorted(run.record["run_name"] for run in found) == ["a", "b"]


def test_the_table_fits_a_terminal_lists_seeds_and_marks_unfinished_runs_and_ties(tmp_path: Path) -> None:
    runs = [*seeds("mine", [1.2, 1.3]), *seeds("yours", [1.31]), record("stopped", 2.0, status="interrupted")]
    (board,) = boards_of(tmp_path, *runs, record("[red]x", 9.0))
    console = Console(width=80, record=True)
    console.print(to_table(board))
    text = console.export_text()
    assert "1 =" in text
    assert "1.25 ± 0.071" in text
    assert "seed1" in text
    assert "interrupted" in text
    assert "[red]x" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_command_prints_json_without_importing_torch(tmp_path: Path) -> None:
    write(tmp_path, record("a", 1.0))
    result = run_command("lightning-gen", "leaderboard", str(tmp_path), "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["boards"][0]["entries"][0]["runs"][0]["run"] == "e/a"
    page = str(tmp_path / "x.html")
    script = (
        "import sys; from lightning_gen.cli import app; from typer.testing import CliRunner; "
        f"result = CliRunner().invoke(app, ['leaderboard', {str(tmp_path)!r}, '--html', {page!r}]); "
        "assert result.exit_code == 0, result; "
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
