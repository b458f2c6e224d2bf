"""Processes that torchrun starts, on one node and on two, agree on one run directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.slurm import free_ports
from tests.conftest import ROOT, SMALL


def torchrun(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [*SMALL, "trainer=ddp_cpu", "trainer.max_steps=6", f"paths.output_dir={folder}/runs", *overrides]
    return subprocess.run(
        [*launcher, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_one_run_directory_for_all_processes(tmp_path: Path) -> None:
    result = torchrun(tmp_path, "run_name=both")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == ["both"]
    record = json.loads((tmp_path / "runs" / "tiny" / "both" / "result.json").read_text())
    assert (record["status"], record["iterations"], record["images_seen"]) == ("completed", 6, 6 * 32 * 2)
    taken = torchrun(tmp_path, "run_name=both")
    assert taken.returncode != 0
    assert "choose another run_name" in taken.stderr


def test_each_run_of_a_multirun_on_two_nodes_has_a_directory_of_its_own(tmp_path: Path) -> None:
    rendezvous = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_ports(1)[0]}"]
    two_nodes = ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2", "trainer.max_steps=3"]
    arguments = ["-m", *SMALL, *two_nodes, "seed=0,1", f"paths.output_dir={tmp_path}/runs"]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *rendezvous, f"--node-rank={node}", "train.py", *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    errors = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    records = [json.loads(file.read_text()) for file in (tmp_path / "runs" / "tiny").glob("*/result.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    for record in records:
        assert (record["status"], record["images_seen"]) == ("completed", 3 * 32 * 2)
        assert (record["hardware"]["processes"], record["hardware"]["nodes"]) == (2, 2)
