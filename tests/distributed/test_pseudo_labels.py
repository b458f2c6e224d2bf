"""Rounds of pseudo labels under two gloo processes."""

from __future__ import annotations

from pathlib import Path

from lightning_gen.tracking.run_directory import RunDirectory
from tests.distributed.launch import reports_of_two_ranks


def test_both_ranks_have_the_pseudo_labels_that_one_process_would_give(tmp_path: Path) -> None:
    first, second = reports_of_two_ranks("pseudo_labels.py", tmp_path)
    assert first["parameters"] == second["parameters"]
    assert first["together"] == second["together"] == first["alone"] == second["alone"]
    for_a, for_b = first["together"]
    assert for_a != for_b
    lines = RunDirectory(tmp_path).read_rounds()
    assert [(line["iteration"], line["round"]) for line in lines] == [(2, 1), (4, 2)], "one process writes"
    assert [pool["images"] for pool in lines[-1]["pools"]] == [
        sum(label >= 0 for label in row) for row in (for_a, for_b)
    ]
    assert min(pool["images"] for pool in lines[-1]["pools"]) > 500
