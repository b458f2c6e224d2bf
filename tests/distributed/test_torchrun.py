"""Processes that torchrun starts agree on one run directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
