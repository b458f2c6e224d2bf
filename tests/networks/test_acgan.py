from itertools import pairwise

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.acgan import ACGANDiscriminator, ACGANGenerator


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts_are_those_of_the_papers_tables() -> None:
    # Generator: a linear layer to 384 maps of 4x4 and three transposed convolutions of 5x5, batch norm in two.
    linear = (110 + 10) * 384 * 16 + 384 * 16
    convolutions = 384 * 192 * 25 + 192 + 192 * 96 * 25 + 96 + 96 * 3 * 25 + 3
    generator = ACGANGenerator((3, 32, 32), latent_dim=110, num_classes=10)
    assert count(generator) == linear + convolutions + 2 * (192 + 96)
    # Discriminator: 3x3 convolutions to 16, 32, 64, 128, 256 and 512 maps, batch norm in all but the first, 4x4 left.
    widths = [3, 16, 32, 64, 128, 256, 512]
    kernels = sum(before * after * 9 + after for before, after in pairwise(widths))
    assert count(ACGANDiscriminator((3, 32, 32))) == kernels + 2 * sum(widths[2:]) + 512 * 16 + 1


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_power_of_two_and_any_channels(size: int, channels: int) -> None:
    shape = (channels, size, size)
    generator = ACGANGenerator(shape, latent_dim=5, num_classes=4, base_channels=2)
    images = generator(torch.randn(3, 5), torch.tensor([0, 1, 3]))
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1
    assert ACGANDiscriminator(shape, base_channels=2)(images).logits.shape == (3,)
    assert ACGANGenerator(shape, latent_dim=5, base_channels=2)(torch.randn(3, 5)).shape == (3, *shape)


def test_the_label_decides_on_the_image() -> None:
    generator = ACGANGenerator((1, 32, 32), latent_dim=5, num_classes=4, base_channels=2).eval()
    latents = torch.randn(1, 5).expand(4, -1)
    images = generator(latents, torch.arange(4))
    assert len(images.flatten(1).unique(dim=0)) == 4
    assert torch.allclose(generator(latents, torch.zeros(4, dtype=torch.int64))[3], images[0], atol=1e-6)


def test_layers_of_the_paper() -> None:
    discriminator = ACGANDiscriminator((3, 32, 32))
    for index, block in enumerate(discriminator.blocks):
        norms = [nn.BatchNorm2d] if index else []
        assert [type(layer) for layer in block] == [nn.Conv2d, *norms, nn.LeakyReLU, nn.Dropout]
        assert block[-1].p == 0.5
    sizes = [maps.shape[2] for maps in discriminator.feature_maps(torch.zeros(2, 3, 32, 32))]
    assert sizes == [16, 16, 8, 8, 4, 4]
    torch.manual_seed(0)
    weights = torch.cat([p.detach().flatten() for p in ACGANDiscriminator((3, 32, 32)).parameters() if p.ndim > 1])
    assert weights.std() == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 48, 48), (3, 32, 64)])
def test_other_sizes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=r"data\.image_size"):
        ACGANGenerator(shape, latent_dim=5)
    with pytest.raises(UserError, match=r"data\.image_size"):
        ACGANDiscriminator(shape)
