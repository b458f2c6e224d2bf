import json
import time
from pathlib import Path

import pytest

from lightning_gen.errors import UserError
from lightning_gen.tracking.run_directory import create_run, find_run, open_folder, open_run
from lightning_gen.tracking.run_lock import hold, release
from tests.conftest import forked


def test_names_never_collide(tmp_path: Path) -> None:
    names = [create_run(tmp_path / "e", "seed0", exact=False).name for _ in range(3)]
    assert names == ["seed0", "seed0-2", "seed0-3"]
    with pytest.raises(UserError, match="resume=auto or choose another run_name"):
        create_run(tmp_path / "e", "seed0", exact=True)


def test_the_newest_run_of_a_name_is_found(tmp_path: Path) -> None:
    assert find_run(tmp_path, "a") is None
    for _ in range(2):
        run = create_run(tmp_path, "a", exact=False)
        run.write_config({"seed": 1})
    create_run(tmp_path, "a", exact=False)  # died before it wrote its config
    found = find_run(tmp_path, "a")
    assert found is not None
    assert found.name == "a-2"
    assert found.read_config() == {"seed": 1}


def test_unwritable_places_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths\.output_dir") as caught:
        create_run(tmp_path / "file" / "experiment", "a", exact=False)
    assert "\n" not in str(caught.value)


def test_metrics_survive_a_torn_line_and_rewind(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", exact=True)
    run.rewind_metrics(5)
    for iteration in (10, 20, 30):
        run.append_metrics({"iteration": iteration, "scores": []})
    whole = run.metrics_file.read_text()
    with run.metrics_file.open("a") as file:
        file.write('{"iteration": 40, "sco')
    assert [line["iteration"] for line in run.read_metrics()] == [10, 20, 30]
    run.rewind_metrics(20)
    assert run.metrics_file.read_text() == "".join(whole.splitlines(keepends=True)[:2])
    run.append_metrics({"iteration": 30, "scores": []})
    assert run.metrics_file.read_text() == whole


def test_open_run_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No run directory or checkpoint"):
        open_run(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a run directory"):
        open_run(tmp_path)
    run = create_run(tmp_path, "a", exact=True)
    run.write_config({})
    with pytest.raises(UserError, match="no checkpoint yet"):
        open_run(run.path)
    run.last_checkpoint.write_bytes(b"x")
    assert open_run(run.path)[1] == run.last_checkpoint
    assert open_run(run.last_checkpoint)[0].path == run.path


def test_lines_are_json(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", exact=True)
    run.append_metrics({"iteration": 1, "value": 0.1 + 0.2})
    assert json.loads(run.metrics_file.read_text())["value"] == 0.1 + 0.2


def test_one_process_at_a_time_holds_a_run(tmp_path: Path) -> None:
    def hold_for_ever(ready: str) -> None:
        hold(tmp_path)
        Path(ready).touch()
        time.sleep(60)

    process = forked(hold_for_ever, str(tmp_path / "ready"))
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"in use by process {process.pid} on .*another run_name") as caught:
        hold(tmp_path)
    assert "\n" not in str(caught.value)
    process.kill()
    process.join()
    hold(tmp_path)  # a lock dies with its holder
    hold(tmp_path)
    release(tmp_path)
    release(tmp_path)


def test_a_run_that_was_killed_before_it_began_gets_its_directory_back(tmp_path: Path) -> None:
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    run = open_folder(tmp_path / "a")
    assert run.samples.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths\.output_dir"):
        open_folder(tmp_path / "file" / "a")
