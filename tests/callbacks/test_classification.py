"""The error of models that classify: exact, beside the other scores, and without them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import Callback

from lightning_gen.callbacks.classification import count_errors, error_protocol
from lightning_gen.configuration import compose_config
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.base import protocol_hash
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.tracking.exports import to_table
from lightning_gen.tracking.leaderboard import build_boards
from lightning_gen.tracking.record_files import FoundRun
from lightning_gen.tracking.run_directory import RunDirectory
from lightning_gen.training import train

TINY = (
    "experiment=sgan_digits",
    "experiment_name=tiny",
    "run_name=run",
    "logger=none",
    "trainer=cpu",
    "trainer.max_steps=6",
    "data.image_size=28",
    "data.batch_size=50",
    "data.labelled_per_class=3",
    "data.labelled_batch_size=20",
    "model.generator.hidden=[16]",
    "model.discriminator.hidden=[32,16]",
    "callbacks.classification_error.every_n_images=100",
    "callbacks.classification_error.block_size=64",
    "callbacks.interpolation=null",
    "callbacks.samples=null",
)


def run_tiny(*overrides: str) -> dict[str, Any]:
    record = train(compose_config([*TINY, *overrides]))
    assert record is not None
    return record


class Brightness(GenerativeModel):
    """Gives an image the class of its first pixel's tenth."""

    def training_iteration(self, batch: Any) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        tenths = ((images[:, 0, 0, 0] + 1) / 2 * 9.99).long()
        return torch.nn.functional.one_hot(tenths, 10).float()


@pytest.mark.parametrize("block_size", [1, 7, 100, 1000])
def test_every_image_counts_once_at_any_number_of_processes(block_size: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    true = (levels.double() / 255 * 9.99).long()
    labels = true.clone()
    labels[::3] = (labels[::3] + 1) % 10
    images = ImageSet(levels[:, None, None, None].expand(-1, 1, 2, 2).contiguous(), labels)
    model = Brightness().eval()
    for world_size in (1, 2, 3, 400):
        counts = [
            int(count_errors(model, images, block_size, rank=rank, world_size=world_size)) for rank in range(world_size)
        ]
        assert sum(counts) == 86, "every third of 256"


def test_the_error_stands_beside_the_other_scores_and_is_the_averages(tmp_path: Path) -> None:
    record = run_tiny("metrics.num_samples=100", "callbacks.scores.every_n_images=200")
    path = tmp_path / "runs" / "tiny" / "run"
    names = [score["name"] for score in record["scores"]]
    assert names == ["fd_digits", "class_score_digits", "recall_digits", "coverage_digits", "test_error"]
    lines = [json.loads(line) for line in (path / "metrics.jsonl").open()]
    assert [(line["iteration"], line["images_seen"], len(line["scores"])) for line in lines] == [
        (2, 100, 1),
        (4, 200, 5),
        (6, 300, 5),
    ]
    assert lines[-1]["scores"] == record["scores"] == json.loads((path / "result.json").read_text())["scores"]

    error = record["scores"][-1]
    model = load_model(read_checkpoint(path / "checkpoints" / "last.ckpt"))
    test = DigitsDataModule("unused", image_size=28).split("test")
    assert isinstance(test, ImageSet)
    assert test.labels is not None

    def percent(use_average: bool) -> float:
        with model.evaluation(use_average=use_average):
            logits = model.classify(to_float(test.images))  # type: ignore[operator]
        return 100 * sum(a != b for a, b in zip(logits.argmax(1).tolist(), test.labels.tolist(), strict=True)) / 360

    assert error["value"] == pytest.approx(percent(True), rel=1e-12)
    assert error["value"] != percent(False)


def test_the_protocol_holds_set_split_labels_and_weights(tmp_path: Path) -> None:
    first = run_tiny("metrics=none")["scores"]
    assert [score["name"] for score in first] == ["test_error"]
    assert (first[0]["lower_is_better"], first[0]["images_seen"]) == (True, 300)
    protocol = first[0]["protocol"]
    test = DigitsDataModule("unused", image_size=28).split("test")
    assert isinstance(test, ImageSet)
    assert test.labels is not None
    labels_digest = hashlib.sha256(test.labels.numpy().astype("<i8").tobytes()).hexdigest()
    assert protocol["reference"] == {
        "dataset": "digits",
        "split": "test",
        "size": 360,
        "digest": test.digest,
        "labels_digest": labels_digest,
    }
    assert protocol["labels"]["number"] == 30
    assert protocol["weights"] == "ema"
    assert first[0]["protocol_hash"] == protocol_hash(protocol)

    again = run_tiny("metrics=none", "run_name=again")["scores"][0]["protocol"]
    raw = run_tiny("metrics=none", "run_name=raw", "ema=none")["scores"][0]["protocol"]
    other = run_tiny("metrics=none", "run_name=other", "seed=1")["scores"][0]["protocol"]
    assert again == protocol
    assert raw == {**protocol, "weights": "raw"}
    assert other["labels"]["number"] == 30
    assert other["labels"]["digest"] != protocol["labels"]["digest"]
    assert {**other, "labels": None} == {**protocol, "labels": None}


def test_labels_are_told_apart_by_their_indices() -> None:
    images = ImageSet(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]))
    digests = [
        error_protocol("set", "test", images, labelled)["labels"]
        for labelled in (torch.tensor([1, 2]), torch.tensor([1, 3]), torch.tensor([1, 2], dtype=torch.int32), None)
    ]
    assert digests[0] == digests[2]
    assert digests[0]["digest"] != digests[1]["digest"]
    assert digests[3] is None


class ReadRecord(Callback):
    """Notes the scores of the record as each iteration begins."""

    def __init__(self, path: str) -> None:
        self.file = Path(path)

    seen: ClassVar[list[list[str]]] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.seen.append([score["name"] for score in json.loads(self.file.read_text())["scores"]])


def test_a_run_without_other_scores_records_its_errors_as_it_goes(tmp_path: Path) -> None:
    ReadRecord.seen = []
    run_tiny(
        "metrics=none",
        "+callbacks.read._target_=tests.callbacks.test_classification.ReadRecord",
        f"+callbacks.read.path={tmp_path}/runs/tiny/run/result.json",
    )
    assert ReadRecord.seen == [[], [], *[["test_error"]] * 4]


def test_scores_of_one_iteration_share_a_line(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.add_scores(1, 10, [{"name": "a"}])
    run.add_scores(1, 10, [{"name": "b"}])
    run.add_scores(2, 20, [{"name": "a"}])
    assert run.read_metrics() == [
        {"iteration": 1, "images_seen": 10, "scores": [{"name": "a"}, {"name": "b"}]},
        {"iteration": 2, "images_seen": 20, "scores": [{"name": "a"}]},
    ]


def test_errors_rank_on_a_leaderboard_of_their_own(tmp_path: Path) -> None:
    record = run_tiny("metrics=none")
    (board,) = build_boards([FoundRun(record, "run")])
    assert (board.score, board.lower_is_better, len(board.entries)) == ("test_error", True, 1)
    assert str(to_table(board).title) == "test_error (lower is better, against 360 digits test images)"


def test_models_and_sets_without_classes_are_refused(train_here: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GAN does not classify: set callbacks\.classification_error=null"):
        train_here("callbacks=classification", "trainer.max_steps=1")
    with pytest.raises(UserError, match="block_size must be at least 1"):
        run_tiny("metrics=none", "callbacks.classification_error.block_size=0")
    with pytest.raises(UserError, match=r"set data\.labelled_per_class"):
        run_tiny("data.labelled_per_class=null")
