from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from lightning_gen.metrics.base import Score, score_metrics
from lightning_gen.metrics.evaluator import Drawn, Evaluator
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.extractors.random_convolution import RandomExtractor
from lightning_gen.metrics.reference import ReferenceImages, load_reference
from lightning_gen.metrics.statistics import GaussianStatistics
from tests.conftest import forked

PARTS = ("statistics", "features", "class_counts")
NEIGHBOR_SCORES = ("precision", "recall", "density", "coverage", "authenticity")
ALL = ("frechet_distance", *NEIGHBOR_SCORES, "class_accuracy", "class_kl", "missing_modes")
EVERY = tuple(name for name in score_metrics if not name.startswith("test_"))


def images(count: int = 150, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=rng)


def noise(number: int, rng: torch.Generator) -> Drawn:
    labels = torch.randint(0, 10, (number,), generator=rng)
    return Drawn(torch.rand(number, 1, 8, 8, generator=rng) * 2 - 1, labels)


def walk(number: int, step: float, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    start = torch.rand(number, 1, 8, 8, generator=rng)
    return start, start + step * torch.rand(number, 1, 8, 8, generator=rng)


def evaluate(tmp_path: Path, *metrics: str, rank: int = 0, world_size: int = 1, **options: Any) -> list[Score]:
    defaults = {"num_samples": 101, "block_size": 16, "max_features": 70, "cache_dir": tmp_path}
    evaluator = Evaluator({"name": "random", "num_features": 8}, metrics, **{**defaults, **options})
    evaluator.set_reference("noise", images(), torch.arange(150) % 10)
    return evaluator.evaluate(
        noise,
        images_seen=0,
        weights="raw",
        sampler={},
        labels={"law": "flat"},
        walk=walk,
        rank=rank,
        world_size=world_size,
    )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that go through the random extractor."""
    seen: list[int] = []
    forward = RandomExtractor.forward

    def counted(self: RandomExtractor, batch: torch.Tensor) -> Any:
        seen.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(RandomExtractor, "forward", counted)
    return seen


def test_one_pass_gives_all_parts_and_files_keep_them(tmp_path: Path, passes: list[int]) -> None:
    extractor = create_extractor("random")
    reference = ReferenceImages.of("noise", "train", images())
    first = load_reference(reference, extractor, tmp_path, PARTS, 70)
    assert sum(passes) == 150
    again = load_reference(reference, extractor, tmp_path, PARTS, 70)
    assert sum(passes) == 150
    for found in (first, again):
        assert isinstance(found.statistics, GaussianStatistics)
        assert found.features is not None
        assert found.class_counts is not None
        output = extractor(images())
        assert output.logits is not None
        torch.testing.assert_close(found.statistics.mean, output.features.double().mean(0))
        assert found.class_counts.tolist() == output.logits.argmax(1).bincount(minlength=10).tolist()
        assert found.features.features.shape == (70, 16)
    passes.clear()
    smaller = load_reference(reference, extractor, tmp_path, ["features"], 20)
    assert smaller.statistics is None
    assert smaller.features is not None
    assert len(smaller.features.features) == 20
    assert sum(passes) == 150
    assert len(list(tmp_path.glob("*.npz"))) == 4


def test_the_images_whose_features_are_kept_are_evenly_spaced(tmp_path: Path) -> None:
    extractor = create_extractor("random")
    reference = ReferenceImages.of("noise", "train", images())
    features = extractor(images()).features
    for number, expected in ((10, torch.arange(0, 150, 15)), (1000, torch.arange(150))):
        found = load_reference(reference, extractor, tmp_path, ["features"], number).features
        assert found is not None
        torch.testing.assert_close(found.features, features[expected])


def test_only_what_the_metrics_need_is_computed(tmp_path: Path) -> None:
    for metric, part in (("frechet_distance", ""), ("recall", "features"), ("class_kl", "classes")):
        evaluate(tmp_path / metric, metric)
        (file,) = (tmp_path / metric).glob("*.npz")
        assert part in file.name
    evaluate(tmp_path / "none", "inception_score")
    assert not list(tmp_path.glob("none/*"))


def test_a_damaged_file_of_features_is_replaced(tmp_path: Path) -> None:
    first = evaluate(tmp_path, *NEIGHBOR_SCORES, "class_kl")
    for file in tmp_path.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert [s.value for s in evaluate(tmp_path, *NEIGHBOR_SCORES, "class_kl")] == [s.value for s in first]
    assert min(file.stat().st_size for file in tmp_path.glob("*.npz")) > 100


def test_reference_radii_are_computed_once_for_all_scores_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_gen.metrics import neighbors

    sizes: list[int] = []
    original = neighbors.neighbor_distances

    def counted(points: torch.Tensor, most: int) -> torch.Tensor:
        sizes.append(len(points))
        return original(points, most)

    monkeypatch.setattr(neighbors, "neighbor_distances", counted)
    evaluator = Evaluator(
        {"name": "random"}, NEIGHBOR_SCORES, num_samples=60, max_features=70, cache_dir=tmp_path, minimum_reference=10
    )
    evaluator.set_reference("noise", images())
    for _ in range(3):
        evaluator.evaluate(noise, images_seen=0, weights="raw", sampler={})
    assert sorted(sizes) == [60, 60, 60, 70]


def test_scores_of_neighbors_leave_the_frechet_distance_and_its_protocol_alone(tmp_path: Path) -> None:
    (alone,) = evaluate(tmp_path, "frechet_distance")
    among = evaluate(tmp_path, *ALL)
    assert among[0] == alone
    assert set(alone.protocol) == {
        *("metric", "extractor", "reference", "num_samples", "block_size"),
        *("labels", "weights", "sampler", "seed", "scoring_version"),
    }
    assert alone.protocol["metric"] == {"name": "frechet_distance"}
    assert evaluate(tmp_path, "frechet_distance", max_features=20)[0] == alone


def test_names_directions_and_the_bound_are_recorded(tmp_path: Path) -> None:
    found = {score.name: score for score in evaluate(tmp_path, *ALL)}
    assert list(found) == ["fd_random", *(f"{name}_random" for name in ALL[1:])]
    worse_when_higher = {name for name, score in found.items() if score.lower_is_better}
    assert worse_when_higher == {"fd_random", "class_kl_random", "missing_modes_random"}
    for name, neighbors in zip(NEIGHBOR_SCORES, (3, 3, 5, 5, 1), strict=True):
        metric = {"name": name, "neighbors": neighbors, "max_features": 70}
        assert found[f"{name}_random"].protocol["metric"] == metric
    (other,) = evaluate(tmp_path, "recall", max_features=60)
    assert other.protocol_hash != found["recall_random"].protocol_hash


def _evaluate_rank(folder: Path, rank: int, world_size: int) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous{world_size}", rank=rank, world_size=world_size
    )
    scores = evaluate(folder, *EVERY, rank=rank, world_size=world_size, error_bars=True)
    (folder / f"{world_size}-{rank}.json").write_text(json.dumps([score.to_json() for score in scores]))
    distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_score_is_equal_at_any_number_of_processes(tmp_path: Path, world_size: int) -> None:
    assert len(EVERY) >= 18
    alone = [score.to_json() for score in evaluate(tmp_path, *EVERY, error_bars=True)]
    processes = [forked(_evaluate_rank, tmp_path, rank, world_size) for rank in range(world_size)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    exact = {"recall", "precision", "density", "coverage", "authenticity", "class_accuracy", "missing_modes"}
    for rank in range(world_size):
        together = json.loads((tmp_path / f"{world_size}-{rank}.json").read_text())
        for one, other in zip(alone, together, strict=True):
            assert other["value"] == pytest.approx(one["value"], rel=1e-9), one["name"]
            assert other["std"] == (None if one["std"] is None else pytest.approx(one["std"], rel=1e-6))
            assert {**other, "value": 0, "std": 0} == {**one, "value": 0, "std": 0}
            if one["protocol"]["metric"]["name"] in exact:
                assert other["value"] == one["value"], "sums of whole numbers and of zeros are exact"
