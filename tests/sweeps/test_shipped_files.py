"""The files in ``sweeps/``: a run takes what W&B's agent passes, and this driver starts what the agent would start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lightning_gen.configuration import compose_config
from lightning_gen.sweeps.commands import MACROS, trial_command
from lightning_gen.sweeps.parameters import read_parameter
from lightning_gen.sweeps.sweep_file import read_sweep
from tests.conftest import ROOT

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


def agents_command(command: list[str], program: str, values: dict[str, Any]) -> list[str]:
    """The words that W&B's agent starts: its client's helpers for the parts, joined as in ``wandb/wandb_agent.py``."""
    parts = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    parts |= {"interpreter": ["python"], "program": [program], "env": ["/usr/bin/env"]}
    words: list[str] = []
    for word in create_sweep_command(list(command)):
        words += parts.get(word[2:-1], []) if word.startswith("${") and word.endswith("}") else [word]
    return words


def ends(parameter: dict[str, Any]) -> tuple[Any, Any]:
    if "value" in parameter:
        return parameter["value"], parameter["value"]
    if "values" in parameter:
        return parameter["values"][0], parameter["values"][-1]
    return parameter["min"], parameter["max"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_agents_arguments_compose(file: Path) -> None:
    sweep = yaml.safe_load(file.read_text())
    assert (ROOT / sweep["program"]).is_file()
    for choose in (0, 1):
        values = {name: ends(parameter)[choose] for name, parameter in sweep["parameters"].items()}
        arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
        config = compose_config(arguments["args_no_hyphens"])
        assert sweep["metric"]["name"] == f"score/fd_{config['metrics']['extractor']['name']}"
        for name, value in values.items():
            if name in ("experiment", "regularizer"):
                continue
            node: Any = config
            for key in name.split("."):
                node = node[key]
            assert node == value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_trials_command_is_that_of_the_agent(file: Path) -> None:
    source = yaml.safe_load(file.read_text())
    sweep = read_sweep(file)
    for choose in (0, 1):
        values = {name: ends(parameter)[choose] for name, parameter in source["parameters"].items()}
        assert trial_command(sweep.command, sweep.program, values) == agents_command(
            source["command"], source["program"], values
        )


def test_the_commands_of_all_macros_and_values_are_those_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_TEST", "from the environment")
    command = [
        *(f"${{{macro}}}" for macro in MACROS),
        "--at=${envvar:SWEEP_TEST}",
        "${envvar:NOT_SET_ANYWHERE}",
        "plain",
    ]
    values = {"a.b": 1, "c": 1e-05, "d": 0.1, "e": True, "f": False, "g": None, "h": "text", "i": [1, "x"], "j": 1e20}
    expected = agents_command(command, "train.py", values)
    assert trial_command(command, "train.py", values) == expected
    assert "--at=from the environment" in expected
    assert os.environ["SWEEP_TEST"] == "from the environment"


def test_drawn_values_are_plain_numbers_on_the_command_line() -> None:
    parameter = read_parameter("x", {"distribution": "beta", "a": 2, "b": 2})
    assert trial_command(["${args_no_hyphens}"], "train.py", {"x": parameter.value(0.5)}) == ["x=0.5"]
