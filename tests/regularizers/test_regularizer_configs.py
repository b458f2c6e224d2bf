"""Every option of the group `regularizer`: it is a regularizer's name, and a model trains with it."""

from __future__ import annotations

import pytest
import torch

from lightning_gen.configuration import config_dir
from lightning_gen.data import ImageDataModule
from lightning_gen.registry import construct
from lightning_gen.regularizers import regularizers
from lightning_gen.training import build_model
from tests.models.test_family import fit
from tests.models.tiny import tiny_config

OPTIONS = sorted(path.stem for path in (config_dir() / "regularizer").glob("*.yaml"))
NO_BATCH_NORM = ("model.discriminator.norm=none",)
NEEDS = {
    "r1": NO_BATCH_NORM,
    "r2": NO_BATCH_NORM,
    "zero_centered": NO_BATCH_NORM,
    "wgan_gp": NO_BATCH_NORM,
    "dragan": NO_BATCH_NORM,
    "auxiliary_classifier": ("model.conditional=true",),
    "mutual_information": ("model.codes={categorical: [10]}",),
}
"""What an option asks of the model."""


def test_every_regularizer_has_an_option() -> None:
    assert list(regularizers) == OPTIONS


@pytest.mark.parametrize("option", OPTIONS)
def test_a_model_trains_with_the_option(option: str) -> None:
    config = tiny_config("dcgan", f"regularizer=[{option}]", *NEEDS.get(option, ()))
    assert list(config["model"]["regularizers"]) == [option]
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    model = build_model(config, data)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert fit(model, data, 2).global_step == 2
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert any(name.startswith("generator.") for name in moved)
    assert any(name.startswith("discriminator.") for name in moved)


def test_many_at_once() -> None:
    together = "spectral_norm,diffaugment,lecam,consistency,top_k,r1,orthogonal,historical_averaging,label_smoothing"
    config = tiny_config("dcgan", f"regularizer=[{together}]", "model.discriminator.norm=none")
    torch.manual_seed(0)
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    assert fit(build_model(config, data), data, 2).global_step == 2
