"""A short fault campaign (benchmarks/fault_campaign.py is the long one): kills in every phase leave no trace."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults import (
    check_equal_ends,
    check_no_torn_file,
    disturb,
    make_images,
    phase_seconds,
    plan_kills,
    start,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "images"
    make_images(folder)
    return folder


def test_five_kills_in_five_phases_leave_no_trace(images: Path, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    whole.mkdir()
    assert start(images, whole, processes=1)[0] == 0
    check_no_torn_file(whole)
    outcomes = disturb(images, disturbed, 1, plan_kills(random.Random(seed), 1), phase_seconds(whole))
    assert all(outcome.fired_at is not None for outcome in outcomes if outcome.kill)
    check_equal_ends(whole, disturbed)


def test_two_processes_killed_in_training_leave_no_trace(images: Path, tmp_path: Path) -> None:
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    whole.mkdir()
    assert start(images, whole, processes=2)[0] == 0
    kills = plan_kills(random.Random(os.urandom(4)), 2, ("training", "checkpoint"))
    disturb(images, disturbed, 2, kills, phase_seconds(whole))
    check_equal_ends(whole, disturbed)
