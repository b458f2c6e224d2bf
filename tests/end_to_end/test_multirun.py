"""Several runs of one command: with Hydra's launchers, with several processes each, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from lightning_gen import multirun
from lightning_gen.configuration import config_dir, to_plain
from lightning_gen.errors import UserError
from lightning_gen.multirun import check_launcher, check_multirun
from lightning_gen.training import main
from tests.conftest import ROOT, SMALL, run_command

ENVIRONMENT = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'end_to_end' / 'sweepers'}", "OMP_NUM_THREADS": "1"}


def records(output: Path) -> dict[int, dict[str, Any]]:
    """The records of the runs in a folder, by seed."""
    found = [json.loads(file.read_text()) for file in (output / "tiny").glob("*/result.json")]
    assert len({record["run_name"] for record in found}) == len(found)
    return {record["seed"]: record for record in found}


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_runs_of_a_launcher_land_on_the_leaderboard(launcher: str, tmp_path: Path) -> None:
    plugin, extra = multirun.LAUNCHERS[launcher]
    pytest.importorskip(plugin, reason=f"pip install 'lightning-gen[{extra}]'")
    result = run_command(
        "train.py", "-m", *SMALL, "metrics=digits", f"launcher={launcher}", "seed=0,1", "trainer.max_steps=3",
        f"paths.output_dir={tmp_path}/runs",
        cwd=tmp_path, env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = records(tmp_path / "runs")
    assert {seed: record["status"] for seed, record in found.items()} == {0: "completed", 1: "completed"}
    assert found[0]["scores"] != found[1]["scores"]
    board = run_command("lightning-gen", "leaderboard", str(tmp_path / "runs"), "--json", cwd=tmp_path)
    assert board.returncode == 0, board.stderr
    content = json.loads(board.stdout)
    assert not content["skipped"]
    assert content["boards"]
    for each in content["boards"]:
        (entry,) = each["entries"]
        assert {run["run"] for run in entry["runs"]} == {f"tiny/{record['run_name']}" for record in found.values()}


def test_runs_of_two_processes_each_take_turns(tmp_path: Path) -> None:
    overrides = [*SMALL, "trainer=ddp_cpu", "resume=auto", "trainer.max_steps=3", "callbacks.interpolation=null"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **ENVIRONMENT}}
    many = run_command("train.py", "-m", *overrides, "seed=0,1", f"paths.output_dir={tmp_path}/many", **options)
    assert many.returncode == 0, many.stderr
    alone = run_command("train.py", *overrides, "seed=1", f"paths.output_dir={tmp_path}/alone", **options)
    assert alone.returncode == 0, alone.stderr
    found = records(tmp_path / "many")
    assert sorted(found) == [0, 1]
    assert all((record["status"], record["hardware"]["processes"]) == ("completed", 2) for record in found.values())
    assert found[1]["scores"] == records(tmp_path / "alone")[1]["scores"]
    assert found[1]["scores"] != found[0]["scores"]


def test_a_sweeper_that_draws_is_refused_with_several_processes(tmp_path: Path) -> None:
    """With the plugin of ``sweepers/``, as it would come from Optuna, Ax or Nevergrad."""
    command = ["train.py", "-m", *SMALL, "hydra/sweeper=drawing", "trainer.max_steps=2", f"paths.output_dir={tmp_path}"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **ENVIRONMENT}}
    refused = run_command(*command, "trainer=ddp_cpu", **options)
    assert refused.returncode == 2
    (line,) = (line for line in refused.stderr.splitlines() if line.startswith("error: "))
    assert "DrawingSweeper would draw other parameters in every process" in line
    assert not (tmp_path / "tiny").exists()
    allowed = run_command(*command, **options)
    assert allowed.returncode == 0, allowed.stderr
    assert len(records(tmp_path)) == 1


@pytest.fixture
def composed() -> Iterator[Any]:
    """Check a multirun's config: ``composed("trainer=ddp", launcher=..., sweeper=...)``."""

    def check(*overrides: str, mode: str = "MULTIRUN", **targets: str) -> None:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            changes = [f"hydra.{name}._target_={target}" for name, target in targets.items()]
            hydra_changes = [f"hydra.mode={mode}", *changes]
            config = compose("train", overrides=[*overrides, *hydra_changes], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            check_multirun(to_plain(config))

    yield check
    GlobalHydra.instance().clear()


OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


def test_what_cannot_train_one_run_together_is_refused(composed: Any) -> None:
    for trainer in ("ddp", "ddp_cpu"):
        with pytest.raises(UserError, match="OptunaSweeper would draw other parameters"):
            composed(f"trainer={trainer}", sweeper=OPTUNA)
        with pytest.raises(UserError, match="cannot start a run's processes under JoblibLauncher"):
            composed(f"trainer={trainer}", launcher=JOBLIB)


def test_what_can_train_one_run_together_is_not_refused(composed: Any) -> None:
    composed("trainer=ddp")
    composed("trainer=cpu", sweeper=OPTUNA, launcher=JOBLIB)
    composed("trainer=ddp", sweeper=OPTUNA, mode="RUN")
    composed("trainer=ddp", sweeper=OPTUNA, launcher=SUBMITIT)  # srun starts the processes, with the drawn parameters


def test_a_launcher_without_its_plugin_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multirun.LAUNCHERS, "ray", ("hydra_plugins.nothing_of_this_name", "ray"))
    with pytest.raises(UserError, match=r"launcher=ray needs .*: pip install 'lightning-gen\[ray\]'"):
        check_launcher(["seed=0,1", "launcher=ray"], True)
    check_launcher(["seed=0,1"], True)


def test_a_launcher_of_a_single_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "launcher=joblib"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: launcher=joblib starts the runs of a multirun: add -m\n"
