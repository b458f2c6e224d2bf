"""What holds for every model of configs/model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gen.data import ImageDataModule
from lightning_gen.models.base import GenerativeModel
from lightning_gen.models.capabilities import Latents, Samples
from lightning_gen.models.gan import GAN
from lightning_gen.models.pixel_model import PixelModel
from lightning_gen.registry import construct
from lightning_gen.training import build_model
from tests.models.tiny import ADVERSARIAL, EVERY_MODEL, PIXEL_MODELS, SAMPLERS, tiny_config

State = dict[str, torch.Tensor]


def build(name: str, *overrides: str) -> tuple[GenerativeModel, ImageDataModule]:
    config = tiny_config(name, *overrides)
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    return build_model(config, data), data


def fit(model: GenerativeModel, data: ImageDataModule, steps: int, checkpoint: Path | None = None) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_steps=steps, enable_model_summary=False, **quiet)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


def state(*networks: nn.Module | None) -> State:
    return {
        f"{number}.{name}": tensor.clone()
        for number, network in enumerate(networks)
        if network is not None
        for name, tensor in network.state_dict().items()
    }


def same(one: State, other: State) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_each_step_changes_its_own_network_and_nothing_of_the_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = build(name)
    assert isinstance(model, GAN)
    seen: dict[str, list[tuple[bool, bool]]] = {"discriminator_step": [], "generator_step": []}
    for step in seen:
        original = getattr(model, step)

        def watched(*arguments: Any, step: str = step, original: Any = original) -> Any:
            own, other = (model.discriminator, model.generator)[:: 1 if step == "discriminator_step" else -1]
            own_before, other_before = state(own), state(other, model.average)
            result = original(*arguments)
            seen[step].append((same(own_before, state(own)), same(other_before, state(other, model.average))))
            return result

        monkeypatch.setattr(model, step, watched)
    trainer = fit(model, data, 2)
    assert seen["discriminator_step"] == [(False, True)] * (2 * model.discriminator_steps)
    assert seen["generator_step"] == [(False, True)] * 2
    assert trainer.global_step == model.iteration == 2
    assert model.images_seen == 2 * data.batch_size


@pytest.mark.parametrize("name", PIXEL_MODELS)
def test_an_iteration_steps_the_network_once_and_moves_the_average_after_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = build(name)
    assert isinstance(model, PixelModel)
    seen: list[tuple[bool, bool]] = []
    original = model.training_iteration

    def watched(batch: Any) -> Any:
        network, average = state(model.network), state(model.average)
        result = original(batch)
        seen.append((same(network, state(model.network)), same(average, state(model.average))))
        return result

    monkeypatch.setattr(model, "training_iteration", watched)
    average = state(model.average)
    trainer = fit(model, data, 2)
    assert seen == [(False, True)] * 2
    assert not same(average, state(model.average))
    assert trainer.global_step == model.iteration == 2
    assert model.images_seen == 2 * data.batch_size


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_images_and_come_from_the_generator_handed_in(name: str) -> None:
    model, data = build(name)
    assert isinstance(model, Samples)
    assert isinstance(model, Latents) or name not in ADVERSARIAL
    with model.evaluation():
        draws = [model.sample(3, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert draws[0].shape == (3, *data.image_shape)
    assert draws[0].abs().max() <= 1
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    with model.evaluation():
        single = model.sample(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(single, draws[0]), "evaluation changes nothing"


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_a_checkpoint_holds_all_that_training_needs(name: str) -> None:
    model, data = build(name)
    fit(model, data, 1)
    other, _ = build(name)
    other.load_state_dict(model.state_dict())
    assert same(state(model), state(other))


@pytest.mark.parametrize("name", PIXEL_MODELS)
def test_a_resumed_training_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    model, data = build(name)
    whole = fit(model, data, 3)
    stopped, stopped_data = build(name)
    fit(stopped, stopped_data, 2).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, resumed_data = build(name)
    trainer = fit(resumed, resumed_data, 3, tmp_path / "stopped.ckpt")
    assert same(state(model), state(resumed))
    assert not same(state(model), state(stopped))
    assert [each.state_dict()["param_groups"] for each in trainer.optimizers] == [
        each.state_dict()["param_groups"] for each in whole.optimizers
    ]
    assert (resumed.iteration, resumed.images_seen) == (model.iteration, model.images_seen)
