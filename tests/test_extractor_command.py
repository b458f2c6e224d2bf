from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors.base import sha256_of_file
from tests.test_cli import call

TRAIN = ("extractor", "train", "mine", "data=digits", "--architecture", "lenet", "--epochs")


@pytest.fixture(autouse=True)
def _global_generator() -> Iterator[None]:
    """Training seeds the global generator for its weights."""
    with torch.random.fork_rng(devices=[]):
        yield


def test_a_trained_extractor_scores_runs_under_its_name(
    train_here: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    shown = call(*TRAIN, 8)
    file = tmp_path / "runs" / ".cache" / "extractors" / "mine.safetensors"
    assert str(file) in shown
    assert sha256_of_file(file) in shown
    assert "accuracy 9" in shown
    record = train_here("trainer.max_steps=2", "metrics=trained", "metrics.extractor.weights=mine")
    assert [score["name"] for score in record["scores"]] == [
        "fd_mine",
        "class_score_mine",
        "recall_mine",
        "coverage_mine",
    ]
    assert {score["protocol"]["extractor"]["weights_sha256"] for score in record["scores"]} == {sha256_of_file(file)}
    assert all(score["ranked"] for score in record["scores"])


def test_a_trained_extractor_is_known_by_its_name_to_commands_that_score(tmp_path: Path) -> None:
    call("extractor", "train", "data=digits", "--architecture", "lenet", "--epochs", 1)
    images = tmp_path / "images"
    images.mkdir()
    for index in range(12):
        Image.effect_noise((32, 32), 80).save(images / f"{index}.png")
    shown = call("compare", images, images, "--extractor", "digits_lenet", "--metrics", "fd_digits_lenet", "--json")
    assert json.loads(shown)["fd_digits_lenet"] == pytest.approx(0, abs=1e-6)


def test_list_shows_shipped_and_registered_extractors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_GEN_EXTRACTORS_DIR", str(tmp_path / "mine"))
    trained = json.loads(call(*TRAIN, 1, "--json"))
    assert trained["output"] == str(tmp_path / "mine" / "mine.safetensors")
    (tmp_path / "mine" / "damaged.safetensors").write_text("")
    listed = json.loads(call("extractor", "list", "--json"))
    rows = {row["name"]: row for row in listed["extractors"]}
    assert rows.keys() >= {"digits", "mnist", "mine"}
    for name, origin, data, dimension in (("mnist", "shipped", "mnist", 84), ("mine", "registered", "digits", 84)):
        row = rows[name]
        assert (row["origin"], row["data"], row["dimension"], row["num_classes"]) == (origin, data, dimension, 10)
    assert rows["mine"]["test_accuracy"] == trained["test_accuracy"]
    assert rows["mine"]["weights_sha256"] == trained["weights_sha256"]
    assert rows["mnist"]["test_accuracy"] == 0.9947
    assert len(listed["skipped"]) == 1
    assert "damaged.safetensors" in listed["skipped"][0]
    shown = call("extractor", "list")
    assert "99.47%" in shown
    assert "1x32x32" in shown
    assert trained["weights_sha256"][:8] in shown


def test_a_poor_classifier_is_warned_of(tmp_path: Path) -> None:
    arguments = [*map(str, TRAIN), "1", "-o", str(tmp_path / "mine.safetensors"), "--json", "data.image_size=8"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    accuracy = json.loads(result.stdout)["test_accuracy"]
    assert ("warning: only" in result.stderr) == (accuracy < 0.8)
    assert "epoch 1 of 1: loss" in result.stderr


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "mine.safetensors"
    taken.write_text("")
    for arguments, message in (
        (("digits", "data=digits"), "'digits' belongs to another"),
        (("Mine", "data=digits"), "a-z"),
        (("mine", "data.image_size=32"), "data=DATASET"),
        (("mine", "data=digit"), "digit"),
        (("mine", "data=digits", "-o", taken), "--force"),
        (("mine", "data=digits", "-o", tmp_path / "a.pt"), ".safetensors"),
        (("mine", "data=digits", "-o", taken / "a.safetensors"), "Cannot write"),
        (("mine", "data=digits", "--device", "tpu"), "tpu"),
    ):
        with pytest.raises(UserError, match=message):
            call("extractor", "train", *arguments)
