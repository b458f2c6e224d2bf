"""Rounds of pseudo labels: which images they look at, what they hand over, what they write, and resuming across one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor

from lightning_gen.callbacks.pseudo_labels import PseudoLabels, describe_pools, propose_in_blocks
from lightning_gen.configuration import compose_config
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float, to_uint8
from lightning_gen.models import read_checkpoint
from lightning_gen.models.co_training import CoTraining
from lightning_gen.models.self_training import SelfTraining
from lightning_gen.tracking.run_directory import RunDirectory
from lightning_gen.training import train
from tests.models.test_co_training import co_training
from tests.models.test_self_training import linear

TINY = (
    "experiment=self_training_digits",
    "experiment_name=tiny",
    "run_name=run",
    "logger=none",
    "trainer=cpu",
    "trainer.max_steps=12",
    "data.image_size=16",
    "data.validation_share=0.2",
    "data.labelled_per_class=3",
    "model.classifier={base_channels:2,hidden:16}",
    "model.warmup_iterations=3",
    "model.round_iterations=3",
    "model.rounds=3",
    "model.balance=false",
)


def run_tiny(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, Any]:
    monkeypatch.delenv("LIGHTNING_GEN_RUN", raising=False)
    record = train(compose_config([*TINY, *overrides]))
    assert record is not None
    return record


def keys(images: Tensor) -> list[bytes]:
    """The content of each float image."""
    return [image.numpy().tobytes() for image in to_uint8(images)]


def checkpoint(run: Path) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def test_rounds_see_the_training_images_without_a_label_and_batches_get_their_own_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DigitsDataModule("unused", image_size=16, validation_share=0.2, labelled_per_class=3)
    train_set, val = data.reference_set("train"), data.reference_set("val")
    chosen = data.labelled_indices
    assert chosen is not None
    assert train_set.labels is not None
    place = {key: index for index, key in enumerate(keys(to_float(train_set.images)))}
    pool = set(place) - {key for key, index in place.items() if index in set(chosen.tolist())}
    seen: list[list[bytes]] = []
    handed = 0
    labelled: dict[bytes, int] = {}
    propose, iterate = SelfTraining.propose_labels, SelfTraining.training_iteration

    def watched_propose(model: SelfTraining, images: Tensor) -> tuple[Tensor, Tensor]:
        assert not model.training
        seen.append(keys(images))
        return propose(model, images)

    def watched_iterate(model: SelfTraining, batch: Any) -> dict[str, Tensor]:
        nonlocal handed
        assert model.batch_pool_labels is not None
        expected = model.pool_labels[0, [place[key] for key in keys(batch.images)]]
        assert torch.equal(model.batch_pool_labels[0], expected)
        handed += int((expected != -1).sum())
        assert torch.equal(expected[batch.labels != -1], torch.full((int((batch.labels != -1).sum()),), -1))
        labelled.update(zip(keys(batch.labelled_images), batch.labelled_labels.tolist(), strict=True))
        return iterate(model, batch)

    monkeypatch.setattr(SelfTraining, "propose_labels", watched_propose)
    monkeypatch.setattr(SelfTraining, "training_iteration", watched_iterate)
    # More than two epochs, over whose ends batches and labelled images must stay the same.
    run_tiny(monkeypatch, "trainer.max_steps=80", "model.round_iterations=30", "callbacks.pseudo_labels.block_size=400")
    assert [len(block) for block in seen] == [1, 400, 400, 320] * 3, "the first block's shape is asked for once"
    looked_at = [key for block in seen for key in block]
    assert set(looked_at) == pool
    assert len(pool) == 1150 - 30
    assert not set(looked_at) & set(keys(to_float(val.images)))
    assert not set(looked_at) & set(keys(to_float(data.reference_set("test").images)))
    assert handed > 100
    assert {place[key]: label for key, label in labelled.items()} == {
        int(index): int(train_set.labels[index]) for index in chosen
    }

    (first, second, third), model = lines_of(tmp_path / "runs/tiny/run"), checkpoint(tmp_path / "runs/tiny/run")
    assert [line["iteration"] for line in (first, second, third)] == [3, 33, 63]
    assert [line["round"] for line in (first, second, third)] == [1, 2, 3]
    assert [line["over"] for line in (first, second, third)] == [False, False, True]
    held = model["state_dict"]["pool_labels"][0]
    (kept,) = third["pools"]
    assert kept["images"] == int((held != -1).sum())
    assert kept["wrong"] == int(((held != -1) & (held != train_set.labels)).sum())
    assert kept["per_class"] == {str(label): int((held == label).sum()) for label in range(10) if (held == label).any()}
    assert first["pools"][0]["changed"] == first["pools"][0]["images"]


class FailAt(Callback):
    """Ends training by an error as an iteration begins."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.iteration:
            raise RuntimeError("stopped here")


# The last checkpoint is one before a round that was made and must be made again, and that of a round.
@pytest.mark.parametrize(
    ("experiment", "period", "failure"), [("self_training_digits", 5, 8), ("co_training_digits", 6, 7)]
)
def test_a_run_resumed_across_a_round_ends_with_the_same_bits(
    experiment: str, period: int, failure: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"experiment={experiment}", f"callbacks.checkpoint.every_n_iterations={period}"]
    fail = [
        "+callbacks.fail._target_=tests.callbacks.test_pseudo_labels.FailAt",
        f"+callbacks.fail.iteration={failure}",
    ]
    whole, resumed = tmp_path / "runs/tiny/whole", tmp_path / "runs/tiny/run"
    run_tiny(monkeypatch, *options, "run_name=whole")
    with pytest.raises(RuntimeError, match="stopped here"):
        run_tiny(monkeypatch, *options, *fail, "resume=auto")
    assert [line["iteration"] for line in lines_of(resumed)] == [3, 6]
    assert checkpoint(resumed)["generative_model"]["iteration"] == period
    run_tiny(monkeypatch, *options, "resume=auto")
    first, second = checkpoint(whole)["state_dict"], checkpoint(resumed)["state_dict"]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert int((first["pool_labels"] != -1).sum()) > 500
    assert (whole / "rounds.jsonl").read_text() == (resumed / "rounds.jsonl").read_text()
    assert [line["iteration"] for line in lines_of(whole)] == [3, 6, 9]


def test_test_images_and_other_weights_change_no_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tiny(monkeypatch, "run_name=one")
    load = DigitsDataModule.load

    def noisy(data: DigitsDataModule, split: str) -> ImageSet:
        images = load(data, split)
        return images if split == "train" else ImageSet(255 - images.images, images.labels)

    monkeypatch.setattr(DigitsDataModule, "load", noisy)
    run_tiny(monkeypatch, "run_name=other")
    states = [checkpoint(tmp_path / "runs/tiny" / name)["state_dict"] for name in ("one", "other")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    # A new run from these weights begins without their pseudo labels.
    start = tmp_path / "runs/tiny/one/checkpoints/last.ckpt"
    run_tiny(monkeypatch, "run_name=next", f"ckpt_path={start}", "trainer.max_steps=2")
    state = checkpoint(tmp_path / "runs/tiny/next")["state_dict"]
    assert (state["pool_labels"] == -1).all()
    assert not state["rounds_over"]


def test_blocks_of_all_processes_add_up_to_what_one_process_proposes() -> None:
    images = ImageSet(torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), torch.arange(40) % 2)
    indices = torch.arange(1, 40, 2)
    for model in (linear().eval(), co_training(num_training_images=40).eval()):
        assert isinstance(model, SelfTraining | CoTraining)
        with model.evaluation():
            whole = propose_in_blocks(model, images, indices, 6)
            torch.testing.assert_close(whole, model.propose_labels(to_float(images.images[indices])))
            for world_size in (2, 3, 9):
                parts = [
                    propose_in_blocks(model, images, indices, 6, rank=rank, world_size=world_size)
                    for rank in range(world_size)
                ]
                for place in range(2):
                    total = torch.stack([part[place] for part in parts]).sum(0)
                    assert torch.equal(total, whole[place])


def test_pools_are_described_by_hand() -> None:
    before, after = torch.tensor([[-1, 0, 1, 1, -1]]), torch.tensor([[2, 0, 0, -1, -1]])
    confidences = torch.tensor([[0.5, torch.nan, 1.0, torch.nan]])
    (line,) = describe_pools(before, after, confidences, torch.tensor([2, 1, 0, 1, 0]))
    assert line == {"images": 3, "per_class": {"0": 2, "2": 1}, "mean_confidence": 0.75, "changed": 3, "wrong": 1}
    (line,) = describe_pools(before, before.fill_(-1), confidences.fill_(torch.nan), None)
    assert line == {"images": 0, "per_class": {}, "mean_confidence": None, "changed": 0, "wrong": None}


def test_rounds_are_rewound_with_the_scores(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for iteration in (3, 6, 9):
        run.append_round({"iteration": iteration, "round": iteration // 3})
    run.rewind_metrics(6)
    assert [line["round"] for line in run.read_rounds()] == [1, 2]


def test_what_cannot_be_labelled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"callbacks\.pseudo_labels\.block_size must be at least 1, not 0"):
        PseudoLabels(RunDirectory(tmp_path), block_size=0)
    with pytest.raises(UserError, match=r"set callbacks\.pseudo_labels as in"):
        run_tiny(monkeypatch, "callbacks.pseudo_labels=null")
    with pytest.raises(UserError, match=r"set data\.labelled_per_class"):
        run_tiny(monkeypatch, "data.labelled_per_class=null", "run_name=all")
    monkeypatch.setattr(DigitsDataModule, "labelled_indices", torch.arange(1150))
    with pytest.raises(UserError, match=r"none is left to label: lower data\.labelled_per_class"):
        run_tiny(monkeypatch, "run_name=every")
