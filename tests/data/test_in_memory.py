import pytest
import torch

from lightning_gen.data import ImageSet, InMemoryLoader
from lightning_gen.errors import UserError


def numbered(count: int) -> ImageSet:
    numbers = torch.arange(count)
    return ImageSet(numbers.to(torch.uint8)[:, None, None, None], numbers)


def seen(loader: InMemoryLoader) -> list[int]:
    labels = [batch.labels for batch in loader]
    return torch.cat([label for label in labels if label is not None]).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_shows_every_image_at_most_once_over_all_ranks(world_size: int) -> None:
    loaders = [InMemoryLoader(numbered(100), 8, seed=0, rank=r, world_size=world_size) for r in range(world_size)]
    ranks = [seen(loader) for loader in loaders]
    assert all(len(rank) == len(ranks[0]) for rank in ranks)
    together = [index for rank in ranks for index in rank]
    assert len(set(together)) == len(together)
    assert 100 - len(together) < 8 * world_size


def test_images_and_labels_stay_together() -> None:
    for batch in InMemoryLoader(numbered(50), 8, seed=0):
        assert batch.labels is not None
        assert torch.equal(batch.images.flatten().long(), batch.labels)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    loader = InMemoryLoader(numbered(64), 8, seed=0)
    first, second = seen(loader), seen(loader)
    assert first != second
    assert sorted(first) == sorted(second)
    assert seen(InMemoryLoader(numbered(64), 8, seed=0)) == first
    assert seen(InMemoryLoader(numbered(64), 8, seed=1)) != first


@pytest.mark.parametrize("consumed", [0, 1, 5, 7, 8, 11])
def test_a_restored_loader_gives_the_very_next_batch(consumed: int) -> None:
    def stream(loader: InMemoryLoader, count: int) -> list[list[int]]:
        batches: list[list[int]] = []
        while len(batches) < count:
            for batch in loader:
                assert batch.labels is not None
                batches.append(batch.labels.tolist())
                if len(batches) == count:
                    break
        return batches

    loader = InMemoryLoader(numbered(64), 8, seed=3)
    stream(loader, consumed)
    restored = InMemoryLoader(numbered(64), 8, seed=3)
    restored.load_state_dict(loader.state_dict())
    assert stream(restored, 12) == stream(loader, 12)


def test_less_than_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match=r"lower data\.batch_size"):
        InMemoryLoader(numbered(10), 8, seed=0, world_size=2)


def test_digest_tells_content_apart() -> None:
    images = numbered(4)
    assert images.digest == numbered(4).digest
    assert images.digest != numbered(5).digest
    assert images.digest != ImageSet(images.images).digest
