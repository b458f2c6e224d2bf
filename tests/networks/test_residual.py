import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.networks.residual import DiscriminatorBlock, GeneratorBlock


def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 4, 6, 6).double()


def randomized(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


def double_size(maps: Tensor) -> Tensor:
    return maps.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_generator_block_is_that_of_the_paper() -> None:
    block = randomized(GeneratorBlock(4, 5, nn.BatchNorm2d))
    maps = images()
    residual = block.conv1(double_size(block.norm1(maps).clamp(min=0)))
    residual = block.conv2(block.norm2(residual).clamp(min=0))
    expected = residual + block.shortcut(double_size(maps))
    torch.testing.assert_close(block(maps), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("first", [True, False])
def test_a_downsampling_block_is_that_of_the_paper(first: bool) -> None:
    block = randomized(DiscriminatorBlock(4, 5, nn.Identity, first=first))
    maps = images()
    residual = block.conv2(block.conv1(maps if first else maps.clamp(min=0)).clamp(min=0))
    pooled = residual.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    shortcut = block.shortcut(maps).unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(block(maps), pooled + shortcut, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm2d])
def test_the_shortcut_sees_negative_inputs(norm: type[nn.Module]) -> None:
    maps = images()
    assert (maps < 0).any()
    block = randomized(DiscriminatorBlock(4, 4, norm, downsample=False))
    # With the second convolution at 0 nothing but the shortcut, here the identity, is left.
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    before = maps.clone()
    assert torch.equal(block(maps), before)
    assert torch.equal(maps, before)
    generator_block = randomized(GeneratorBlock(4, 4, norm))
    generator_block(maps)
    assert torch.equal(maps, before)


@pytest.mark.parametrize(("options", "hidden"), [({}, 4), ({"wide": True}, 6), ({"first": True}, 6)])
def test_where_a_block_widens(options: dict[str, bool], hidden: int) -> None:
    block = DiscriminatorBlock(4, 6, nn.Identity, **options)
    assert (block.conv1.out_channels, block.conv2.in_channels) == (hidden, hidden)


def test_norms_come_before_every_relu_but_in_the_first_block() -> None:
    block = randomized(DiscriminatorBlock(4, 6, nn.BatchNorm2d, downsample=False))
    maps = images()
    residual = block.conv2(F.relu(block.norm2(block.conv1(F.relu(block.norm1(maps))))))
    torch.testing.assert_close(block(maps), residual + block.shortcut(maps), rtol=0, atol=1e-9)
    assert (block.norm1.num_features, block.norm2.num_features) == (4, 4)
    first = DiscriminatorBlock(4, 6, nn.BatchNorm2d, first=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in first.modules())
