"""The batch scripts of slurm/, run with an ``srun`` that writes down what it is called with."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from lightning_gen.configuration import compose_config
from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "slurm").glob("*.sh"))


def srun_arguments(script: Path, folder: Path) -> list[str]:
    """Run a script as Slurm would; what ``srun`` got, and that its exit status is the script's."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "srun").write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" > {folder}/srun\nexit 75\n')
    (programs / "srun").chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'export PATH="{programs}:$PATH"\n')
    variables = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "4", "SLURM_CPUS_PER_TASK": "2"}
    command = ["bash", str(script), "experiment=dcgan_cifar10", "tags=[a b]"]
    environment = {**os.environ, **variables}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (75, "")
    return (folder / "srun").read_text().split("\0")[:-1]


def test_there_are_scripts_for_one_node_several_nodes_and_a_sweep() -> None:
    assert [script.name for script in SCRIPTS] == ["array_sweep.sh", "multi_node.sh", "single_node.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_syntax_is_right_and_two_lines_are_to_be_changed(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    lines = script.read_text().splitlines()
    changes = [line for line in lines if "# change:" in line]
    assert [line.split("=")[0] for line in changes] == ["#SBATCH --partition", "ENVIRONMENT"]
    directives = [line for line in lines if line.startswith("#SBATCH")]
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(line in lines[:first_command] for line in directives)
    for option in ("--requeue", "--open-mode=append", "--ntasks-per-node="):
        assert any(option in line for line in directives), option
    assert any(re.search(r"--signal=USR1@\d+$", line) for line in directives)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_command_composes_and_its_run_name_is_the_jobs(script: Path, tmp_path: Path) -> None:
    arguments = srun_arguments(script, tmp_path)
    start = arguments.index("train.py")
    assert arguments[start - 1] == "python"
    config = compose_config(arguments[start + 1 :])
    assert config["run_name"] == ("slurm-5_4" if script.stem == "array_sweep" else "slurm-7")
    assert config["resume"] == "auto"
    assert config["experiment_name"] == "dcgan_cifar10"
    assert config["tags"] == ["a b"]
    assert config["trainer"]["strategy"] == "ddp_find_unused_parameters_true"
    if script.stem == "array_sweep":
        assert (config["seed"], config["model"]["generator_optimizer"]["lr"]) == (1, 2e-4)
