"""The generators of CycleGAN and DiscoGAN, and DiscoGAN's discriminator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discogan import DiscoDiscriminator, EncoderDecoder
from lightning_gen.networks.residual_translator import ResidualTranslator
from lightning_gen.networks.translator import Translator
from tests.networks.checks import count, without_gradient
from tests.networks.counting import conv3


def square(channels: int, size: int) -> tuple[int, int, int]:
    return channels, size, size


@pytest.mark.parametrize(("size", "blocks", "total"), [(256, 9, 11_378_179), (128, 6, 7_837_699)])
def test_parameters_of_the_residual_generator_are_the_published_ones(size: int, blocks: int, total: int) -> None:
    """11.38 M with 9 blocks."""
    with torch.device("meta"):
        network = ResidualTranslator(square(3, size), square(3, size))
    sampling = conv3(64, 128) + conv3(128, 256) + conv3(256, 128) + conv3(128, 64)
    ends = 49 * 3 * 64 + 64 + 49 * 64 * 3 + 3
    assert count(network) == ends + sampling + blocks * 2 * conv3(256, 256) == total


def test_instance_norms_have_neither_parameters_nor_running_statistics() -> None:
    network = ResidualTranslator(square(1, 16), square(3, 16), base_channels=4, num_blocks=1)
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm2d)]
    assert len(norms) == 7
    assert not any(norm.affine or norm.track_running_stats for norm in norms)
    assert not list(network.buffers())
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        together, singly = network(images), torch.cat([network(image[None]) for image in images])
        assert torch.equal(together, network.eval()(images))
    torch.testing.assert_close(together, singly, rtol=0, atol=1e-5)


def test_padding_reflects() -> None:
    """A constant image stays constant, which zeros at the border would not leave it."""
    network = ResidualTranslator(square(1, 16), square(1, 16), base_channels=4, num_blocks=2).double()
    seen: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (1, 1):
            assert module.padding == (0, 0)
            module.register_forward_hook(lambda *call: seen.append(call[2]))
    network(torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64))
    assert seen[0].std((2, 3)).max() < 1e-12


@pytest.mark.parametrize(
    ("network", "size"),
    [(ResidualTranslator, 8), (ResidualTranslator, 20), (EncoderDecoder, 16), (EncoderDecoder, 32)],
)
def test_translators_make_images_of_the_other_domain(network: type[Translator], size: int) -> None:
    torch.manual_seed(0)
    translator = network(square(1, size), square(3, size), base_channels=4)  # type: ignore[call-arg, arg-type]
    output = translator(torch.rand(2, 1, size, size) * 2 - 1)
    assert output.shape == (2, 3, size, size)
    assert output.abs().max() <= 1
    assert translator.draw_noise(output, generator=torch.Generator()) is None
    rectangle = torch.rand(1, 1, translator.size_multiple, 3 * translator.size_multiple)
    assert translator.eval()(rectangle).shape == (1, 3, *rectangle.shape[2:])


def test_weights_of_the_residual_generator_are_drawn_as_the_paper_says() -> None:
    network = ResidualTranslator(square(3, 32), square(3, 32), base_channels=16, num_blocks=2)
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert torch.cat([weight.flatten() for weight in weights]).std().item() == pytest.approx(0.02, rel=0.01)


def test_parameters_of_discogans_networks_are_those_of_its_code_at_64_pixels() -> None:
    """Four convolutions with 64 to 512 channels and back; batch norm but at the ends; no biases."""
    down, up = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512), 16 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    norms = 2 * (128 + 256 + 512)
    extra = 16 * 2 * 512 * 100 + 2 * (100 + 512)
    with torch.device("meta"):
        generator = EncoderDecoder(square(3, 64), square(3, 64))
        deeper = EncoderDecoder(square(3, 64), square(3, 64), bottleneck_channels=100)
        discriminator = DiscoDiscriminator(3, square(3, 64))
        output = discriminator(torch.empty(2, 3, 64, 64))
    assert count(generator) == down + up + norms + 2 * (256 + 128 + 64)
    assert count(deeper) == count(generator) + extra
    assert count(discriminator) == down + norms + 16 * 512
    assert output.logits.shape == (2, 1, 1, 1)
    maps = [(2, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8), (2, 512, 4, 4)]
    assert [tuple(each.shape) for each in output.feature_maps] == maps


def test_the_bottleneck_has_one_pixel() -> None:
    network = EncoderDecoder(square(1, 16), square(1, 16), base_channels=4, bottleneck_channels=3)
    seen: list[torch.Size] = []
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    output = network(torch.randn(2, 1, 16, 16))
    assert seen[0] == (2, 3, 1, 1)
    assert network.size_multiple == 16
    assert network.smallest_batch == 2
    assert without_gradient(network, output) == []


def test_every_weight_of_discogans_networks_matters() -> None:
    torch.manual_seed(0)
    generator, discriminator = EncoderDecoder(square(1, 16), square(1, 16), 4), DiscoDiscriminator(1, square(1, 16), 4)
    output = generator(torch.randn(4, 1, 16, 16))
    assert without_gradient(generator, output) == []
    assert without_gradient(discriminator, discriminator(output.detach()).logits) == []


@pytest.mark.parametrize("size", [8, 24])
def test_discogan_refuses_other_sizes(size: int) -> None:
    for build in (
        lambda: EncoderDecoder(square(1, size), square(1, size)),
        lambda: DiscoDiscriminator(1, square(1, size)),
    ):
        with pytest.raises(UserError, match=rf"power-of-two size from 16, not {size}x{size}: set data\.image_size"):
            build()


def test_the_residual_generator_refuses_other_sizes() -> None:
    for size in (4, 18):
        with pytest.raises(UserError, match=r"a multiple of 4 pixels, at least 8, not \d+: set data\.image_size"):
            ResidualTranslator(square(1, size), square(1, size))
    with pytest.raises(UserError, match=r"model\.generator\.num_blocks must be at least 0"):
        ResidualTranslator(square(1, 16), square(1, 16), num_blocks=-1)
