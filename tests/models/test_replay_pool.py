from __future__ import annotations

import pytest
import torch

from lightning_gen.models.replay_pool import ReplayPool, gather_pools, own_pool


def numbered(first: int, number: int) -> torch.Tensor:
    """Images each of which is its number throughout."""
    return torch.arange(first, first + number, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def values(images: torch.Tensor | None) -> list[int]:
    assert images is not None
    assert (images == images[:, :1, :1, :1]).all(), "no image is a mixture"
    return [int(value) for value in images[:, 0, 0, 0]]


def test_the_first_images_come_back_as_they_came_and_are_kept() -> None:
    pool = ReplayPool(50)
    torch.manual_seed(0)
    for first in range(0, 48, 4):
        assert values(pool.exchange(numbered(first, 4))) == list(range(first, first + 4))
    handed_out = values(pool.exchange(numbered(48, 2)))
    assert handed_out == [48, 49]
    assert values(pool.images) == list(range(50))


def test_a_full_pool_gives_an_earlier_image_for_half_of_the_new_ones() -> None:
    pool = ReplayPool(50)
    torch.manual_seed(0)
    pool.exchange(numbered(0, 50))
    kept = set(range(50))
    exchanged, ages = 0, []
    for number in range(50, 4050):
        (value,) = values(pool.exchange(numbered(number, 1)))
        if value != number:
            exchanged += 1
            ages.append(number - value)
            assert value in kept, "it was in the pool"
            kept = kept - {value} | {number}
        assert set(values(pool.images)) == kept
    # Four standard deviations of a binomial of 4000 and 1/2; 100 images pass on average before one is drawn.
    assert exchanged == pytest.approx(2000, abs=4 * 32)
    assert sum(ages) / len(ages) == pytest.approx(100, rel=0.15)


def test_images_of_one_batch_are_exchanged_one_after_the_other() -> None:
    """With a single place each exchanged image is handed out at the next exchange, also within a batch."""
    pool = ReplayPool(1)
    torch.manual_seed(3)
    handed_out = values(pool.exchange(numbered(0, 200)))
    assert handed_out[0] == 0
    earlier = [value for place, value in enumerate(handed_out) if value != place]
    assert earlier == sorted(earlier)
    assert earlier[0] == 0
    assert len(earlier) > 70
    assert sorted([*handed_out[1:], values(pool.images)[0]]) == list(range(200)), "none is lost and none is doubled"


def test_the_batch_is_left_as_it_is_and_a_pool_of_none_does_nothing() -> None:
    torch.manual_seed(0)
    pool = ReplayPool(2)
    images = numbered(0, 30)
    pool.exchange(images)
    assert values(images) == list(range(30))
    state = torch.get_rng_state()
    assert ReplayPool(0).exchange(images) is images
    assert torch.equal(torch.get_rng_state(), state)


def test_a_restored_pool_goes_on_exactly() -> None:
    first, second = ReplayPool(5), ReplayPool(5)
    torch.manual_seed(0)
    first.exchange(numbered(0, 3))
    second.restore(own_pool(gather_pools(first.images, torch.device("cpu"))))
    for start in range(3, 60, 3):
        torch.manual_seed(start)
        expected = values(first.exchange(numbered(start, 3)))
        torch.manual_seed(start)
        assert values(second.exchange(numbered(start, 3))) == expected
        assert values(second.images) == values(first.images)


def test_what_is_gathered_is_a_copy() -> None:
    pool = ReplayPool(3)
    pool.exchange(numbered(0, 3))
    (saved,) = gather_pools(pool.images, torch.device("cpu"))
    assert pool.images is not None
    pool.images.zero_()
    assert values(saved) == [0, 1, 2]


def test_a_smaller_pool_takes_the_first_images_and_an_empty_one_none() -> None:
    pool = ReplayPool(3)
    pool.restore(numbered(0, 5))
    assert values(pool.images) == [0, 1, 2]
    pool.restore(own_pool(gather_pools(None, torch.device("cpu"))))
    assert pool.images is None
