from typing import Any

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.regularizers import regularizers
from tests.regularizers.steps import players


def test_the_largest_logits_are_kept() -> None:
    made: Any = regularizers["top_k"](fraction=0.5, anneal_images=1000)
    logits = torch.tensor([0.1, -3.0, 2.0, 0.5], requires_grad=True)
    assert sorted(made.select_logits(logits, 0).tolist()) == sorted(logits.tolist())
    kept = made.select_logits(logits, 1000)
    assert sorted(kept.tolist()) == [0.5, 2.0]
    kept.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [0, 0, 1, 1]


def test_the_papers_schedule_takes_a_constant_factor_an_epoch() -> None:
    made: Any = regularizers["top_k"]()
    for epoch in range(0, 69, 4):
        assert made.kept(64, 50_000 * epoch) == pytest.approx(64 * 0.99**epoch, abs=1.05)
    assert made.kept(64, 3_450_000) == made.kept(64, 10_000_000) == 32
    numbers = [made.kept(64, images) for images in range(0, 4_000_000, 10_000)]
    assert numbers[0] == 64
    assert numbers == sorted(numbers, reverse=True)


def test_something_is_always_kept() -> None:
    made: Any = regularizers["top_k"](fraction=0.01, anneal_images=1)
    assert made.kept(8, 5) == 1


def test_values_out_of_range_are_refused() -> None:
    for options in ({"fraction": 0.0}, {"fraction": 1.5}, {"anneal_images": 0}):
        with pytest.raises(UserError, match=r"regularizers\.top_k"):
            regularizers["top_k"](**options)


def test_losses_without_single_logits_are_refused() -> None:
    made = regularizers["top_k"]()
    made.check(players())
    with pytest.raises(UserError, match=r"model\.loss=relativistic compares images in pairs"):
        made.check(players(loss="relativistic"))
    with pytest.raises(UserError, match=r"feature_matching\.replaces_loss=false"):
        made.check(players(chosen={"feature_matching": regularizers["feature_matching"]()}))
    made.check(players(chosen={"feature_matching": regularizers["feature_matching"](replaces_loss=False)}))
