"""Models of two domains in checkpoints: replay pools, averages, and training that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_gen.data import ImageDataModule
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.models.cyclegan import CycleGAN
from lightning_gen.registry import construct
from lightning_gen.training import build_model
from tests.end_to_end.test_resume import assert_equal
from tests.models.tiny import TRANSLATING, tiny_config
from tests.trainers import quiet_trainer


def build(name: str) -> tuple[GenerativeModel, ImageDataModule]:
    config = tiny_config(name, "trainer.max_steps=12")
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    return build_model(config, data), data


def fit(model: GenerativeModel, data: ImageDataModule, steps: int, checkpoint: Path | None = None) -> pl.Trainer:
    trainer = quiet_trainer(steps)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


@pytest.mark.parametrize("name", TRANSLATING)
def test_a_checkpoint_gives_back_a_model_that_translates_alike(name: str, tmp_path: Path) -> None:
    model, data = build(name)
    model.add_average(half_life_images=100)
    fit(model, data, 3).save_checkpoint(tmp_path / "model.ckpt")
    again: Any = load_model(read_checkpoint(tmp_path / "model.ckpt"))
    assert type(again) is type(model)
    assert again.iteration == 3
    images = torch.rand(2, *again.domain_shapes["A"]) * 2 - 1
    with model.evaluation(), again.evaluation():
        translations = [each.translate(images, generator=torch.Generator().manual_seed(0)) for each in (model, again)]
    assert torch.equal(*translations)
    with model.evaluation(use_average=False):
        assert not torch.equal(translations[0], model.translate(images, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", TRANSLATING)
def test_training_goes_on_exactly_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    whole, data = build(name)
    end = fit(whole, data, 6)._checkpoint_connector.dump_checkpoint()
    half, data = build(name)
    fit(half, data, 3).save_checkpoint(tmp_path / "half.ckpt")
    resumed, data = build(name)
    resumed_end = fit(resumed, data, 6, tmp_path / "half.ckpt")._checkpoint_connector.dump_checkpoint()
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "generative_model", "replay_pools"):
        assert_equal(resumed_end.get(part), end.get(part), part)
    assert ("replay_pools" in end) == (name == "cyclegan")


def test_a_checkpoint_holds_the_pools_and_training_depends_on_them(tmp_path: Path) -> None:
    model, data = build("cyclegan")
    assert isinstance(model, CycleGAN)
    fit(model, data, 3).save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = read_checkpoint(tmp_path / "model.ckpt")
    for domain in ("A", "B"):
        (pool,) = checkpoint["replay_pools"][domain]
        assert pool.shape == (8, 1, 32, 32)
        assert torch.equal(pool, model.pools[domain].images)  # type: ignore[arg-type]
    ends = []
    for emptied in (False, True):
        if emptied:
            checkpoint["replay_pools"] = {"A": [], "B": []}
            torch.save(checkpoint, tmp_path / "model.ckpt")
        resumed, data = build("cyclegan")
        fit(resumed, data, 4, tmp_path / "model.ckpt")
        ends.append(resumed.state_dict())
    changed = {name.split(".")[0] for name, tensor in ends[0].items() if not torch.equal(tensor, ends[1][name])}
    assert changed == {"discriminator_a", "discriminator_b"}
