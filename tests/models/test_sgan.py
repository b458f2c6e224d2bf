from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gen.data.batches import SemiSupervisedBatch
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.losses.semi_supervised import labelled_loss, unlabelled_loss
from lightning_gen.models.capabilities import Classifies, Latents, Samples
from lightning_gen.models.checkpoints import load_model
from lightning_gen.models.sgan import SGAN
from tests.trainers import quiet_trainer

ADAM = {"name": "Adam", "lr": 1e-3, "betas": [0.5, 0.999]}
NETWORKS = "lightning_gen.networks.semi_supervised"


def small_sgan(seed: int = 0, **options: Any) -> SGAN:
    torch.manual_seed(seed)
    return SGAN(
        **{
            "image_shape": (1, 8, 8),
            "generator": {"_target_": f"{NETWORKS}.SGANMLPGenerator", "hidden": [8]},
            "discriminator": {"_target_": f"{NETWORKS}.SGANMLPDiscriminator", "hidden": [16, 8]},
            "generator_optimizer": ADAM,
            "discriminator_optimizer": ADAM,
            "latent_dim": 4,
            "latent_range": 0.5,
            "num_classes": 10,
            "labelled_per_class": 2,
            **options,
        }
    )


class HiddenImages(pl.Callback):
    """Puts other images in the place of those without labels."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        batch.images.copy_(-batch.images.flip(0))


def fit(model: SGAN, steps: int, *callbacks: pl.Callback, labelled_per_class: int | None = 2) -> pl.Trainer:
    trainer = quiet_trainer(steps, *callbacks)
    data = DigitsDataModule("unused", batch_size=16, image_size=8, labelled_per_class=labelled_per_class)
    trainer.fit(model, datamodule=data)
    return trainer


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(before: dict[str, torch.Tensor], network: nn.Module) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("generator_loss", ["feature_matching", "adversarial"])
@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_each_step_changes_its_own_network_and_nothing_of_the_other(
    generator_loss: str, discriminator_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_sgan(generator_loss=generator_loss, discriminator_steps=discriminator_steps)
    changed: dict[str, list[bool]] = {}
    for step, own, other in (
        ("discriminator_step", model.discriminator, model.generator),
        ("generator_step", model.generator, model.discriminator),
    ):
        original = getattr(model, step)

        def watched(
            *arguments: Any, step: str = step, own: nn.Module = own, other: nn.Module = other, run: Any = original
        ) -> Any:
            own_before, other_before = state(own), state(other)
            result = run(*arguments)
            changed.setdefault(step, []).append(equal(other_before, other) and not equal(own_before, own))
            return result

        monkeypatch.setattr(model, step, watched)
    trainer = fit(model, 3)
    assert changed == {"discriminator_step": [True] * 3 * discriminator_steps, "generator_step": [True] * 3}
    assert trainer.global_step == model.iteration == 3
    assert model.images_seen == 3 * 16


def test_further_generator_steps_have_fake_images_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_sgan(generator_steps=3)
    seen: list[torch.Tensor] = []
    original = model.generator_step

    def watched(real: Any, fake: Any) -> Any:
        seen.append(fake.latents)
        return original(real, fake)

    monkeypatch.setattr(model, "generator_step", watched)
    trainer = fit(model, 2)
    assert trainer.global_step == 2
    assert [len(latents) for latents in seen] == [16] * 6
    assert len(torch.cat(seen).unique(dim=0)) == 6 * 16
    discriminator, generator = trainer.optimizers
    assert {int(entry["step"]) for entry in discriminator.state.values()} == {2}
    assert {int(entry["step"]) for entry in generator.state.values()} == {6}


def test_the_gradient_of_one_iteration_is_that_of_the_papers_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of plain gradient descent, worked out again with a softmax over K + 1 classes."""
    sgd = {"name": "SGD", "lr": 1.0}
    spec = {"_target_": f"{NETWORKS}.SGANMLPDiscriminator", "hidden": [8], "input_noise": 0.0, "hidden_noise": 0.0}
    model = small_sgan(discriminator=spec, discriminator_optimizer=sgd, unlabelled_weight=0.6)
    start = small_sgan(discriminator=spec).discriminator
    start.load_state_dict(model.discriminator.state_dict())
    batches: list[SemiSupervisedBatch] = []
    fakes: list[torch.Tensor] = []
    original = model._generate
    monkeypatch.setattr(model, "_generate", lambda *args: fakes.append(original(*args)) or fakes[-1])  # type: ignore[func-returns-value, arg-type]

    class Keep(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            batches.append(batch)

    fit(model, 1, Keep())
    (batch,) = batches
    (fake,) = fakes
    start.initialize_from_data(batch.images)  # type: ignore[operator]

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        logits = start(images).heads["classes"]
        return torch.cat([logits, torch.zeros(len(logits), 1)], 1).softmax(1)

    labelled = probabilities(batch.labelled_images)[:, :10]
    among_real = labelled / labelled.sum(1, keepdim=True)
    loss = -among_real[torch.arange(16), batch.labelled_labels].log().mean()
    loss = loss - 0.3 * (1 - probabilities(batch.images)[:, 10]).log().mean()
    loss = loss - 0.3 * probabilities(fake.images.detach())[:, 10].log().mean()  # type: ignore[attr-defined]
    loss.backward()
    for before, after in zip(start.parameters(), model.discriminator.parameters(), strict=True):
        moved = before if before.grad is None else before - before.grad
        torch.testing.assert_close(after, moved, rtol=1e-4, atol=1e-6)


def test_the_discriminators_logit_is_that_of_its_class_logits() -> None:
    model = small_sgan().eval()
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    logits = model.classify(images)
    total = logits.exp().sum(1)
    assert logits.shape == (6, 10)
    torch.testing.assert_close(model.discriminator(images).logits.sigmoid(), total / (total + 1))


def test_the_classifier_learns_its_labelled_images_and_tells_real_from_fake() -> None:
    spec = {"_target_": f"{NETWORKS}.SGANMLPDiscriminator", "hidden": [64, 32], "input_noise": 0.1, "hidden_noise": 0.1}
    model = small_sgan(discriminator=spec, discriminator_optimizer={**ADAM, "lr": 3e-3})
    seen: list[SemiSupervisedBatch] = []

    class Keep(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch)

    fit(model, 100, Keep())
    with model.evaluation():
        images = torch.cat([batch.labelled_images for batch in seen[-5:]])
        labels = torch.cat([batch.labelled_labels for batch in seen[-5:]])
        assert (model.classify(images).argmax(1) == labels).all()
        assert labelled_loss(model.classify(images), labels) < 0.1
        assert unlabelled_loss(model.classify(seen[-1].images)) < 0.5


def test_the_average_follows_both_networks_and_classifies() -> None:
    model = small_sgan()
    model.add_average(half_life_images=500, rampup_ratio=None)
    fit(model, 5)
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    with model.evaluation(use_average=False):
        raw = model.classify(images)
    assert model.average is not None
    averaged = model.average.networks["discriminator"].eval()(images).heads["classes"]
    with model.evaluation():
        assert torch.equal(model.classify(images), averaged)
        assert not torch.equal(model.classify(images), raw)


def test_the_supervised_baseline_sees_labelled_images_alone() -> None:
    first, second = small_sgan(supervised_only=True), small_sgan(supervised_only=True)
    generator, discriminator = state(first.generator), state(first.discriminator)
    trainer = fit(first, 4)
    fit(second, 4, HiddenImages())
    assert equal(state(first.discriminator), second.discriminator)
    assert equal(generator, first.generator)
    assert not equal(discriminator, first.discriminator)
    assert trainer.global_step == first.iteration == 4
    whole, disturbed = small_sgan(), small_sgan()
    fit(whole, 4)
    fit(disturbed, 4, HiddenImages())
    assert not equal(state(whole.discriminator), disturbed.discriminator)


def test_a_checkpoint_gives_the_model_back() -> None:
    model = small_sgan(generator_loss="adversarial", unlabelled_weight=0.5, regularizers={"r1": 0.1})
    model.add_average(half_life_images=100)
    trainer = fit(model, 2)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()
    again = load_model(checkpoint)
    assert isinstance(again, SGAN)
    assert (again.generator_loss, again.unlabelled_weight, again.iteration) == ("adversarial", 0.5, 2)
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    with model.evaluation(), again.evaluation():
        assert torch.equal(model.classify(images), again.classify(images))


def test_capabilities() -> None:
    model = small_sgan()
    assert isinstance(model, Samples)
    assert isinstance(model, Latents)
    assert isinstance(model, Classifies)
    with model.evaluation():
        draws = [model.sample(3, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert draws[0].shape == (3, 1, 8, 8)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labelled_per_class": None}, r"set data\.labelled_per_class"),
        ({"num_classes": 0}, "the data set has none"),
        ({"loss": "hinge"}, r"model\.loss=non_saturating"),
        ({"generator_loss": "features"}, r"model\.generator_loss must be"),
        ({"feature_distance": "cubed"}, r"model\.feature_distance must be"),
        ({"generator_steps": 0}, r"model\.generator_steps must be at least 1"),
        ({"conditional": True}, r"model\.conditional=true"),
        (
            {"discriminator": {"_target_": "lightning_gen.networks.dcgan.DCGANDiscriminator", "base_channels": 2}},
            "num_logits",
        ),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        small_sgan(**options)
    assert "\n" not in str(caught.value)


def test_a_batch_without_hidden_labels_is_refused() -> None:
    with pytest.raises(UserError, match=r"set data\.labelled_per_class"):
        fit(small_sgan(), 1, labelled_per_class=None)
