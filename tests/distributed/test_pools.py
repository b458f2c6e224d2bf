"""Replay pools under two gloo processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.cyclegan import CycleGAN
from lightning_gen.models.replay_pool import own_pool
from tests.distributed.launch import reports_of_two_ranks
from tests.distributed.pools import digest_of

Report = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, Report]:
    folder = tmp_path_factory.mktemp("pools")
    first, second = reports_of_two_ranks("pools.py", folder)
    return folder, first, second


def test_ranks_have_equal_parameters_and_different_pools(trained: tuple[Path, Report, Report]) -> None:
    _, first, second = trained
    for run in ("whole", "half", "resumed"):
        assert first[run]["parameters"] == second[run]["parameters"]
        assert first[run]["A"] != second[run]["A"]
        assert first[run]["B"] != second[run]["B"]
    assert first["half"]["parameters"] != first["whole"]["parameters"]


def test_one_checkpoint_holds_the_pools_of_all_ranks_and_each_goes_on_with_its_own(
    trained: tuple[Path, Report, Report],
) -> None:
    folder, *ranks = trained
    pools = read_checkpoint(folder / "half.ckpt")["replay_pools"]
    for domain in ("A", "B"):
        assert [digest_of(pool) for pool in pools[domain]] == [rank["half"][domain] for rank in ranks]
    assert [rank["resumed"] for rank in ranks] == [rank["whole"] for rank in ranks]


def test_one_process_reads_the_checkpoint_of_two(trained: tuple[Path, Report, Report]) -> None:
    folder, first, _ = trained
    model = load_model(read_checkpoint(folder / "half.ckpt"))
    assert isinstance(model, CycleGAN)
    assert digest_of(model.pools["A"].images) == first["half"]["A"]


@pytest.mark.parametrize(("rank", "expected"), [(0, 0), (1, 1), (2, 0), (3, 1)])
def test_of_more_processes_some_begin_with_the_same_pool(
    rank: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    pools = [torch.full((2, 1, 1, 1), float(number)) for number in range(2)]
    chosen = own_pool(pools)
    assert chosen is pools[expected]
