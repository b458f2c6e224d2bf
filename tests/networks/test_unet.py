from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.unet import UNet
from lightning_gen.networks.unet_layers import Attention, Upsample, group_norm
from tests.networks.checks import count, without_gradient
from tests.networks.diffusers_unet import reference, weights_of

TEXT = {"_target_": "lightning_gen.networks.text.TextCondition"}


def small(image_shape: tuple[int, int, int] = (1, 16, 16), **options: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(image_shape, **{"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention_sizes": (8,), **options})


def randomize(network: nn.Module) -> None:
    """Weights of which every one matters, where some begin as zeros."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 1.0)


def test_the_network_for_cifar10_has_the_paper_s_number_of_parameters() -> None:
    network = UNet((3, 32, 32))
    assert count(network) == 35_746_307  # "35.7 million", Ho et al. 2020, appendix B
    assert count(reference(network)) == 35_746_307


@pytest.mark.parametrize(
    ("image_shape", "options"),
    [
        ((3, 32, 32), {"channels": 32, "multipliers": (1, 2, 2, 2), "blocks": 2, "attention_sizes": (16,)}),
        ((1, 12, 12), {"channels": 16, "multipliers": (1, 3), "blocks": 1, "attention_sizes": (12, 6)}),
    ],
)
def test_it_gives_what_the_network_of_diffusers_gives_with_the_same_weights(
    image_shape: tuple[int, int, int], options: dict[str, Any]
) -> None:
    network = small(image_shape, **options).eval()
    theirs = reference(network)
    randomize(theirs)
    network.load_state_dict(weights_of(theirs))
    images, levels = torch.randn(3, *image_shape), torch.tensor([0.0, 17.0, 999.0])
    with torch.no_grad():
        expected = theirs(images, levels).sample
        torch.testing.assert_close(network(images, levels), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_upsampling_by_one_transposed_convolution_is_that_by_repeated_values() -> None:
    torch.manual_seed(0)
    layer = Upsample(6).double()
    maps = torch.randn(2, 6, 5, 3).double().requires_grad_(True)
    plain = layer.conv(maps.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(layer(maps), plain, rtol=0, atol=1e-12)
    upstream = torch.randn_like(plain)
    inputs = (maps, *layer.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(layer(maps), inputs, upstream), torch.autograd.grad(plain, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_attention_is_softmax_of_scaled_products_of_each_head() -> None:
    torch.manual_seed(0)
    attention = Attention(8, head_channels=4, token_dim=3).double()
    maps, tokens = torch.randn(2, 8, 2, 3).double(), torch.randn(2, 5, 3).double()
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    normed = F.group_norm(maps, 2, eps=1e-6)
    expected = maps.clone()
    for image in range(2):
        length = int(mask[image].sum())
        keys, values = attention.key_value(tokens[image, :length]).chunk(2, 1)
        for row in range(2):
            for column in range(3):
                query = attention.query(normed[image, :, row, column])
                found = []
                for head in (slice(0, 4), slice(4, 8)):
                    weights = (keys[:, head] @ query[head] / 2).softmax(0)
                    found.append(weights @ values[:, head])
                expected[image, :, row, column] += attention.output(torch.cat(found))
    torch.testing.assert_close(attention(maps, tokens, mask), expected, rtol=0, atol=1e-12)


def test_groups_hold_four_channels_or_more_and_are_32_at_most() -> None:
    found = {width: group_norm(width).num_groups for width in (2, 4, 16, 24, 36, 64, 128, 384)}
    assert found == {2: 1, 4: 1, 16: 4, 24: 6, 36: 9, 64: 16, 128: 32, 384: 32}


def test_it_begins_at_zero_and_every_weight_can_learn() -> None:
    network = small(num_classes=3, class_names=("a", "b", "c"), condition=TEXT, cross_attention=True)
    arguments = torch.randn(4, 1, 16, 16), torch.rand(4) * 1000, torch.tensor([0, 1, 2, 3])
    assert not network(*arguments).any()
    randomize(network)
    assert without_gradient(network, network(*arguments)) == []


@pytest.mark.parametrize("size", [(16, 24), (12, 12), (20, 4)])
def test_it_takes_every_size_that_halves_to_whole_numbers(size: tuple[int, int]) -> None:
    network = small((2, *size), multipliers=(1, 1, 2))
    assert network(torch.randn(2, 2, *size), torch.zeros(2)).shape == (2, 2, *size)


def test_levels_and_labels_are_those_of_their_own_image() -> None:
    network = small(num_classes=4).eval().double()
    randomize(network)
    images = torch.randn(1, 1, 16, 16).double().expand(4, -1, -1, -1)
    levels, labels = torch.tensor([1.0, 1.0, 400.0, 1.0]).double(), torch.tensor([0, 2, 0, 4])
    with torch.no_grad():
        together = network(images, levels, labels)
        alone = torch.cat([network(images[:1], levels[n : n + 1], labels[n : n + 1]) for n in range(4)])
        unlabelled = network(images[:1], levels[:1])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(unlabelled, alone[3:], rtol=0, atol=1e-10)
    assert torch.pdist(alone.flatten(1)).min() > 1e-3


def test_dropout_acts_in_training_alone() -> None:
    network = small(dropout=0.5)
    randomize(network)
    images, levels = torch.randn(2, 1, 16, 16), torch.zeros(2)
    assert not torch.equal(network(images, levels), network(images, levels))
    network.eval()
    assert torch.equal(network(images, levels), network(images, levels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (1, 18, 16), "multipliers": (1, 1, 1)}, "set data.image_size to a multiple of 4"),
        ({"blocks": 0}, "model.network.blocks must be at least 1"),
        ({"multipliers": ()}, "multipliers"),
        ({"channels": 5}, "model.network.channels must be even"),
        ({"head_channels": 5}, "model.network.head_channels=5 must divide"),
        ({"cross_attention": True}, "needs a condition with tokens"),
        ({"cross_attention": True, "num_classes": 3}, "needs a condition with tokens"),
        ({"condition": TEXT}, "set model.conditional=true"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**options)
