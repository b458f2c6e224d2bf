"""Every model under two gloo processes, in one launch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.models.tiny import EVERY_MODEL

Digests = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Digests, Digests]:
    folder = tmp_path_factory.mktemp("family")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(Path(__file__).with_name("family.py")), str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2))
    return first, second


@pytest.mark.parametrize("model", EVERY_MODEL)
def test_ranks_begin_and_end_with_equal_parameters(model: str, ranks: tuple[Digests, Digests]) -> None:
    first, second = (rank[model] for rank in ranks)
    assert first == second
    assert first["before"] != first["after"]
    assert first["iterations"] == 3
