"""Every model under two gloo processes, in one launch."""

from __future__ import annotations

import pytest

from tests.distributed.launch import reports_of_two_ranks
from tests.models.tiny import EVERY_MODEL

Digests = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Digests, Digests]:
    folder = tmp_path_factory.mktemp("family")
    return reports_of_two_ranks("family.py", folder)


@pytest.mark.parametrize("model", EVERY_MODEL)
def test_ranks_begin_and_end_with_equal_parameters(model: str, ranks: tuple[Digests, Digests]) -> None:
    first, second = (rank[model] for rank in ranks)
    assert first == second
    assert first["before"] != first["after"]
    assert first["iterations"] == 3
