"""The classification accuracy score: a classifier fitted to samples, tested on real images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import Tensor

from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.metrics.classification_accuracy import fitted_accuracy
from lightning_gen.metrics.evaluator import Drawn, Evaluator, Source
from lightning_gen.metrics.labelled_pixels import LabelledPixels, pooled_pixels
from tests.conftest import forked

NAME = "classification_accuracy_score"
CLASSES = 3


def evaluator(folder: Path, num_samples: int, **options: Any) -> Evaluator:
    extractor = {"name": "random", "num_features": 4}
    return Evaluator(extractor, [NAME], num_samples=num_samples, cache_dir=folder, reference_split="test", **options)


def source(images: ImageSet) -> Source:
    """Images in the place of samples, from the first on."""

    def draw(first: int, number: int) -> Drawn:
        labels = None if images.labels is None else images.labels[first : first + number]
        return Drawn(images.images[first : first + number], labels)

    return Source(draw, None, {"samples": "test"}, 0)


def score(folder: Path, samples: ImageSet, test: ImageSet, *, limit: int = 10_000, **options: Any) -> Any:
    made = evaluator(folder, len(samples), max_features=limit)
    made.set_reference("digits", test.images, test.labels)
    (found,) = made.evaluate_source(source(samples), **options)
    return found


def points(*classes: tuple[float, int]) -> LabelledPixels:
    levels, labels = zip(*classes, strict=True)
    return LabelledPixels(torch.tensor(levels)[:, None], torch.tensor(labels))


def coloured(number: int, seed: int = 0) -> ImageSet:
    """Images whose level tells one of three classes, but for a quarter of them that lie between two."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (number,), generator=rng)
    shifts = torch.randint(-27, 28, (number, 1, 1, 1), generator=rng)
    noise = torch.randint(-5, 6, (number, 1, 8, 8), generator=rng)
    return ImageSet((labels[:, None, None, None] * 40 + 80 + shifts + noise).to(torch.uint8), labels)


def test_a_classifier_of_two_clusters_splits_them_in_the_middle() -> None:
    training = points((0.0, 0), (0.1, 0), (0.9, 1), (1.0, 1))
    assert fitted_accuracy(training, points((0.2, 0), (0.3, 0), (0.7, 1), (0.8, 1))) == 1
    assert fitted_accuracy(training, points((0.2, 1), (0.3, 0), (0.7, 1), (0.8, 1))) == 3 / 4
    turned = LabelledPixels(training.pixels, 1 - training.labels)
    assert fitted_accuracy(turned, points((0.2, 0), (0.8, 1))) == 0


def test_one_class_or_one_image_alone_is_every_images_class() -> None:
    test = points((0.0, 0), (0.5, 1), (1.0, 1))
    assert fitted_accuracy(points((0.1, 1), (0.9, 1)), test) == 2 / 3
    assert fitted_accuracy(points((0.5, 0), (0.5, 0), (0.5, 1)), test) == 1 / 3


def test_large_images_are_averaged_and_small_ones_kept() -> None:
    images = torch.randint(256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    blocks = images.numpy().reshape(2, 3, 16, 2, 16, 3).mean((3, 5)) / 255
    np.testing.assert_allclose(pooled_pixels(images).numpy(), blocks.reshape(2, -1), atol=1e-6)
    small = images[..., :8, :9]
    np.testing.assert_allclose(pooled_pixels(small).numpy(), small.numpy().reshape(2, -1) / 255, atol=1e-7)


def test_a_perfect_generator_gets_what_training_on_real_images_gives(tmp_path: Path) -> None:
    data = DigitsDataModule("unused")
    train, test = data.reference_set("train"), data.reference_set("test")
    assert train.labels is not None
    assert test.labels is not None

    def vectors(images: Tensor) -> np.ndarray:
        return images.numpy().reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(-1, 256) / 255

    classifier = SVC(C=10.0, gamma="scale").fit(vectors(train.images), train.labels.numpy())
    expected = classifier.score(vectors(test.images), test.labels.numpy())
    found = score(tmp_path, train, test)
    assert expected > 0.97
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.std == pytest.approx((expected * (1 - expected) / 360) ** 0.5)
    assert (found.name, found.lower_is_better, found.ranked) == (NAME, False, True), "the extractor has no part in it"
    assert found.protocol["extractor"] is None
    assert found.protocol["metric"]["classifier"]["penalty"] == 10
    assert found.protocol["reference"].items() >= {"dataset": "digits", "split": "test", "size": 360}.items()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    by_chance = score(tmp_path, train.with_labels(train.labels[order]), test)
    assert by_chance.value < 0.25
    few = score(tmp_path, train, test, limit=300)
    assert few.value == pytest.approx(
        score(tmp_path, train.first(300), test.subset(torch.arange(300) * 360 // 300)).value
    )
    assert few.protocol["metric"]["max_features"] == 300


def test_the_reference_is_read_again_from_its_file_and_follows_its_labels(tmp_path: Path) -> None:
    samples, test = coloured(60), coloured(50, seed=1)
    first = score(tmp_path, samples, test)
    files = set(tmp_path.glob("*pixels*.npz"))
    assert len(files) == 1
    assert score(tmp_path, samples, test) == first
    assert test.labels is not None
    turned = score(tmp_path, samples, test.with_labels((test.labels + 1) % CLASSES))
    assert turned.value < 0.3 < 0.7 < first.value
    assert len(set(tmp_path.glob("*pixels*.npz"))) == 2


def test_models_and_sets_without_labels_are_refused(tmp_path: Path) -> None:
    made = evaluator(tmp_path, 20)
    made.check((1, 8, 8), 50, label_classes=CLASSES)
    with pytest.raises(UserError, match=r"images of given classes: set model\.conditional=true"):
        made.check((1, 8, 8), 50)
    with pytest.raises(UserError, match="digits has no labels"):
        made.set_reference("digits", coloured(50).images)
    made.set_reference("digits", *(coloured(50).images, coloured(50).labels))
    with pytest.raises(ValueError, match="labels of the samples"):
        made.evaluate_source(source(coloured(20).with_labels(None)))


def score_of_rank(folder: Path, rank: int, world_size: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous{world_size}", rank=rank, world_size=world_size
    )
    samples, test = coloured(150), coloured(90, seed=1)
    found = score(folder / "cache", samples, test, limit=130, rank=rank, world_size=world_size)
    (folder / f"score{world_size}-{rank}.json").write_text(json.dumps(found.to_json()))
    torch.distributed.destroy_process_group()


def test_the_score_is_the_same_at_one_two_and_three_processes(tmp_path: Path) -> None:
    alone = score(tmp_path / "cache", coloured(150), coloured(90, seed=1), limit=130).to_json()
    assert 0.5 < alone["value"] < 1, "a score that could be another"
    for world_size in (2, 3):
        processes = [forked(score_of_rank, tmp_path, rank, world_size) for rank in range(world_size)]
        for rank, process in enumerate(processes):
            process.join(60)
            assert json.loads((tmp_path / f"score{world_size}-{rank}.json").read_text()) == alone
