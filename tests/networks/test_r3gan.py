from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from lightning_gen.errors import UserError
from lightning_gen.losses.penalties import r1
from lightning_gen.networks.r3gan import R3GANDiscriminator, R3GANGenerator, Resample, ResidualBlock
from tests.networks.checks import count, without_gradient

SMALL = {"width": 8, "cardinality": 4, "blocks_per_stage": 1}


def test_resampling_is_bilinear_interpolation_but_for_the_border() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    up = Resample(up=True)(maps)
    assert up.shape == (2, 3, 16, 16)
    expected = interpolate(maps, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(up[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    down = Resample(up=False)(maps)
    assert down.shape == (2, 3, 4, 4)
    expected = interpolate(maps, scale_factor=0.5, mode="bilinear", antialias=True)
    torch.testing.assert_close(down[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    # Beyond the border there are zeros: a constant map keeps 3/4 + 0 of itself in a corner's row, and its column.
    constant = Resample(up=True)(torch.ones(1, 1, 4, 4))
    assert constant[0, 0, 0, 0] == 0.75**2


def test_a_block_begins_as_the_identity_with_the_spread_of_fixup() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(64, cardinality=8, expansion=2, num_blocks=16)
    maps = torch.randn(2, 64, 4, 4)
    assert torch.equal(block(maps), maps)
    # He et al. for a slope of 0.2, times 16 ** -0.25 = 1/2; fan-in 64, and 3 * 3 * (128 / 8) within a group
    for layer, fan_in in ((block.expand, 64), (block.spatial, 144)):
        assert layer.weight.std().item() == pytest.approx(0.5 * (2 / (1 + 0.2**2) / fan_in) ** 0.5, rel=0.02)
        assert not layer.bias.any()
    assert block.spatial.groups == 8


def test_parameter_counts_of_the_cifar_10_preset() -> None:
    # a block: 768*1536 + 1536, 1536*(1536/96)*9 + 1536, 1536*768
    block = 1_181_184 + 222_720 + 1_179_648
    # 2 blocks at 4, 8, 16 and 32 pixels; basis 768*4*4, its weights 64*768, pixels 768*3
    with torch.device("meta"):
        assert count(R3GANGenerator((3, 32, 32), 64)) == 8 * block + 12_288 + 49_152 + 2_304
        # pixels 3*768, the last filters 768*4*4, the logit 768
        assert count(R3GANDiscriminator((3, 32, 32))) == 8 * block + 2_304 + 12_288 + 768


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("size", "widths"), [(32, [8] * 4), (64, [8] * 4 + [4]), (128, [8] * 4 + [4, 2])])
def test_any_size_with_and_without_classes(size: int, widths: list[int], num_classes: int | None) -> None:
    torch.manual_seed(0)
    shape = (2, size, size)
    labels = None if num_classes is None else torch.tensor([0, 1, 2])
    generator = R3GANGenerator(shape, 5, num_classes, **SMALL)
    images = generator(torch.randn(3, 5), labels)
    assert images.shape == (3, *shape)
    discriminator = R3GANDiscriminator(shape, num_classes, **SMALL)
    output = discriminator(images, labels)
    assert output.logits.shape == (3,)
    assert output.features.shape == (3, 8)
    maps = discriminator.feature_maps(images, labels)
    assert [m.shape[1] for m in maps] == [*reversed(widths), 8]
    assert [m.shape[2] for m in maps] == [*(size >> level for level in range(len(widths))), 1]
    for module in generator.modules():
        if isinstance(module, ResidualBlock):
            assert module.spatial.in_channels == 2 * module.expand.in_channels


@pytest.mark.parametrize("num_classes", [None, 3])
def test_once_the_blocks_have_left_zero_every_parameter_has_a_gradient(num_classes: int | None) -> None:
    torch.manual_seed(0)
    labels = None if num_classes is None else torch.tensor([0, 1, 2])
    generator = R3GANGenerator((1, 64, 64), 5, num_classes, **SMALL)
    discriminator = R3GANDiscriminator((1, 64, 64), num_classes, **SMALL)
    for network in (generator, discriminator):
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                nn.init.normal_(module.contract.weight, 0.0, 0.1)
    images = generator(torch.randn(3, 5), labels)
    assert without_gradient(generator, images) == []
    assert without_gradient(discriminator, discriminator(images.detach(), labels).logits) == []


def test_the_discriminator_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    discriminator = R3GANDiscriminator((1, 32, 32), **SMALL)
    images = torch.randn(2, 1, 32, 32)
    penalty = r1(lambda given: discriminator(given).logits, images, images).sum()
    gradient = torch.autograd.grad(penalty, discriminator.blocks[0][0].weight)[0]
    assert gradient.any()


def test_latents_weigh_the_basis() -> None:
    generator = R3GANGenerator((1, 32, 32), 5, **SMALL)
    latents = torch.randn(2, 5)
    # All blocks begin as identities and no layer has a bias, so images are linear in the latents.
    torch.testing.assert_close(generator(3 * latents), 3 * generator(latents))
    assert not generator(torch.zeros(1, 5)).any()


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.generator\.cardinality=3 must divide width \* expansion = 16"):
        R3GANGenerator((1, 32, 32), 5, width=8, cardinality=3)
    with pytest.raises(UserError, match=r"model\.discriminator\.cardinality=32 .* halved"):
        R3GANDiscriminator((1, 128, 128), width=2, cardinality=32)
    with pytest.raises(UserError, match=r"^R3GAN makes .* not 28x28"):
        R3GANGenerator((1, 28, 28), 5, **SMALL)
