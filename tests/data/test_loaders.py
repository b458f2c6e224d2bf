from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_gen.data import ImageSet
from lightning_gen.data.loaders import InMemoryLoader, OrderedLoader, StreamingLoader, TrainingLoader
from lightning_gen.data.plan import BatchPlan
from lightning_gen.errors import UserError


def numbered(count: int) -> ImageSet:
    numbers = torch.arange(count)
    return ImageSet(numbers.to(torch.uint8)[:, None, None, None], numbers)


def in_memory(*sets: ImageSet, size: int = 8, **plan: Any) -> TrainingLoader:
    return InMemoryLoader(sets, BatchPlan(list(map(len, sets)), [size] * len(sets), **plan))


def streaming(*sets: ImageSet, size: int = 8, **plan: Any) -> TrainingLoader:
    return StreamingLoader(sets, BatchPlan(list(map(len, sets)), [size] * len(sets), **plan), num_workers=2)


both = pytest.mark.parametrize("make", [in_memory, streaming])


def seen(loader: TrainingLoader, column: int = 0) -> list[int]:
    labels = [columns[column].labels for columns in loader]
    return torch.cat([label for label in labels if label is not None]).tolist()


@both
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_shows_every_image_at_most_once_over_all_ranks(make: Callable[..., Any], world_size: int) -> None:
    ranks = [seen(make(numbered(100), seed=0, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert all(len(rank) == len(ranks[0]) for rank in ranks)
    together = [index for rank in ranks for index in rank]
    assert len(set(together)) == len(together)
    assert 100 - len(together) < 8 * world_size


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_in_order_every_image_comes_exactly_once_over_all_ranks(world_size: int, num_workers: int) -> None:
    ranks = []
    for rank in range(world_size):
        loader = OrderedLoader(numbered(100), 8, rank=rank, world_size=world_size, num_workers=num_workers)
        batches = [batch.labels.tolist() for (batch,) in loader]
        assert len(batches) == len(loader)
        ranks.append([label for batch in batches for label in batch])
        assert ranks[-1] == list(range(rank, 100, world_size))
    assert sorted(index for rank in ranks for index in rank) == list(range(100))


def test_images_and_labels_stay_together() -> None:
    for (batch,) in in_memory(numbered(50), seed=0):
        assert batch.labels is not None
        assert torch.equal(batch.images.flatten().long(), batch.labels)


@both
def test_epochs_and_seeds_differ_and_repeat(make: Callable[..., Any]) -> None:
    loader = make(numbered(64), seed=0)
    first, second = seen(loader), seen(loader)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(64))
    assert seen(make(numbered(64), seed=0)) == first
    assert seen(make(numbered(64), seed=1)) != first


def test_streaming_and_memory_give_the_same_batches() -> None:
    sets = numbered(50), numbered(20)
    ours, theirs = in_memory(*sets, seed=4, world_size=2), streaming(*sets, seed=4, world_size=2)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            assert all(torch.equal(a.images, b.images) for a, b in zip(one, other, strict=True))


def batches(loader: TrainingLoader, count: int) -> list[list[int]]:
    taken: list[list[int]] = []
    while len(taken) < count:
        for columns in loader:
            taken.append([int(label) for column in columns if column.labels is not None for label in column.labels])
            if len(taken) == count:
                break
    return taken


@both
@pytest.mark.parametrize("consumed", [0, 1, 5, 7, 8, 11])
def test_a_restored_loader_gives_the_very_next_batch(make: Callable[..., Any], consumed: int) -> None:
    loader = make(numbered(64), numbered(21), seed=3, rank=1, world_size=2)
    batches(loader, consumed)
    restored = make(numbered(64), numbered(21), seed=3, rank=1, world_size=2)
    restored.load_state_dict(loader.state_dict())
    assert batches(restored, 12) == batches(loader, 12)


def test_a_loader_can_go_back() -> None:
    loader = streaming(numbered(64), seed=3)
    state = loader.state_dict()
    first = batches(loader, 3)
    loader.load_state_dict(state)
    assert batches(loader, 3) == first


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_shorter_set_is_drawn_evenly_and_nothing_of_it_is_dropped(world_size: int) -> None:
    short: list[int] = []
    loaders = [in_memory(numbered(100), numbered(7), size=4, seed=0, rank=r, world_size=world_size) for r in range(3)]
    for _ in range(4):
        for loader in loaders[:world_size]:
            short += seen(InMemoryLoader(loader.sets, loader.plan), column=1)  # type: ignore[attr-defined]
    counts = torch.bincount(torch.tensor(short), minlength=7)
    assert counts.min() > 0
    in_turn = [index for step in range(25 // world_size) for index in step_of(loaders[:world_size], step)]
    for start in range(0, len(in_turn) - 6, 7):
        assert sorted(in_turn[start : start + 7]) == list(range(7))


def step_of(loaders: list[TrainingLoader], number: int) -> list[int]:
    """What all ranks together draw from the second set in one step, in the order of the underlying row."""
    ranks = [loader.plan.draws(number)[1].indices for loader in loaders]
    return torch.stack(ranks, dim=1).flatten().tolist()


def test_the_longest_set_makes_the_epoch_wherever_it_stands() -> None:
    assert len(in_memory(numbered(9), numbered(100), size=4, seed=0)) == 25
    assert sorted(seen(in_memory(numbered(9), numbered(100), size=4, seed=0), column=1)) == list(range(100))


def test_less_than_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match=r"lower data\.batch_size"):
        in_memory(numbered(10), seed=0, world_size=2)
    with pytest.raises(UserError, match=r"data\.batch_size must be at least 1"):
        in_memory(numbered(10), size=0, seed=0)


def test_digest_tells_content_apart() -> None:
    images = numbered(4)
    assert images.digest == numbered(4).digest
    assert images.digest != numbered(5).digest
    assert images.digest != ImageSet(images.images).digest
