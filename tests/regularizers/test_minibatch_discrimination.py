from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import LinearHead, ProjectionHead
from lightning_gen.networks.minibatch_discrimination import MinibatchDiscrimination
from lightning_gen.regularizers import Players, regularizers
from tests.models.test_gan import fit, small_gan

R3GAN = {"width": 4, "cardinality": 2, "blocks_per_stage": 1}


def test_the_head_sees_the_closeness_and_further_heads_do_not() -> None:
    model = small_gan(regularizers={"minibatch_discrimination": {"kernels": 6, "dims": 2}})
    discriminator = model.discriminator
    discriminator.add_head("further", 3)
    head = discriminator.head
    assert isinstance(head, LinearHead)
    assert head.linear.in_features == discriminator.num_features + 6 == 134
    assert head.linear.bias is None, "as the DCGAN's own"
    assert discriminator.heads["further"][0].in_features == 128
    assert isinstance(discriminator.batch_features, MinibatchDiscrimination)
    output = discriminator.eval()(torch.randn(3, 1, 32, 32))
    expected = head.linear(discriminator.batch_features(output.features)).squeeze(1)
    assert torch.equal(output.logits, expected)
    assert output.features.shape == (3, 128)


def test_the_new_head_is_drawn_as_the_network_draws() -> None:
    model = small_gan(regularizers={"minibatch_discrimination": {"kernels": 2000}})
    head = model.discriminator.head
    assert isinstance(head, LinearHead)
    assert head.linear.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_projection_heads_are_made_anew() -> None:
    spec = {"_target_": "lightning_gen.networks.r3gan.R3GANDiscriminator", **R3GAN}
    options = {"minibatch_discrimination": {"kernels": 6}}
    generator = {"_target_": "lightning_gen.networks.dcgan.DCGANGenerator", "base_channels": 2}
    model = small_gan(generator=generator, discriminator=spec, regularizers=options, conditional=True, num_classes=7)
    head = model.discriminator.head
    assert isinstance(head, ProjectionHead)
    assert head.embedding.weight.shape == (7, 4 + 6)
    logits = model.discriminator(torch.randn(3, 1, 32, 32), torch.tensor([0, 6, 6])).logits
    assert logits.shape == (3,)


def test_training_moves_the_layer() -> None:
    model = small_gan(regularizers={"minibatch_discrimination": {"kernels": 6}})
    layer = model.discriminator.batch_features
    assert isinstance(layer, MinibatchDiscrimination)
    before = layer.matrices.weight.detach().clone()
    fit(model, 2)
    assert not torch.equal(layer.matrices.weight, before)


def test_what_means_nothing_is_refused() -> None:
    options: dict[str, Any]
    for options in ({"kernels": 0}, {"dims": 0}):
        with pytest.raises(UserError, match="kernels and dims must be at least 1"):
            small_gan(regularizers={"minibatch_discrimination": options})
    with pytest.raises(UserError, match=r"minibatch discrimination .* gradient penalty on it means nothing"):
        plain = {"_target_": "lightning_gen.networks.dcgan.DCGANDiscriminator", "base_channels": 2, "norm": "none"}
        small_gan(regularizers={"minibatch_discrimination": {}, "r1": 1.0}, discriminator=plain)

    class OtherHead(LinearHead):
        pass

    network = small_gan().discriminator
    network.head = OtherHead(network.num_features)
    players = Players(nn.Identity(), network, "hinge", None, torch.zeros, (), {}, (1, 32, 32))
    with pytest.raises(UserError, match="head OtherHead of DCGANDiscriminator takes no further features"):
        regularizers["minibatch_discrimination"]().build(players)
