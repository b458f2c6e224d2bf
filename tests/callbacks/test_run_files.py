"""What a run of the default callbacks leaves behind, and that watching changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_gen.errors import UserError
from lightning_gen.models import read_checkpoint
from lightning_gen.models.gan import GAN

Train = Callable[..., dict[str, Any]]


def run_path(tmp_path: Path, record: dict[str, Any]) -> Path:
    return tmp_path / "runs" / record["experiment"] / record["run_name"]


def test_a_run_leaves_every_file_of_its_directory(train_here: Train, tmp_path: Path) -> None:
    record = train_here(
        "trainer.max_steps=30", "callbacks.scores.every_n_images=320", "callbacks.samples.every_n_images=320"
    )
    path = run_path(tmp_path, record)
    assert record["status"] == "completed"
    assert (record["iterations"], record["images_seen"]) == (30, 960)
    assert record["scores"][0]["name"] == "fd_random"
    assert record["scores"][0]["images_seen"] == 960
    assert record["train_seconds"] > 0
    assert record["images_per_second"] == pytest.approx(960 / record["train_seconds"], rel=0.01)
    assert record["parameters"].keys() == {"generator", "discriminator"}
    assert json.loads((path / "result.json").read_text()) == {"schema": 1, **record}
    assert [json.loads(line)["iteration"] for line in (path / "metrics.jsonl").open()] == [10, 20, 30]
    assert sorted(file.name for file in (path / "samples").iterdir()) == [f"{n:09d}.png" for n in (320, 640, 960)]
    assert {file.suffix for file in (path / "interpolations").iterdir()} == {".png", ".gif"}
    assert Image.open(path / "samples" / "000000960.png").size == (2 * (2 * 32 + 1), 2 * (2 * 32 + 1))
    assert not [file for file in path.rglob("*") if "tmp" in file.name]


def test_checkpoints_keep_their_cadence_and_the_newest(train_here: Train, tmp_path: Path) -> None:
    record = train_here(
        "trainer.max_steps=50", "callbacks.checkpoint.every_n_iterations=10", "callbacks.checkpoint.keep=null"
    )
    folder = run_path(tmp_path, record) / "checkpoints"
    numbered = sorted(folder.glob("iteration_*.ckpt"))
    assert [file.name for file in numbered] == [f"iteration_{n:08d}.ckpt" for n in (10, 20, 30, 40, 50)]
    for file, iteration in zip(numbered, (10, 20, 30, 40, 50), strict=True):
        checkpoint = read_checkpoint(file)
        assert checkpoint["global_step"] == checkpoint["generative_model"]["iteration"] == iteration
        for optimizer in checkpoint["optimizer_states"]:
            assert {int(state["step"]) for state in optimizer["state"].values()} == {iteration}
    assert (folder / "last.ckpt").samefile(numbered[-1])
    record = train_here(
        "trainer.max_steps=50", "callbacks.checkpoint.every_n_iterations=10", "callbacks.checkpoint.keep=2"
    )
    folder = run_path(tmp_path, record) / "checkpoints"
    assert sorted(file.name for file in folder.glob("iteration_*")) == [
        "iteration_00000040.ckpt",
        "iteration_00000050.ckpt",
    ]


def test_best_is_the_checkpoint_of_the_best_score(train_here: Train, tmp_path: Path) -> None:
    record = train_here(
        "trainer.max_steps=40", "callbacks.scores.every_n_images=160", "callbacks.checkpoint.every_n_iterations=null"
    )
    path = run_path(tmp_path, record)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").open()]
    best = min(lines, key=lambda line: line["scores"][0]["value"])
    assert read_checkpoint(path / "checkpoints" / "best.ckpt")["generative_model"]["iteration"] == best["iteration"]


def test_watching_changes_nothing_in_training_to_the_bit(train_here: Train, tmp_path: Path) -> None:
    def weights(*overrides: str) -> dict[str, torch.Tensor]:
        record = train_here("trainer.max_steps=12", *overrides)
        state: dict[str, torch.Tensor] = read_checkpoint(run_path(tmp_path, record) / "checkpoints" / "last.ckpt")[
            "state_dict"
        ]
        return state

    watched = weights(
        "callbacks.scores.every_n_images=32",
        "callbacks.samples.every_n_images=32",
        "callbacks.interpolation.every_n_images=32",
    )
    alone = weights("callbacks.scores=null", "callbacks.samples=null", "callbacks.interpolation=null")
    assert watched.keys() == alone.keys()
    assert all(torch.equal(tensor, alone[name]) for name, tensor in watched.items())


def test_scores_do_not_depend_on_the_order_of_callbacks(train_here: Train, tmp_path: Path) -> None:
    """The moving average belongs to the model, so whoever looks sees the same weights."""
    from lightning_gen.configuration import compose_config
    from lightning_gen.training import train
    from tests.conftest import SMALL

    config = compose_config([*SMALL, "trainer.max_steps=10", "callbacks.scores.every_n_images=96"])
    first = train(config)
    callbacks = dict(reversed(config["callbacks"].items()))

    os.environ.pop("LIGHTNING_GEN_RUN")
    second = train({**config, "callbacks": callbacks})
    assert first is not None
    assert second is not None
    assert [s["value"] for s in first["scores"]] == [s["value"] for s in second["scores"]]
    texts = [(run_path(tmp_path, record) / "metrics.jsonl").read_text() for record in (first, second)]
    assert texts[0] == texts[1]


def test_the_average_is_what_is_scored(train_here: Train) -> None:
    averaged, raw = train_here("trainer.max_steps=10"), train_here("trainer.max_steps=10", "ema=none")
    assert averaged["scores"][0]["protocol"]["weights"] == "ema"
    assert raw["scores"][0]["protocol"]["weights"] == "raw"
    assert averaged["scores"][0]["value"] != raw["scores"][0]["value"]


def test_a_loss_that_is_not_finite_stops_the_run(
    train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GAN.training_iteration

    def broken(self: GAN, batch: Any) -> dict[str, torch.Tensor]:
        losses = original(self, batch)
        return {**losses, "generator_loss": losses["generator_loss"] * float("nan")} if self.iteration == 24 else losses

    monkeypatch.setattr(GAN, "training_iteration", broken)
    with pytest.raises(UserError, match=r"generator_loss is nan at iteration 25.*last\.ckpt"):
        train_here("trainer.max_steps=40", "callbacks.checkpoint.every_n_iterations=5", "run_name=diverged")
    path = tmp_path / "runs" / "tiny" / "diverged"
    assert json.loads((path / "result.json").read_text())["status"] == "failed"
    assert read_checkpoint(path / "checkpoints" / "last.ckpt")["generative_model"]["iteration"] == 20


def test_epochs_end_a_run_too(train_here: Train) -> None:
    record = train_here("trainer.max_steps=-1", "trainer.max_epochs=2")
    assert record["iterations"] == 2 * (1437 // 32)
    assert record["scores"][0]["images_seen"] == record["images_seen"]
