"""Which pseudo labels a round takes, by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_gen.models.pool_choice import choose_confident, merge_choices, pool_size

CONFIDENCES = torch.tensor([0.9, 0.5, 0.8, 0.95, 0.8, 0.6])
LABELS = torch.tensor([0, 1, 0, -1, 1, 1])


@pytest.mark.parametrize(
    ("number", "options", "expected"),
    [
        (0, {}, [-1, -1, -1, -1, -1, -1]),
        (1, {}, [0, -1, -1, -1, -1, -1]),
        # Equals: the first one first.
        (2, {}, [0, -1, 0, -1, -1, -1]),
        (3, {}, [0, -1, 0, -1, 1, -1]),
        (99, {}, [0, 1, 0, -1, 1, 1]),
        (99, {"threshold": 0.8}, [0, -1, 0, -1, 1, -1]),
        (99, {"threshold": 0.96}, [-1, -1, -1, -1, -1, -1]),
        (3, {"classes": 2}, [0, -1, -1, -1, 1, -1]),
        (4, {"classes": 2}, [0, -1, 0, -1, 1, 1]),
        (6, {"classes": 2, "threshold": 0.55}, [0, -1, 0, -1, 1, 1]),
        (1, {"classes": 2}, [-1, -1, -1, -1, -1, -1]),
    ],
)
def test_the_most_confident_are_chosen(number: int, options: dict[str, float], expected: list[int]) -> None:
    assert choose_confident(CONFIDENCES, LABELS, number, **options).tolist() == expected  # type: ignore[arg-type]


def test_many_equals_are_taken_from_the_first() -> None:
    labels = torch.arange(5000) % 3
    chosen = choose_confident(torch.full((5000,), 0.5), labels, 60, classes=3)
    assert torch.equal(chosen[:60], labels[:60])
    assert (chosen[60:] == -1).all()


def test_the_more_confident_of_two_is_followed_and_of_equals_the_first() -> None:
    chosen = torch.tensor([[0, 0, 0, -1, -1], [1, 1, 1, 1, -1]])
    confidences = torch.tensor([[0.9, 0.6, 0.7, 0.99, 0.9], [0.8, 0.7, 0.7, 0.5, 0.9]])
    labels, sure = merge_choices(chosen, confidences)
    assert labels.tolist() == [0, 1, 0, 1, -1]
    assert sure.tolist() == pytest.approx([0.9, 0.7, 0.7, 0.5, -1])


def test_the_pool_grows_linearly_from_the_first_round_to_the_last() -> None:
    assert [pool_size(200, number, 5, 0.1, 0.5) for number in range(1, 6)] == [20, 40, 60, 80, 100]
    assert pool_size(200, 1, 1, 0.1, 0.5) == 100
    assert pool_size(3, 2, 2, 0.0, 1.0) == 3
