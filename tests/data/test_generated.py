"""Generated images as training images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lightning_gen.callbacks.classification import error_protocol
from lightning_gen.cli import app
from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageBatch, SemiSupervisedBatch
from lightning_gen.data.generated import write_arrays, write_class_folders
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.derived import EdgesDataModule
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.training import train

NAMES = tuple("0123456789")


def made(number: int = 40, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose every pixel is 200 plus their label, which no digit has."""
    labels = torch.arange(number) % 10
    return (200 + labels)[:, None, None, None].expand(-1, 1, size, size).to(torch.uint8), labels


@pytest.fixture(params=["npz", "folders"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = tmp_path / ("made.npz" if request.param == "npz" else "made")
    if request.param == "npz":
        write_arrays(place, *made())
    else:
        write_class_folders(place, *made(), NAMES)
    return place


def module(path: Path | None, number: int | None = None, only: bool = False, **options: Any) -> DigitsDataModule:
    generated = {"path": None if path is None else str(path), "number": number, "only": only}
    options = {"image_size": 8, "batch_size": 37, **options}
    return DigitsDataModule("unused", generated=generated, cache_dir=str(path and path.parent), **options)


def batches(data: DigitsDataModule) -> list[Any]:
    return [data.on_after_batch_transfer(columns, 0) for columns in data.train_dataloader()]


def level(images: torch.Tensor) -> torch.Tensor:
    """Grey levels (N,) of images of one level, -1 of others."""
    flat = ((images.flatten(1) + 1) * 127.5).round().long()
    return torch.where((flat == flat[:, :1]).all(1), flat[:, 0], -1)


def test_they_are_trained_on_beside_the_real_images_with_their_labels(path: Path) -> None:
    data = module(path)
    data.check()
    epoch = batches(data)
    assert all(isinstance(batch, ImageBatch) for batch in epoch)
    assert len(epoch) == (1437 + 40) // 37
    images, labels = (torch.cat([getattr(batch, name) for batch in epoch]) for name in ("images", "labels"))
    levels = level(images)
    generated = levels >= 200
    assert 35 <= int(generated.sum()) <= 40, "34 of 1,477 images fill no batch"
    assert torch.equal(levels[generated] - 200, labels[generated])
    assert len(data.reference_set("train")) == 1437
    assert len(data.reference_set("test")) == 360
    assert data.label_law == module(None).label_law
    assert module(None).repeats_images
    assert not data.repeats_images, "a batch's images are not all of the split train"


def test_only_they_are_trained_on_and_evaluation_stays_real(path: Path) -> None:
    data = module(path, only=True, batch_size=20, validation_share=0.1)
    data.check()
    epoch = batches(data)
    assert len(epoch) == 2
    assert torch.cat([level(batch.images) for batch in epoch]).sort().values.tolist() == sorted([*range(200, 210)] * 4)
    (columns, *_) = data.val_dataloader()
    assert int(columns[0].images.max()) >= 255
    assert len(data.reference_set("train")) == 1437 - 144


def test_with_few_labels_they_are_labelled_images_and_the_draw_of_real_ones_is_the_same(path: Path) -> None:
    data = module(path, labelled_per_class=2, labelled_batch_size=60)
    chosen = data.labelled_indices
    assert chosen is not None
    without = module(None, labelled_per_class=2).labelled_indices
    assert without is not None
    assert torch.equal(chosen, without)
    everything, labelled = data.training_sources()
    assert (len(everything), len(labelled)) == (1437 + 40, 20 + 40)
    assert everything.labels is not None
    assert (everything.labels >= 0).nonzero().flatten().tolist() == [*chosen.tolist(), *range(1437, 1477)]
    batch = batches(data)[0]
    assert isinstance(batch, SemiSupervisedBatch)
    levels = level(batch.labelled_images)
    assert int((levels >= 200).sum()) == 40
    assert torch.equal(levels[levels >= 200] - 200, batch.labelled_labels[levels >= 200])


def test_both_forms_hold_the_same_and_a_number_is_drawn_by_seed(tmp_path: Path) -> None:
    write_arrays(tmp_path / "made.npz", *made())
    write_class_folders(tmp_path / "made", *made(), NAMES)
    flat, folders = (module(tmp_path / name).generated_set for name in ("made.npz", "made"))
    assert flat is not None
    assert folders is not None
    order = torch.argsort(flat.labels, stable=True)
    assert torch.equal(flat.images[order], folders.images)
    draws = [module(tmp_path / "made.npz", number=15, seed=seed).generated_set for seed in (0, 0, 1)]
    assert [len(draw) for draw in draws if draw is not None] == [15] * 3
    digests = [draw.digest for draw in draws if draw is not None]
    assert digests[0] == digests[1] != digests[2]


def rewritten(path: Path, **arrays: Any) -> Path:
    with np.load(path) as file:
        kept = {**file, **arrays}
    np.savez(path, **{name: array for name, array in kept.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": None}, "no array labels"),
        ({"labels": np.zeros(3, np.int64)}, "no array labels"),
        ({"labels": np.full(40, 10)}, "has the label 10, but the set has the classes 0 to 9"),
        ({"labels": np.full(40, -1)}, "has the label -1"),
        ({"images": None}, "no array images"),
        ({"images": np.zeros((40, 8, 8, 1))}, "no array images of uint8"),
        ({"images": np.zeros((40, 8, 8, 3), np.uint8)}, r"images of \(3, 8, 8\), not \(1, 8, 8\)"),
        ({"images": np.zeros((40, 9, 9, 1), np.uint8)}, r"images of \(1, 9, 9\), not \(1, 8, 8\)"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write_arrays(tmp_path / "made.npz", *made())
    with pytest.raises(UserError, match=message):
        module(rewritten(tmp_path / "made.npz", **arrays)).check()


def test_folders_and_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "made", *made(), NAMES)
    Image.new("L", (8, 8)).save(tmp_path / "made" / "3" / "zero.png")
    module(tmp_path / "made").check()
    (tmp_path / "made" / "eleven").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "made" / "eleven" / "a.png")
    with pytest.raises(UserError, match="in the folder 'eleven', which is none of the classes 0, 1, "):
        module(tmp_path / "made").check()
    (tmp_path / "torn.npz").write_bytes(b"PK")
    for name, options, message in (
        ("nowhere", {}, "no folder, archive or .npz file"),
        ("nowhere.npz", {}, "cannot be read"),
        ("torn.npz", {}, "cannot be read"),
        ("good.npz", {"number": 41}, "holds 40 images: lower data.generated.number"),
        ("good.npz", {"number": 0}, "must be at least 1"),
        ("good.npz", {"only": True, "batch_size": 41}, "less than data.batch_size"),
        ("good.npz", {"only": True, "labelled_per_class": 3}, "unset data.labelled_per_class"),
    ):
        write_arrays(tmp_path / "good.npz", *made())
        with pytest.raises(UserError, match=message):
            module(tmp_path / name, **options).check()  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"set data\.generated\.path"):
        module(None, only=True)
    digits = {"_target_": "lightning_gen.data.sets.digits.DigitsDataModule", "data_dir": "unused"}
    with pytest.raises(UserError, match=r"set of pairs: unset data\.generated\.path"):
        EdgesDataModule("unused", digits, generated={"path": str(tmp_path / "good.npz")}).check()
    with pytest.raises(UserError, match=r"set data\.residency=memory"):
        module(tmp_path / "good.npz", residency="stream").train_dataloader()
    with pytest.raises(UserError, match="'a/b' cannot be a folder"):
        write_class_folders(tmp_path / "other", *made(), ["a/b"])


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def labels_protocol(*overrides: str) -> Any:
    """The protocol of the error of a classifier that was trained on a hundred real labels, and on what is named."""
    options = ("experiment=sgan_digits", "model.supervised_only=true", "metrics=none", "trainer.max_steps=1")
    narrow = ("model.generator.hidden=[8]", "model.discriminator.hidden=[8]", "data.image_size=32", "logger=none")
    quiet = ("callbacks.samples=null", "callbacks.interpolation=null", "trainer=cpu", "experiment_name=tiny")
    record = train(compose_config([*options, *narrow, *quiet, *overrides]))
    assert record is not None
    (score,) = record["scores"]
    return score["protocol"]


@pytest.fixture
def generator(train_here: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """A run of a conditional model."""
    quiet = ("callbacks.samples=null", "callbacks.interpolation=null", "metrics.metrics=[frechet_distance]")
    train_here("model.conditional=true", "model=cdcgan_small", "trainer.max_steps=2", "run_name=one", *quiet)
    return tmp_path / "runs" / "tiny" / "one"


def test_samples_of_a_run_are_trained_on_by_another_whose_protocol_says_so(generator: Path, tmp_path: Path) -> None:
    call("sample", generator, "--labelled", "-n", 70, "-o", tmp_path / "made.npz")
    call("sample", generator, "--labelled", "-n", 70, "-o", tmp_path / "made")
    with np.load(tmp_path / "made.npz") as arrays:
        assert (arrays["images"].shape, arrays["labels"].shape) == ((70, 32, 32, 1), (70,))
        counts = np.bincount(arrays["labels"], minlength=10)
    assert [len(list((tmp_path / "made" / name).iterdir())) for name in NAMES] == counts.tolist()
    call("sample", generator, "-n", 5, "-o", tmp_path / "plain.npz")
    with np.load(tmp_path / "plain.npz") as arrays:
        assert arrays.files == ["images"]
    with pytest.raises(UserError, match="a grid holds no labels"):
        call("sample", generator, "--labelled", "-o", tmp_path / "made.png")
    with pytest.raises(UserError, match="--force"):
        call("sample", generator, "--labelled", "-o", tmp_path / "made")
    real = labels_protocol("run_name=real")
    both = labels_protocol("run_name=both", f"data.generated.path={tmp_path / 'made.npz'}")
    assert "generated" not in real
    assert both["generated"]["number"] == 70
    assert {**both, "generated": None} == {**real, "generated": None}, "labels count real images alone"
    assert both["labels"]["number"] == 100
    alone = [f"data.generated.path={tmp_path / 'made'}", "data.generated.only=true", "data.labelled_per_class=null"]
    with pytest.raises(UserError, match="learns from few labels"):
        labels_protocol("run_name=alone", *alone)


def test_real_images_are_scored_in_the_place_of_samples(generator: Path) -> None:
    scored = ("evaluate", generator, "metrics=digits", "--metrics", "classification_accuracy_score")
    (real,) = json.loads(call(*scored, "--real", "--json", "metrics.num_samples=200"))["scores"]
    assert real["value"] > 0.85
    assert real["protocol"]["num_samples"] == 200
    assert real["protocol"]["samples"].items() >= {"dataset": "digits", "split": "train"}.items()
    (made,) = json.loads(call(*scored, "--json", "metrics.num_samples=200"))["scores"]
    assert made["value"] < 0.7, "two steps do not teach it the classes"
    assert made["protocol_hash"] != real["protocol_hash"]
    with pytest.raises(UserError, match="leave --record out"):
        call(*scored, "--real", "--record")
    with pytest.raises(UserError, match=r"set metrics\.reference_split=test"):
        call(*scored, "metrics.reference_split=train", "--real")
    with pytest.raises(UserError, match="leave --against"):
        call(*scored, "--real", "--against", "digits")


def test_an_error_of_generated_images_alone_counts_no_label() -> None:
    images = ImageSet(*made())
    protocol = error_protocol("digits", "test", images, None, images, only_generated=True)
    assert protocol["labels"]["number"] == 0
    assert protocol["generated"] == {"number": 40, "digest": images.digest}
