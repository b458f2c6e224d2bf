"""Sweep files: every parameter is an override that a run takes, in the form in which W&B's agent passes it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lightning_gen.configuration import compose_config
from tests.conftest import ROOT

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))


def examples(parameter: dict[str, Any]) -> list[Any]:
    return parameter.get("values") or [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_agents_arguments_compose(file: Any) -> None:
    sweep = yaml.safe_load(file.read_text())
    assert (ROOT / sweep["program"]).is_file()
    for choose in (0, -1):
        values = {name: examples(parameter)[choose] for name, parameter in sweep["parameters"].items()}
        arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
        config = compose_config(arguments["args_no_hyphens"])
        for name, value in values.items():
            node: Any = config
            for key in name.split("."):
                node = node[key]
            assert node == value
    score = sweep["metric"]["name"].removeprefix("score/")
    assert score == "fd_" + compose_config([])["metrics"]["extractor"]["name"]
