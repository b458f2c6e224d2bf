"""What holds for models with a likelihood, a reconstruction or a classifier: training, resume, and isolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.fit_classifier import FitClassifier
from lightning_gen.callbacks.latent_mixture import FitMixture
from lightning_gen.data import ImageDataModule
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.models.capabilities import Classifies, Encodes, FitsFeatures, Likelihood, Reconstructs, Samples
from lightning_gen.registry import construct
from lightning_gen.training import build_model
from tests.models.tiny import ADVERSARIAL, EVERY_MODEL, TRANSLATING, tiny_config
from tests.trainers import quiet_trainer

MODELS = [name for name in EVERY_MODEL if name not in {*ADVERSARIAL, *TRANSLATING}]


def build(name: str) -> tuple[GenerativeModel, ImageDataModule]:
    config = tiny_config(name)
    trained = config["model"].get("prior") or config["model"].get("diffusion") or config["model"]
    if "optimizer" in trained:
        trained["optimizer"]["schedule"] = {"name": "LinearLR", "end_factor": 0.1, "total_iters": 8}
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    return build_model(config, data), data


def fit(
    parts: tuple[GenerativeModel, ImageDataModule], steps: int, *callbacks: Callback, start: Path | None = None
) -> Trainer:
    trainer = quiet_trainer(steps, FitClassifier(), *callbacks)
    model, data = parts
    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    return trainer


def state(model: GenerativeModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]


def use(model: GenerativeModel, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Everything that the model can do."""
    found: dict[str, Tensor] = {}
    with model.evaluation():
        if isinstance(model, Likelihood):
            found["bits"] = model.bits_per_dim(images, labels, generator=torch.Generator().manual_seed(1))
        if isinstance(model, Reconstructs):
            found["reconstructions"] = model.reconstruct(images, labels)
        if isinstance(model, Encodes):
            found["codes"] = model.encode(images, labels)
        if isinstance(model, Classifies):
            found["logits"] = model.classify(images)
        if isinstance(model, Samples):
            found["samples"] = model.sample(3, generator=torch.Generator().manual_seed(2))
    return found


class Use(Callback):
    """Does after every iteration what callbacks may do."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, GenerativeModel)
        chosen = trainer.datamodule.reference_set("test", 4)  # type: ignore[attr-defined]
        torch.rand(3)
        use(pl_module, to_float(chosen.images), chosen.labels)


@pytest.mark.parametrize("name", MODELS)
def test_an_iteration_trains_every_weight_that_is_not_frozen_and_counts_once(name: str) -> None:
    model, data = build(name)
    before = {key: [p.detach().clone() for p in network.parameters()] for key, network in model.networks().items()}
    # Layers that begin at zero let gradients pass from the second iteration on, and those in them from the third.
    trainer = fit((model, data), 3)
    assert trainer.global_step == model.iteration == 3
    assert model.images_seen == 3 * data.batch_size
    for key, network in model.networks().items():
        for one, other in zip(before[key], network.parameters(), strict=True):
            assert torch.equal(one, other) != other.requires_grad, key


@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_stopped(name: str, tmp_path: Path) -> None:
    whole = build(name)
    fit(whole, 6, FitMixture(32))
    first = build(name)
    fit(first, 3, FitMixture(32)).save_checkpoint(tmp_path / "three.ckpt")
    resumed = build(name)
    fit(resumed, 6, FitMixture(32), start=tmp_path / "three.ckpt")
    assert resumed[0].iteration == 6
    assert differing(state(whole[0]), state(resumed[0])) == []
    # What is fitted at once is done before the first iteration.
    assert (differing(state(first[0]), state(resumed[0])) == []) == isinstance(first[0], FitsFeatures)


@pytest.mark.parametrize("name", MODELS)
def test_whatever_runs_between_iterations_changes_no_bit_of_training(name: str) -> None:
    alone, watched = build(name), build(name)
    fit(alone, 4)
    fit(watched, 4, FitMixture(32), Use())
    changed = differing(state(alone[0]), state(watched[0]))
    assert [key for key in changed if not key.startswith("mixture.")] == []
    assert bool(changed) == (getattr(watched[0], "mixture", None) is not None)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_gives_the_same_model_back(name: str, tmp_path: Path) -> None:
    model, data = build(name)
    fit((model, data), 2, FitMixture()).save_checkpoint(tmp_path / "two.ckpt")
    again = load_model(read_checkpoint(tmp_path / "two.ckpt"))
    chosen = data.reference_set("test", 4)
    assert chosen.labels is not None
    arguments = (to_float(chosen.images), chosen.labels)
    first, second = use(model, *arguments), use(again, *arguments)
    assert differing(first, second) == []
    assert first
    assert all(tensor.isfinite().all() for tensor in first.values())
