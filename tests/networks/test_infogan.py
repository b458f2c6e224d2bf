from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.infogan import InfoGANDiscriminator, InfoGANGenerator
from tests.networks.checks import count, without_gradient


def test_parameter_counts_are_those_of_the_papers_layers_at_32_pixels() -> None:
    # 62 + 10 + 2 latents; 74*1024 + 2*1024, 1024*(128*8*8) + 2*8192, 128*64*16 + 2*64, 64*1*16 + 1
    assert count(InfoGANGenerator((1, 32, 32), 74)) == 77_824 + 8_404_992 + 131_200 + 1_025
    # 1*64*16 + 64, 64*128*16 + 2*128, (128*8*8)*1024 + 2*1024, 1024 + 1
    assert count(InfoGANDiscriminator((1, 32, 32))) == 1_088 + 131_328 + 8_390_656 + 1_025


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 64)])
def test_shapes_and_gradients(shape: tuple[int, int, int], norm: str) -> None:
    torch.manual_seed(0)
    generator = InfoGANGenerator(shape, 5, base_channels=2, hidden=7)
    images = generator(torch.randn(4, 5))
    assert images.shape == (4, *shape)
    assert images.abs().max() <= 1
    discriminator = InfoGANDiscriminator(shape, base_channels=2, hidden=6, norm=norm)
    discriminator.add_head("codes", 3, hidden=4)
    output = discriminator(images.detach())
    assert output.logits.shape == (4,)
    assert output.features.shape == (4, 6)
    assert output.heads["codes"].shape == (4, 3)
    half, quarter = shape[1] // 2, shape[1] // 4
    maps = discriminator.feature_maps(images)
    assert [m.shape[1:] for m in maps] == [(2, half, half), (4, quarter, quarter), (6,)]
    assert without_gradient(generator, images) == []
    assert without_gradient(discriminator, torch.cat([output.logits[:, None], output.heads["codes"]], 1)) == []


def test_batch_norm_is_where_the_paper_has_it() -> None:
    discriminator = InfoGANDiscriminator((1, 32, 32), base_channels=2, hidden=6)
    assert [[type(layer) for layer in block] for block in discriminator.blocks] == [
        [nn.Conv2d, nn.LeakyReLU],
        [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU],
        [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.LeakyReLU],
    ]
    assert all(m.negative_slope == 0.1 for m in discriminator.modules() if isinstance(m, nn.LeakyReLU))
    without = InfoGANDiscriminator((1, 32, 32), base_channels=2, hidden=6, norm="none")
    assert not any("BatchNorm" in type(module).__name__ for module in without.modules())


def test_initial_weights_have_the_codes_spread() -> None:
    torch.manual_seed(0)
    for network in (InfoGANGenerator((1, 32, 32), 74), InfoGANDiscriminator((1, 32, 32))):
        weights = torch.cat([p.detach().flatten() for p in network.parameters() if p.ndim > 1])
        assert weights.std() == pytest.approx(0.02, rel=0.01)
        gains = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm1d)])
        assert gains.mean() == pytest.approx(1, abs=0.005)
        assert gains.std() == pytest.approx(0.02, rel=0.1)


def test_other_shapes_and_norms_are_refused() -> None:
    for network in (lambda shape: InfoGANGenerator(shape, 5), InfoGANDiscriminator):
        with pytest.raises(UserError, match=r"^InfoGAN makes .* not 28x28: set data\.image_size$"):
            network((1, 28, 28))
    with pytest.raises(UserError, match=r"model\.discriminator\.norm must be batch or none"):
        InfoGANDiscriminator((1, 32, 32), norm="layer")  # type: ignore[arg-type]
