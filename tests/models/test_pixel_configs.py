"""The papers' pixel models and the experiments with them, from their configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.configuration import compose_config, config_dir
from lightning_gen.models.pixel_model import PixelModel
from lightning_gen.networks.gated_pixelcnn import GatedPixelCNN
from lightning_gen.networks.masked import MaskedConv2d
from lightning_gen.networks.pixel_rnn import DiagonalBiLSTM, PixelRNN, RowLSTM
from lightning_gen.networks.pixelcnn import PixelCNN
from lightning_gen.networks.pixelcnn_pp import PixelCNNPP
from lightning_gen.registry import construct
from tests.models.tiny import PIXEL_MODELS

EXPERIMENTS = sorted(
    path.stem for path in (config_dir() / "experiment").glob("*.yaml") if path.stem.rpartition("_")[0] in PIXEL_MODELS
)


def built(*overrides: str, shape: tuple[int, int, int] = (3, 32, 32)) -> PixelModel:
    spec: dict[str, Any] = dict(compose_config(list(overrides))["model"])
    with torch.device("meta"):
        return construct(spec, PixelModel, image_shape=shape, num_classes=10, label_law=[0.1] * 10)


def test_pixelcnn_is_that_of_table_1() -> None:
    model = built("model=pixelcnn")
    network = model.network
    assert isinstance(network, PixelCNN)
    assert len(network.blocks) == 15
    assert (network.first.weight.shape, network.blocks[0].middle.weight.shape) == ((256, 3, 4, 7), (128, 128, 2, 3))  # type: ignore[union-attr]
    assert (network.head.hidden.out_channels, network.head.output.out_channels) == (1024, 3 * 256)
    assert isinstance(model.configure_optimizers()[0][0], torch.optim.RMSprop)  # type: ignore[index]


@pytest.mark.parametrize(("name", "lstm"), [("pixel_rnn_row", RowLSTM), ("pixel_rnn_diagonal", DiagonalBiLSTM)])
def test_pixelrnns_are_those_of_table_1(name: str, lstm: type[nn.Module]) -> None:
    network = built(f"model={name}").network
    assert isinstance(network, PixelRNN)
    lstms = [block.lstm for block in network.blocks]
    assert len(lstms) == 12
    assert all(isinstance(each, lstm) for each in lstms)
    assert {module.out_channels for module in network.modules() if isinstance(module, nn.Conv1d)} == {4 * 128}
    assert network.head.output.out_channels == 3 * 256


def test_gated_pixelcnn_is_that_for_imagenet() -> None:
    network = built("model=gated_pixelcnn").network
    assert isinstance(network, GatedPixelCNN)
    assert len(network.layers) == 20
    assert {module.out_channels for module in network.layers.modules() if isinstance(module, MaskedConv2d)} == {
        384,
        768,
    }
    assert network.layers[1].horizontal.weight.shape == (768, 384, 1, 5)


def test_pixelcnn_pp_is_the_published_one() -> None:
    model = built("experiment=pixelcnn_pp_cifar10")
    assert isinstance(model.network, PixelCNNPP)
    assert model.network.output.out_channels == 100
    assert model.law_spec == {"name": "logistic_mixture", "components": 10}
    (optimizer,), (schedule,) = model.configure_optimizers()  # type: ignore[misc]
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (1e-3, (0.95, 0.9995))
    assert schedule.gamma == 0.999995
    config = compose_config(["experiment=pixelcnn_pp_cifar10"])
    assert 0.5 ** (config["data"]["batch_size"] / config["ema"]["half_life_images"]) == pytest.approx(0.9995, abs=1e-7)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_builds_its_model(name: str) -> None:
    config = compose_config([f"experiment={name}"])
    assert config["experiment_name"] == name
    size = config["data"]["image_size"]
    model = built(f"experiment={name}", shape=(3 if name.endswith("cifar10") else 1, size, size))
    assert model.conditional == (name == "gated_pixelcnn_digits")
    assert (model.law_spec["name"] == "bernoulli") == name.endswith("_mnist")
    assert size == (28 if name.endswith("_mnist") else 32)


def test_there_is_an_experiment_on_digits_for_every_pixel_model() -> None:
    assert {f"{name}_digits" for name in PIXEL_MODELS} <= set(EXPERIMENTS)
