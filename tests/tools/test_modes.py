import math

import pytest
import torch

from lightning_gen.tools.modes import compare_modes


def test_counts_kl_and_missing_classes_by_hand() -> None:
    # p = (3/4, 1/4, 0) from q = (1/2, 1/4, 1/4): 3/4 ln(3/2) + 1/4 ln 1
    found = compare_modes(torch.tensor([0, 1, 0, 0]), [0.5, 0.25, 0.25])
    assert found.counts == [3, 1, 0]
    assert found.kl == pytest.approx(0.75 * math.log(1.5), rel=1e-12)
    assert found.missing == [2]


def test_equal_classes_have_no_divergence_and_one_class_alone_that_of_its_share() -> None:
    assert compare_modes(torch.tensor([0, 1, 2, 3]), [0.25] * 4).kl == 0
    assert compare_modes(torch.full((10,), 2), [0.25] * 4).kl == pytest.approx(math.log(4), rel=1e-12)


def test_a_class_that_the_data_lack_is_not_missing_and_makes_the_divergence_infinite() -> None:
    found = compare_modes(torch.tensor([0, 1]), [1.0, 0.0, 0.0])
    assert found.kl == math.inf
    assert found.missing == []
    plain = found.to_json(["a", "b", "c"])
    assert plain["kl"] is None
    assert plain["classes"]["b"] == {"samples": 1, "data": 0.0}
