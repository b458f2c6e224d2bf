"""Training on translated source images: which images and labels a batch has, and which translators are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_gen.callbacks.translated_source import TranslatedSource
from lightning_gen.configuration import compose_config
from lightning_gen.data import PairBatch
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float, to_uint8
from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.domain_classifier import DomainClassifier
from lightning_gen.training import train
from tests.data.test_adaptation import adaptation
from tests.models.tiny import WIDTHS

FEW = ["run_name=run", "logger=none", "trainer=cpu", "trainer.max_steps=2", "model.gradient_clip_norm=1.0"]
SMALL = ["model.body.channels=[2,2]", "model.classifier_hidden=[]"]


def run(experiment: str, *overrides: str) -> dict[str, Any]:
    record = train(compose_config([f"experiment={experiment}", *FEW, *overrides]))
    assert record is not None
    return record


def translated(translator: Path, *overrides: str) -> dict[str, Any]:
    return run("translated_source_digits", f"callbacks.translated_source.translator={translator}", *SMALL, *overrides)


def test_the_source_is_translated_once_and_keeps_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [*WIDTHS, "model.generator.num_blocks=1", "callbacks.samples=null", "data.batch_size=2"]
    run("cyclegan_adaptation_digits", *small)
    translator = tmp_path / "runs" / "cyclegan_adaptation_digits" / "run"
    batches: list[PairBatch] = []
    original = DomainClassifier.training_iteration

    def watched(self: DomainClassifier, batch: Any) -> Any:
        batches.append(batch)
        return original(self, batch)

    monkeypatch.setattr(DomainClassifier, "training_iteration", watched)
    record = translated(translator)
    (score,) = record["scores"]
    assert score["name"] == "test_error"
    assert score["protocol"]["labels"]["number"] == 0
    assert score["protocol"]["reference"]["dataset"] == "inverted_digits"

    source = adaptation("inverted").input_set("train")
    assert source.labels is not None
    model = load_model(read_checkpoint(translator / "checkpoints" / "last.ckpt"))
    with model.evaluation():
        blocks = source.images.split(250)
        rng = torch.Generator()
        expected = torch.cat([to_uint8(model.translate(to_float(block), "AtoB", generator=rng)) for block in blocks])  # type: ignore[operator]
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(expected, source.labels, strict=True)}
    for batch in batches:
        images = to_uint8(batch.images_a.contiguous())
        assert batch.labels_a is not None
        assert [label_of[image.numpy().tobytes()] for image in images] == batch.labels_a.tolist()
        assert batch.labels_b is not None
        assert (batch.labels_b == -1).all()

    # A second run reads the file of the first.
    monkeypatch.setattr("lightning_gen.callbacks.translated_source.to_uint8", None)
    again = translated(translator, "run_name=again")
    assert again["scores"][0]["value"] == score["value"]

    check_refusals(translator, tmp_path / "runs" / "translated_source_digits" / "run")


def check_refusals(translator: Path, classifier: Path) -> None:
    def start(path: Path = translator, direction: str = "AtoB", data: Any = None, **options: Any) -> None:
        trainer: Any = SimpleNamespace(datamodule=data or adaptation("inverted", **options))
        TranslatedSource(path, "unused", direction).on_fit_start(trainer, pl.LightningModule())

    with pytest.raises(UserError, match=r"other images of domain A than textured_digits: .*data\.domain"):
        start(data=adaptation("textured"))
    with pytest.raises(UserError, match=r"other images of domain B .* data\.validation_share"):
        start(validation_share=0.2)
    with pytest.raises(UserError, match="holds a CycleGAN, which does not translate CtoD"):
        start(direction="CtoD")
    with pytest.raises(UserError, match=r"multiples of 8: set data\.image_size in both runs"):
        start(image_size=20)
    with pytest.raises(UserError, match="holds a DomainClassifier, which does not translate AtoB"):
        start(classifier)
    with pytest.raises(UserError, match="No run directory or checkpoint"):
        start(classifier / "nothing")
    with pytest.raises(UserError, match="digits has no source to translate: set data=adaptation"):
        start(data=DigitsDataModule("unused"))
    with pytest.raises(UserError, match="block_size must be at least 1, not 0"):
        TranslatedSource(translator, "unused", block_size=0)


def test_few_labels_of_the_target_are_counted_and_kept(tmp_path: Path) -> None:
    record = run("dann_digits", *SMALL, "data.labelled_per_class=3", "model.train_on=both")
    assert record["scores"][0]["protocol"]["labels"]["number"] == 30
    kept = json.loads((tmp_path / "runs" / "dann_digits" / "run" / "labelled.json").read_text())["indices"]
    assert len(kept) == 30
    supervised = run("target_supervised_digits", *SMALL)
    assert supervised["scores"][0]["protocol"]["labels"] is None


def test_a_translator_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set it to a run that translates"):
        TranslatedSource(None, tmp_path)
