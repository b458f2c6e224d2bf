import pytest
import torch
from scipy.spatial.distance import cdist

from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.tools import neighbors
from lightning_gen.tools.neighbors import TrainingImages, feature_embedding, pixel_embedding

CPU = torch.device("cpu")


def random_images(number: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 1, 6, 6), generator=rng, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "CHUNK", 7)


@pytest.mark.parametrize("keep", [False, True])
def test_nearest_equals_brute_force_across_chunks(keep: bool) -> None:
    train, queries = random_images(40, 0), random_images(17, 1)
    embed = pixel_embedding(CPU)
    found = TrainingImages(train, embed, keep).nearest(embed(queries), 5)
    distances = torch.from_numpy(cdist(queries.flatten(1).double(), train.flatten(1).double()))
    expected = distances.sort(1)
    assert torch.equal(found.indices, expected.indices[:, :5])
    assert torch.allclose(found.distances, expected.values[:, :5], rtol=1e-12)


def test_an_image_left_out_is_no_neighbor() -> None:
    train = random_images(20, 0)
    embed = pixel_embedding(CPU)
    training = TrainingImages(train, embed, keep=True)
    own = torch.arange(20)
    with_itself = training.nearest(embed(train), 2)
    without = training.nearest(embed(train), 1, leave_out=own)
    assert torch.equal(with_itself.indices[:, 0], own)
    assert with_itself.distances[:, 0].max() == 0
    assert torch.equal(without.indices[:, 0], with_itself.indices[:, 1])


def test_more_neighbors_than_images_are_all_images() -> None:
    train = random_images(9, 0)
    embed = pixel_embedding(CPU)
    found = TrainingImages(train, embed, keep=False).nearest(embed(train[:2]), 50)
    assert found.indices.sort(1).values.tolist() == [list(range(9))] * 2


def test_planted_copies_are_found_at_distance_0_and_raise_the_score_by_their_share() -> None:
    # Bright training images a step of 20 apart; samples far from all of them, but for two copies.
    train = torch.arange(100, 200, 20, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    far = torch.zeros(6, 1, 6, 6, dtype=torch.uint8)
    samples = torch.cat([far, train[[3, 1]]])
    embed = pixel_embedding(CPU)
    training = TrainingImages(train, embed, keep=False)
    found = training.nearest(embed(samples), 1)
    assert found.distances[6:, 0].tolist() == [0, 0]
    assert found.indices[6:, 0].tolist() == [3, 1]
    scores = training.memorization(embed(samples), embed(train + 10))
    assert scores.closer_share == 2 / 8
    assert scores.smallest_distance == 0
    # Held-out images lie half a step (10 levels, 6 per side) from their nearest: closer than its own nearest, 20.
    assert scores.held_out_closer_share == 1
    assert scores.distance_ratio == pytest.approx((6 * 100 * 6) / 8 / 60)
    assert training.memorization(embed(far), None) == (0, None, None, 600)


def test_a_copy_of_an_image_that_the_set_holds_twice_counts_too() -> None:
    train = torch.tensor([10, 10, 200], dtype=torch.uint8)[:, None, None, None]
    embed = pixel_embedding(CPU)
    training = TrainingImages(train, embed, keep=False)
    assert training.memorization(embed(train[:1]), None).closer_share == 1


def test_features_are_those_of_the_extractor() -> None:
    extractor = create_extractor("random")
    images = random_images(70, 3)
    assert torch.allclose(feature_embedding(extractor)(images), extractor(images).features.double(), atol=1e-6)
