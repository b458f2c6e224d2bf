from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import protocol_hash
from lightning_gen.metrics.evaluator import Drawn, Evaluator
from lightning_gen.metrics.extractors.random_convolution import RandomExtractor
from lightning_gen.metrics.inception_score import InceptionScore


def make(tmp_path: Path, **options: Any) -> Evaluator:
    defaults = {
        "extractor": {"name": "random", "num_features": 8},
        "metrics": ["frechet_distance", "inception_score"],
        "num_samples": 50,
        "block_size": 16,
        "cache_dir": tmp_path,
        "reference_split": "test",
    }
    return Evaluator(**{**defaults, **options})


def images(count: int = 60, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=rng)


def noise(number: int, rng: torch.Generator) -> Drawn:
    return Drawn(torch.randn(number, 1, 8, 8, generator=rng))


def evaluate(evaluator: Evaluator, reference: torch.Tensor | None = None, **options: Any) -> list[Any]:
    evaluator.set_reference("noise", images() if reference is None else reference)
    return evaluator.evaluate(noise, **{"images_seen": 0, "weights": "raw", "sampler": {}, **options})


def test_every_sample_is_drawn_once_whatever_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, bytes] = {}
    update = InceptionScore.update

    def noted(self: InceptionScore, features: Any, indices: torch.Tensor, labels: Any = None) -> None:
        assert not set(indices.tolist()) & seen.keys()
        seen.update({int(i): row.numpy().tobytes() for i, row in zip(indices, features.features, strict=True)})
        update(self, features, indices, labels)

    monkeypatch.setattr(InceptionScore, "update", noted)

    def drawn(world_size: int) -> dict[int, bytes]:
        seen.clear()
        for rank in range(world_size):
            evaluate(make(tmp_path, metrics=["inception_score"]), rank=rank, world_size=world_size)
        return dict(seen)

    alone = drawn(1)
    assert sorted(alone) == list(range(50))
    assert len(set(alone.values())) == 50
    for world_size in (2, 3, 7):
        assert drawn(world_size) == alone


def test_scores_repeat_and_follow_the_seed(tmp_path: Path) -> None:
    values = [[s.value for s in evaluate(make(tmp_path, seed=seed))] for seed in (0, 0, 1)]
    assert values[0] == values[1]
    assert values[0] != values[2]


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 49},
        {"seed": 1},
        {"block_size": 8},
        {"reference_split": "train"},
        {"num_reference": 40},
        {"extractor": {"name": "random", "num_features": 8, "seed": 1}},
    ],
)
def test_whatever_can_move_a_score_changes_its_hash(tmp_path: Path, change: dict[str, Any]) -> None:
    base = evaluate(make(tmp_path))[0]
    assert evaluate(make(tmp_path))[0].protocol_hash == base.protocol_hash
    assert evaluate(make(tmp_path, **change))[0].protocol_hash != base.protocol_hash


def test_weights_sampler_and_reference_content_are_part_of_the_protocol(tmp_path: Path) -> None:
    base = evaluate(make(tmp_path))[0].protocol_hash
    assert evaluate(make(tmp_path), weights="ema")[0].protocol_hash != base
    assert evaluate(make(tmp_path), sampler={"steps": 10})[0].protocol_hash != base
    assert evaluate(make(tmp_path), images(seed=1))[0].protocol_hash != base
    assert evaluate(make(tmp_path), images_seen=5)[0].protocol_hash == base


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert protocol_hash({"a": 1, "b": {"c": 2, "d": 3}}) == protocol_hash({"b": {"d": 3, "c": 2}, "a": 1})


def test_reference_statistics_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [s.value for s in evaluate(make(tmp_path))]
    passes: list[int] = []
    forward = RandomExtractor.forward

    def counted(self: RandomExtractor, batch: torch.Tensor) -> Any:
        passes.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(RandomExtractor, "forward", counted)
    assert [s.value for s in evaluate(make(tmp_path))] == first
    assert sum(passes) == 50, "only the samples pass through the extractor"
    evaluate(make(tmp_path), images(seed=1))
    assert sum(passes) == 50 + 60 + 50, "other images are computed anew"


def test_a_damaged_cache_file_is_replaced(tmp_path: Path) -> None:
    first = [s.value for s in evaluate(make(tmp_path))]
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert [s.value for s in evaluate(make(tmp_path))] == first
    assert file.stat().st_size > 100


def test_impossible_protocols_are_refused_before_training(tmp_path: Path) -> None:
    for options, size, message in (
        ({"num_reference": 61}, 60, "holds 60 images"),
        ({}, 8, r"too few.*metrics\.minimum_reference=8"),
        ({"num_samples": 5}, 60, "num_samples"),
    ):
        with pytest.raises(UserError, match=message):
            make(tmp_path, **options).check((1, 8, 8), size)
    make(tmp_path, minimum_reference=8).check((1, 8, 8), 8)
    with pytest.raises(UserError, match="metrics=none"):
        make(tmp_path, metrics=[])
    with pytest.raises(UserError, match="Unknown metric"):
        make(tmp_path, metrics=["frechet"])


def test_score_names_tell_the_extractor(tmp_path: Path) -> None:
    names = [score.name for score in evaluate(make(tmp_path))]
    assert names == ["fd_random", "class_score_random"]
    assert make(tmp_path).main_score == "fd_random"
    metrics = make(tmp_path).metric_classes
    assert [metric.score_name("inception") for metric in metrics.values()] == ["fid", "inception_score"]
