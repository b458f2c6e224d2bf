"""Every regularizer in a small GAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_gen.errors import UserError
from lightning_gen.models.gan import GAN
from lightning_gen.regularizers import regularizers
from tests.models.small import fit, small_gan

ACGAN = {
    "generator": {"_target_": "lightning_gen.networks.acgan.ACGANGenerator", "base_channels": 4},
    "discriminator": {"_target_": "lightning_gen.networks.acgan.ACGANDiscriminator", "base_channels": 2},
    "conditional": True,
    "discriminator_takes_labels": False,
    "num_classes": 10,
}
CODES = {"codes": {"categorical": [3], "continuous": 1}}
EACH: dict[str, dict[str, Any]] = {
    "diffaugment": {},
    "ada": {"initial_probability": 0.5},
    "consistency": {},
    "lecam": {"weight": 0.3},
    "top_k": {"anneal_images": 16},
    "orthogonal": {"networks": ["generator", "discriminator"]},
    "feature_matching": {"norm": "l1"},
    "historical_averaging": {"weight": 0.1},
    "label_smoothing": {},
    "auxiliary_classifier": {},
    "mutual_information": {},
}
NEEDS = {"auxiliary_classifier": ACGAN, "mutual_information": CODES}
TERMS = {
    "discriminator_consistency",
    "discriminator_lecam",
    "discriminator_orthogonal",
    "generator_orthogonal",
    "generator_feature_matching",
    "discriminator_historical_averaging",
    "generator_historical_averaging",
    "discriminator_label_smoothing",
    "discriminator_auxiliary_classifier",
    "generator_auxiliary_classifier",
    "discriminator_mutual_information",
    "generator_mutual_information",
}


class Losses(pl.Callback):
    """Notes the losses of every iteration."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.history.append({name: float(value) for name, value in outputs.items()})


def fitted(steps: int = 2, **options: Any) -> tuple[GAN, list[dict[str, float]]]:
    losses = Losses()
    model = small_gan(**options)
    fit(model, steps, losses)
    return model, losses.history


def finite(model: GAN) -> bool:
    return all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", EACH)
def test_each_regularizer_trains(name: str) -> None:
    model, history = fitted(regularizers={name: EACH[name]}, **NEEDS.get(name, {}))
    assert finite(model)
    expected = {term for term in TERMS if term.split("_", 1)[1] == name}
    replaced = {"generator_loss"} if name == "feature_matching" else set()
    assert set(history[-1]) == {"discriminator_loss", "generator_loss"} - replaced | expected
    assert all(torch.tensor(list(losses.values())).isfinite().all() for losses in history)


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_all_of_them_train_together(loss: str) -> None:
    together = {**EACH, "feature_matching": {"replaces_loss": False}}
    model, history = fitted(regularizers=together, loss=loss, discriminator_steps=2, **ACGAN, **CODES)
    assert finite(model)
    assert set(history[-1]) == {"discriminator_loss", "generator_loss", *TERMS}
    assert set(together) <= set(regularizers)


@pytest.mark.parametrize("name", ["diffaugment", "ada", "consistency", "lecam", "top_k", "orthogonal"])
@pytest.mark.parametrize("loss", ["hinge", "least_squares"])
def test_other_losses_take_what_does_not_depend_on_them(name: str, loss: str) -> None:
    assert finite(fitted(steps=1, regularizers={name: EACH[name]}, loss=loss)[0])


def test_the_discriminator_sees_augmented_images_and_the_generator_learns_through_them() -> None:
    model = small_gan(regularizers={"diffaugment": {"policy": ["cutout"]}})
    seen: list[torch.Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    before = [parameter.clone() for parameter in model.generator.parameters()]
    fit(model, 1)
    assert len(seen) == 3, "real, fake, and fake in the generator's step"
    for images in seen:
        assert ((images == 0).flatten(1).sum(1) >= 8 * 8).all()
    assert not any(
        torch.equal(old, new) for old, new in zip(before, model.generator.parameters(), strict=True) if old.ndim > 1
    )


def test_the_adapted_probability_follows_training_and_is_resumed() -> None:
    options = {"regularizers": {"ada": {"adjust_images": 640, "initial_probability": 0.5}}}
    model, _ = fitted(steps=8, **options)
    moved = model.regularizers["ada"].probability.item()
    # Two changes of 4 * 16 / 640 each, up or down.
    assert any(moved == pytest.approx(0.5 + change, abs=1e-6) for change in (-0.2, 0, 0.2))
    again = small_gan(**options)
    again.load_state_dict(model.state_dict())
    assert again.regularizers["ada"].probability.item() == moved


def test_top_k_leaves_fewer_logits_to_the_generators_loss() -> None:
    counts: list[int] = []
    model = small_gan(regularizers={"top_k": {"fraction": 0.25, "anneal_images": 32}})
    plain = model.loss.generator
    model.loss = model.loss._replace(generator=lambda fake, real: (counts.append(len(fake)), plain(fake, real))[1])
    fit(model, 4)
    assert counts == [16, 8, 4, 4]


def test_an_auxiliary_classifier_learns_the_digits() -> None:
    options = {**ACGAN, "discriminator": {**ACGAN["discriminator"], "base_channels": 4, "dropout": 0.0}}  # type: ignore[dict-item]
    _, history = fitted(steps=60, regularizers={"auxiliary_classifier": {"classify_fakes": False}}, **options)
    surprises = [losses["discriminator_auxiliary_classifier"] for losses in history]
    assert surprises[0] == pytest.approx(torch.tensor(10.0).log().item(), abs=0.3)
    assert sum(surprises[-5:]) / 5 < 1.2


def test_a_discriminator_is_told_the_labels_only_if_it_takes_them() -> None:
    assert small_gan(**ACGAN).discriminator.num_classes is None
    infogan = "lightning_gen.networks.infogan.InfoGAN"
    unlabelled = {"_target_": f"{infogan}Discriminator", "base_channels": 2, "hidden": 4}
    options = {**ACGAN, "discriminator": unlabelled}
    assert small_gan(**options).discriminator.num_classes is None
    with pytest.raises(UserError, match=r"model\.discriminator=.*takes no labels"):
        small_gan(**{**options, "discriminator_takes_labels": True})
    with pytest.raises(UserError, match=r"model\.generator=.*takes no labels"):
        small_gan(**{**ACGAN, "generator": {"_target_": f"{infogan}Generator", "base_channels": 2, "hidden": 4}})


def test_parameters_added_by_other_regularizers_are_averaged_whatever_the_order() -> None:
    for names in (("historical_averaging", "mutual_information"), ("mutual_information", "historical_averaging")):
        model = small_gan(regularizers={name: EACH[name] for name in names}, **CODES)
        number = sum(parameter.numel() for parameter in model.discriminator.parameters())
        assert len(model.regularizers["historical_averaging"].discriminator_average) == number


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    stateful: dict[str, Any] = {
        "ada": {"adjust_images": 640, "initial_probability": 0.5},
        "lecam": 0.3,
        "historical_averaging": 0.1,
    }
    straight = small_gan(regularizers=stateful)
    fit(straight, 6)
    first = small_gan(regularizers=stateful)
    fit(first, 3).save_checkpoint(tmp_path / "third.ckpt")
    second = small_gan(regularizers=stateful)
    torch.nn.init.zeros_(second.discriminator.head.linear.weight)
    trainer = fit(second, 6, checkpoint=tmp_path / "third.ckpt")
    assert trainer.global_step == 6
    resumed = second.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.state_dict().items())
