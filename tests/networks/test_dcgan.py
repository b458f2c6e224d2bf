import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.dcgan import DCGANDiscriminator, DCGANGenerator


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts_at_64_pixels_equal_the_pytorch_examples() -> None:
    # github.com/pytorch/examples/blob/main/dcgan/main.py with nz=100, ngf=ndf=64, nc=3, counted by hand:
    # generator 100*512*16 + 512*256*16 + 256*128*16 + 128*64*16 + 64*3*16 + 2*(512+256+128+64)
    assert count(DCGANGenerator((3, 64, 64), latent_dim=100)) == 3_576_704
    # discriminator 3*64*16 + 64*128*16 + 128*256*16 + 256*512*16 + 512*16 + 2*(128+256+512)
    assert count(DCGANDiscriminator((3, 64, 64))) == 2_765_568


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_power_of_two_and_any_channels(size: int, channels: int) -> None:
    shape = (channels, size, size)
    images = DCGANGenerator(shape, latent_dim=5, base_channels=2)(torch.randn(3, 5))
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1
    assert DCGANDiscriminator(shape, base_channels=2)(images).logits.shape == (3,)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 16, 16), (3, 48, 48), (3, 32, 64)])
def test_other_sizes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=r"data\.image_size"):
        DCGANGenerator(shape, latent_dim=5)
    with pytest.raises(UserError, match=r"data\.image_size"):
        DCGANDiscriminator(shape)


def test_the_guidelines_of_the_paper() -> None:
    generator = DCGANGenerator((3, 64, 64), latent_dim=100)
    discriminator = DCGANDiscriminator((3, 64, 64))
    for network in (generator, discriminator.blocks):
        kinds = [type(module) for module in network.modules()]
        assert not {nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.Dropout} & set(kinds)
    layers = [type(module) for module in generator.layers]
    assert layers == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 4 + [nn.ConvTranspose2d, nn.Tanh]
    layers = [type(module) for block in discriminator.blocks for module in block]
    assert layers == [nn.Conv2d, nn.LeakyReLU] + [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * 3
    assert all(m.negative_slope == 0.2 for m in discriminator.modules() if isinstance(m, nn.LeakyReLU))


def test_initial_weights_have_the_papers_spread() -> None:
    torch.manual_seed(0)
    for network in (DCGANGenerator((3, 64, 64), latent_dim=100), DCGANDiscriminator((3, 64, 64))):
        weights = torch.cat([p.detach().flatten() for p in network.parameters() if p.ndim > 1])
        assert weights.mean().abs() < 1e-4
        assert weights.std() == pytest.approx(0.02, rel=0.01)
