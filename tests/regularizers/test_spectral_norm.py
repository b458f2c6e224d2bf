from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_gen.errors import UserError
from lightning_gen.models.base import frozen
from lightning_gen.models.gan import GAN
from lightning_gen.regularizers import Players, Regularizer, regularizers
from tests.models.test_gan import ADAM, PLAIN, equal, fit, small_gan, state


class AddsHead(Regularizer):
    def build(self, players: Players) -> None:
        players.discriminator.add_head("further", 3, hidden=4)


@pytest.fixture(autouse=True)
def _a_regularizer_that_adds_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "spectral_norm" in list(regularizers), "which also imports them all"
    monkeypatch.setitem(regularizers._entries, "adds_head", AddsHead)


def normed_layers(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if parametrize.is_parametrized(module)}


def largest_singular_value(layer: Any) -> float:
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    return float(torch.linalg.svdvals(weight.flatten(1))[0])


@pytest.mark.parametrize("order", [["spectral_norm", "adds_head"], ["adds_head", "spectral_norm"]])
def test_every_layer_is_normalized_whatever_the_order_in_the_config(order: list[str]) -> None:
    model = small_gan(regularizers={name: {} for name in order}, discriminator=PLAIN)
    # three convolutions, the head, two layers of the further head
    assert len(normed_layers(model.discriminator)) == 3 + 1 + 2
    assert not normed_layers(model.generator)


def test_the_largest_singular_value_is_one_after_passes_in_training() -> None:
    options = {"networks": ["generator", "discriminator"], "power_iterations": 2}
    model = small_gan(regularizers={"spectral_norm": options, "adds_head": {}}, discriminator=PLAIN)
    latents = torch.randn(4, 4)
    for _ in range(100):
        images = model.generator(latents)
        model.discriminator(images)
    model.eval()
    layers = {**normed_layers(model.generator), **normed_layers(model.discriminator)}
    kinds = {nn.Conv2d, nn.ConvTranspose2d, nn.Linear}
    assert all(any(isinstance(layer, kind) for layer in layers.values()) for kind in kinds)
    for layer in layers.values():
        assert largest_singular_value(layer) == pytest.approx(1, rel=0.01)


def test_embeddings_are_normalized_and_layers_that_are_already_are_left() -> None:
    network = nn.ModuleDict(
        {"table": nn.Embedding(5, 3), "done": nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))}
    )
    players = Players(network, network, "hinge", None, torch.zeros, (), {}, (1, 32, 32))  # type: ignore[arg-type]
    regularizers["spectral_norm"]().finish(players)
    assert set(normed_layers(network)) == {"table", "done"}
    assert len(network["done"].parametrizations.weight) == 1
    for _ in range(50):
        network["table"](torch.tensor([0]))
    assert largest_singular_value(network["table"]) == pytest.approx(1, rel=0.01)


def vectors(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith(("_u", "_v"))}


def test_only_passes_in_training_that_are_not_frozen_move_u_and_v() -> None:
    model = small_gan(regularizers={"spectral_norm": {}}, discriminator=PLAIN)
    discriminator, images = model.discriminator, torch.randn(2, 1, 32, 32)
    before = vectors(discriminator)
    assert len(before) == 2 * 4
    with frozen(discriminator):
        discriminator(images)
    with model.evaluation():
        discriminator(images)
    assert all(torch.equal(vector, before[name]) for name, vector in vectors(discriminator).items())
    discriminator(images)
    assert not all(torch.equal(vector, before[name]) for name, vector in vectors(discriminator).items())


def test_a_pass_keeps_its_gradient_through_later_passes() -> None:
    discriminator = small_gan(regularizers={"spectral_norm": {}}, discriminator=PLAIN).discriminator
    first, second = torch.randn(2, 2, 1, 32, 32)
    parameters = list(discriminator.parameters())
    logits = discriminator(first).logits
    alone = torch.autograd.grad(logits.sum(), parameters, retain_graph=True)
    later = discriminator(second).logits
    again = torch.autograd.grad(logits.sum(), parameters, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True))
    both = torch.autograd.grad(logits.sum() + later.sum(), parameters, retain_graph=True)
    alone_later = torch.autograd.grad(later.sum(), parameters)
    for summed, a, b in zip(both, alone, alone_later, strict=True):
        torch.testing.assert_close(summed, a + b)


def test_copies_are_equal_and_follow_as_averages() -> None:
    model = small_gan(regularizers={"spectral_norm": {"networks": ["generator"]}})
    model.add_average(half_life_images=100)
    fit(model, 2)
    assert model.average is not None
    average = model.average.networks["generator"]
    assert len(normed_layers(average)) == 4
    followed = dict(model.generator.named_buffers())
    assert all(torch.equal(buffer, followed[name]) for name, buffer in average.named_buffers())
    assert not equal(state(model.generator), average)


def test_a_model_is_built_again_from_its_state() -> None:
    first, second = (small_gan(regularizers={"spectral_norm": {}}, discriminator=PLAIN) for _ in range(2))
    fit(first, 2)
    second.load_state_dict(first.state_dict())
    images = torch.randn(3, 1, 32, 32)
    with first.evaluation(), second.evaluation():
        assert torch.equal(first.discriminator(images).logits, second.discriminator(images).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spectral_norm": {"networks": ["critic"]}}, "networks must list some of generator, discriminator"),
        ({"spectral_norm": {"networks": "discriminator"}}, "networks must list some of"),
        ({"spectral_norm": {"networks": []}}, "networks must list some of"),
        ({"spectral_norm": {"power_iterations": 0}}, "power_iterations must be at least 1"),
        ({"spectral_norm": {}, "weight_clip": {"limit": 0.1}}, "keep one of the two"),
        ({"weight_clip": {"limit": 0.1}, "spectral_norm": {}}, "keep one of the two"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        small_gan(regularizers=options, discriminator=PLAIN)
    assert "\n" not in str(caught.value)


def test_weights_that_begin_at_zero_are_refused() -> None:
    r3gan = "lightning_gen.networks.r3gan.R3GAN"
    small = {"width": 4, "cardinality": 2}
    with pytest.raises(UserError, match=r"contract of model\.discriminator begins at zero"):
        GAN(
            (1, 32, 32),
            {"_target_": f"{r3gan}Generator", **small},
            {"_target_": f"{r3gan}Discriminator", **small},
            ADAM,
            ADAM,
            regularizers={"spectral_norm": {}},
        )
