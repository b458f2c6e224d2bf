"""What holds for every model of configs/model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gen.callbacks.fit_classifier import FitClassifier
from lightning_gen.data import ImageDataModule
from lightning_gen.errors import UserError
from lightning_gen.models.base import GenerativeModel
from lightning_gen.models.capabilities import Latents, Samples, Translates
from lightning_gen.models.gan import GAN
from lightning_gen.models.pixel_model import PixelModel
from lightning_gen.models.translation import TranslationModel
from lightning_gen.registry import construct
from lightning_gen.training import build_model
from tests.models.tiny import ADVERSARIAL, EVERY_MODEL, PIXEL_MODELS, SAMPLERS, TRANSLATING, tiny_config
from tests.trainers import quiet_trainer

State = dict[str, torch.Tensor]


def build(name: str, *overrides: str) -> tuple[GenerativeModel, ImageDataModule]:
    config = tiny_config(name, *overrides)
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    return build_model(config, data), data


def fit(model: GenerativeModel, data: ImageDataModule, steps: int, checkpoint: Path | None = None) -> pl.Trainer:
    trainer = quiet_trainer(steps, FitClassifier())
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


def players(model: GenerativeModel) -> tuple[list[nn.Module], list[nn.Module]]:
    """Discriminators and generators."""
    if isinstance(model, TranslationModel):
        return list(model.discriminators()), list(model.generators())
    assert isinstance(model, GAN)
    return [model.discriminator], [model.generator]


@pytest.mark.parametrize("name", [*ADVERSARIAL, *TRANSLATING])
def test_each_step_changes_its_own_network_and_nothing_of_the_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = build(name)
    discriminators, generators = players(model)
    seen: dict[str, list[tuple[bool, bool]]] = {"discriminator_step": [], "generator_step": []}
    for step in seen:
        original = getattr(model, step)

        def watched(*arguments: Any, step: str = step, original: Any = original) -> Any:
            own, others = (discriminators, generators)[:: 1 if step == "discriminator_step" else -1]
            own_before, others_before = [state(network) for network in own], state(*others, model.average)
            result = original(*arguments)
            unchanged = [same(before, state(network)) for before, network in zip(own_before, own, strict=True)]
            assert len(set(unchanged)) == 1, "all networks of a kind take the step"
            seen[step].append((unchanged[0], same(others_before, state(*others, model.average))))
            return result

        monkeypatch.setattr(model, step, watched)
    trainer = fit(model, data, 2)
    steps = {"discriminator_step": 2 * getattr(model, "discriminator_steps", 1), "generator_step": 2}
    if name == "discogan":
        steps = {"discriminator_step": 1, "generator_step": 1}
    assert seen == {step: [(False, True)] * number for step, number in steps.items()}
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


@pytest.mark.parametrize("name", TRANSLATING)
def test_translations_are_images_of_the_other_domain_and_come_from_the_generator_handed_in(name: str) -> None:
    model, data = build(name)
    assert isinstance(model, Translates)
    assert model.directions[0] == "AtoB"
    assert model.domain_shapes == {"A": data.input_shape, "B": data.image_shape}  # type: ignore[attr-defined]
    fit(model, data, 1)
    for direction in model.directions:
        source, target = direction.split("to")
        size = 2 * model.size_multiple
        images = torch.rand(4, model.domain_shapes[source][0], size, size) * 2 - 1
        torch.manual_seed(0)
        with model.evaluation():
            draws = [model.translate(images, direction, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
            parts_rng = torch.Generator().manual_seed(5)
            parts = [model.translate(part, direction, generator=parts_rng) for part in images.split([1, 3])]
        assert draws[0].shape == (4, model.domain_shapes[target][0], size, size)
        assert draws[0].abs().max() <= 1
        assert torch.equal(draws[0], draws[1])
        torch.testing.assert_close(torch.cat(parts), draws[0], rtol=0, atol=1e-5)
        assert torch.initial_seed() == 0
        torch.testing.assert_close(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(UserError, match="translates in the direction AtoB"):
        model.translate(images, "BtoC", generator=torch.Generator())


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
