from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lightning_gen.errors import UserError
from lightning_gen.networks.attention import SelfAttention2d
from lightning_gen.networks.discriminator import ProjectionHead
from lightning_gen.networks.residual import DiscriminatorBlock, GeneratorBlock
from lightning_gen.networks.resnet import ResNetDiscriminator, ResNetGenerator
from tests.networks.counting import attention, conv3, count, down, level, up

CIFAR = (3, 32, 32)


def test_parameter_counts_at_32_pixels_are_those_of_the_tables() -> None:
    # Miyato et al. 2018, appendix B.4, CIFAR-10: dense 128 -> 4x4x256, 3 blocks of 256, batch norm, 3x3 to 3.
    # The sums are also what the networks sngan_32, cgan_pd_32 and sagan_32 of github.com/kwotsin/mimicry have.
    dense, end = 128 * 4096 + 4096, 2 * 256 + conv3(256, 3)
    assert dense + 3 * up(256, 256) + end == 4_276_739
    assert count(ResNetGenerator(CIFAR, 128)) == 4_276_739
    # 10 gains and 10 biases for each channel of the blocks' norms
    assert dense + 3 * up(256, 256, per_channel=20) + end == 4_304_387
    assert count(ResNetGenerator(CIFAR, 128, num_classes=10)) == 4_304_387
    assert 4_304_387 + attention(256) == 4_386_308
    assert count(ResNetGenerator(CIFAR, 128, num_classes=10, attention_resolution=16)) == 4_386_308

    # 2 blocks of 128 that downsample, 2 that do not, dense 128 -> 1
    assert down(3, 128, 128) + down(128, 128, 128) + 2 * level(128) + 129 == 1_053_825
    assert count(ResNetDiscriminator(CIFAR)) == 1_053_825
    assert count(ResNetDiscriminator(CIFAR, pooling="mean")) == 1_053_825
    assert count(ResNetDiscriminator(CIFAR, num_classes=10)) == 1_053_825 + 10 * 128
    assert 1_053_825 + 10 * 128 + attention(128) == 1_075_586
    assert count(ResNetDiscriminator(CIFAR, num_classes=10, attention_resolution=16)) == 1_075_586


def test_parameter_counts_of_the_wgan_gp_generator() -> None:
    # gan_cifar_resnet.py of github.com/igul222/improved_wgan_training: the same with 128 channels
    assert 128 * 2048 + 2048 + 3 * up(128, 128) + 2 * 128 + conv3(128, 3) == 1_204_483
    assert count(ResNetGenerator(CIFAR, 128, base_channels=128)) == 1_204_483


def test_parameter_counts_at_64_and_128_pixels_are_those_of_the_tables() -> None:
    # sngan_64 and sngan_128 of github.com/kwotsin/mimicry have the same sums.
    dense, end = 128 * 16 * 1024 + 16 * 1024, 2 * 64 + conv3(64, 3)
    narrowing = up(512, 256) + up(256, 128) + up(128, 64)
    widening = down(3, 64, 64) + down(64, 128, 64) + down(128, 256, 128) + down(256, 512, 256) + down(512, 1024, 512)
    with torch.device("meta"):
        assert dense + up(1024, 512) + narrowing + end == count(ResNetGenerator((3, 64, 64), 128)) == 12_220_675
        generator = ResNetGenerator((3, 128, 128), 128)
        assert dense + up(1024, 1024) + up(1024, 512) + narrowing + end == count(generator) == 32_150_787
        assert widening + 1025 == count(ResNetDiscriminator((3, 64, 64))) == 10_141_441
        assert widening + level(1024) + 1025 == count(ResNetDiscriminator((3, 128, 128))) == 29_017_857


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [None, 5])
def test_images_and_logits_of_every_size(size: int, channels: int, num_classes: int | None) -> None:
    shape = (channels, size, size)
    labels = None if num_classes is None else torch.tensor([4, 0])
    images = ResNetGenerator(shape, 6, num_classes, base_channels=2)(torch.randn(2, 6), labels)
    assert images.shape == (2, *shape)
    assert images.abs().max() <= 1
    discriminator = ResNetDiscriminator(shape, num_classes, base_channels=2)
    output = discriminator(images, labels)
    assert output.logits.shape == (2,)
    assert output.features.shape == (2, discriminator.num_features)
    assert discriminator.num_classes == num_classes


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 16, 16), (3, 48, 48), (3, 32, 64), (3, 256, 256)])
def test_other_sizes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=r"data\.image_size"):
        ResNetGenerator(shape, latent_dim=5)
    with pytest.raises(UserError, match=r"data\.image_size"):
        ResNetDiscriminator(shape)


@pytest.mark.parametrize(
    ("size", "widths", "sizes"),
    [
        (32, [2, 2, 2, 2], [16, 8, 8, 8]),
        (64, [2, 4, 8, 16, 32], [32, 16, 8, 4, 2]),
        (128, [2, 4, 8, 16, 32, 32], [64, 32, 16, 8, 4, 4]),
    ],
)
def test_feature_maps_of_the_discriminator(size: int, widths: list[int], sizes: list[int]) -> None:
    discriminator = ResNetDiscriminator((3, size, size), base_channels=2)
    maps = discriminator.feature_maps(torch.randn(1, 3, size, size))
    assert [tuple(each.shape[1:]) for each in maps] == [(w, s, s) for w, s in zip(widths, sizes, strict=True)]


def test_features_are_rectified_and_summed_or_averaged_over_positions() -> None:
    maps = torch.tensor([[[[1.0, -2.0], [3.0, 0.5]], [[-1.0, -1.0], [-1.0, 4.0]]]])
    summing = ResNetDiscriminator(CIFAR, base_channels=2)
    assert torch.equal(summing.pool(maps), torch.tensor([[4.5, 4.0]]))
    averaging = ResNetDiscriminator(CIFAR, base_channels=2, pooling="mean")
    assert torch.equal(averaging.pool(maps), torch.tensor([[1.125, 1.0]]))


def test_logits_with_classes_are_the_projection() -> None:
    discriminator = ResNetDiscriminator(CIFAR, num_classes=3, base_channels=2)
    head = discriminator.head
    assert isinstance(head, ProjectionHead)
    head.linear.weight.data = torch.tensor([[2.0, -1.0]])
    head.linear.bias.data = torch.tensor([0.25])
    head.embedding.weight.data = torch.tensor([[1.0, 0.0], [0.0, 10.0], [-1.0, -1.0]])
    images = torch.rand(3, *CIFAR) * 2 - 1
    output = discriminator(images, torch.tensor([1, 2, 0]))
    f = output.features
    expected = [
        2 * f[0, 0] - f[0, 1] + 0.25 + 10 * f[0, 1],
        2 * f[1, 0] - f[1, 1] + 0.25 - f[1, 0] - f[1, 1],
        2 * f[2, 0] - f[2, 1] + 0.25 + f[2, 0],
    ]
    assert f.abs().min() > 0
    torch.testing.assert_close(output.logits, torch.stack(expected))


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_attention_follows_the_generators_map_of_its_resolution(resolution: int) -> None:
    sizes = attended_sizes(
        ResNetGenerator(CIFAR, 4, base_channels=8, attention_resolution=resolution), torch.randn(2, 4)
    )
    assert sizes == [resolution]


@pytest.mark.parametrize(("size", "resolution"), [(32, 16), (32, 8), (128, 4), (128, 32)])
def test_attention_follows_the_discriminators_first_map_of_its_resolution(size: int, resolution: int) -> None:
    shape = (3, size, size)
    network = ResNetDiscriminator(shape, base_channels=8, attention_resolution=resolution)
    assert attended_sizes(network, torch.randn(1, *shape)) == [resolution]


def attended_sizes(network: nn.Module, inputs: Tensor) -> list[int]:
    sizes: list[int] = []
    for module in network.modules():
        if isinstance(module, SelfAttention2d):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    network(inputs)
    return sizes


def test_attention_where_there_is_no_such_map_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.generator\.attention_resolution must be null or one of 8, 16, 32"):
        ResNetGenerator(CIFAR, 4, attention_resolution=64)
    with pytest.raises(UserError, match=r"model\.discriminator\.attention_resolution must be null or one of 8, 16,"):
        ResNetDiscriminator(CIFAR, attention_resolution=32)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"norm": "instance"}, r"model\.generator\.norm"),
        ({"norm": "none", "num_classes": 3}, r"model\.generator\.norm=batch"),
    ],
)
def test_bad_options_of_the_generator_name_their_key(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        ResNetGenerator(CIFAR, 4, **options)


@pytest.mark.parametrize("key", ["norm", "pooling"])
def test_bad_options_of_the_discriminator_name_their_key(key: str) -> None:
    with pytest.raises(UserError, match=rf"model\.discriminator\.{key}"):
        ResNetDiscriminator(CIFAR, **{key: "max"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "build", [lambda: ResNetGenerator(CIFAR, 128), lambda: ResNetDiscriminator(CIFAR, num_classes=10)]
)
def test_initial_weights_are_glorot_uniform(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = build()
    residual = [
        convolution
        for block in network.modules()
        if isinstance(block, GeneratorBlock | DiscriminatorBlock)
        for convolution in (block.conv1, block.conv2)
    ]
    assert len(residual) in (6, 8)
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            continue
        weight = module.weight.detach()
        positions = math.prod(weight.shape[2:])
        # the variance of U[-a, a] is a^2 / 3, and 2 / (fan_in + fan_out) with gain 1
        variance = 2 / (positions * (weight.shape[0] + weight.shape[1]))
        variance *= 2 if any(module is convolution for convolution in residual) else 1
        assert weight.abs().max() <= math.sqrt(3 * variance) * (1 + 1e-6)
        if weight.numel() > 2000:
            assert weight.var() == pytest.approx(variance, rel=0.1)
            assert weight.abs().max() > 0.99 * math.sqrt(3 * variance)
        if not isinstance(module, nn.Embedding) and module.bias is not None:
            assert not module.bias.any()


def test_a_head_that_is_added_later_is_glorot_uniform_too() -> None:
    torch.manual_seed(0)
    discriminator = ResNetDiscriminator(CIFAR)
    discriminator.add_head("classes", 10)
    (layer,) = discriminator.heads["classes"]
    assert layer.weight.detach().var() == pytest.approx(2 / 138, rel=0.15)
    assert not layer.bias.any()


def test_a_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    generator = ResNetGenerator(CIFAR, 4, 3, base_channels=8, attention_resolution=16)
    discriminator = ResNetDiscriminator(CIFAR, 3, base_channels=8, attention_resolution=16, norm="layer")
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.data.fill_(0.5)
    labels = torch.tensor([0, 1, 2, 1])
    discriminator(generator(torch.randn(4, 4), labels), labels).logits.square().sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            # A bias that a norm takes away again gets a gradient of zeros.
            if parameter.ndim > 1 or name.endswith("gamma"):
                assert parameter.grad.abs().max() > 1e-6, name


def test_spectral_norm_from_outside_leaves_the_gains_of_classes_alone() -> None:
    generator = ResNetGenerator(CIFAR, 4, num_classes=3, base_channels=4)
    for module in list(generator.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            spectral_norm(module)
    seen: list[Tensor] = []
    generator.blocks[0].norm1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    generator(torch.randn(8, 4), torch.arange(8) % 3)
    assert seen[0].var((0, 2, 3), unbiased=False).tolist() == pytest.approx([1.0] * 4, abs=1e-2)


def test_layer_norm_treats_each_sample_alone_and_batch_norm_does_not() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, *CIFAR)
    for norm, alone in (("none", True), ("layer", True), ("batch", False)):
        discriminator = ResNetDiscriminator(CIFAR, base_channels=4, norm=norm)  # type: ignore[arg-type]
        same = torch.allclose(discriminator(images).logits[:2], discriminator(images[:2]).logits, atol=1e-4)
        assert same == alone


def test_layer_norm_is_over_channels_and_positions() -> None:
    norm = ResNetDiscriminator(CIFAR, base_channels=4, norm="layer").blocks[1].norm1  # type: ignore[union-attr]
    maps = 3 * torch.randn(2, 4, 5, 5) + 1
    mean = maps.mean((1, 2, 3), keepdim=True)
    std = maps.var((1, 2, 3), keepdim=True, unbiased=False).sqrt()
    torch.testing.assert_close(norm(maps), (maps - mean) / std, rtol=1e-4, atol=1e-4)  # type: ignore[operator]
    assert count(norm) == 2 * 4  # type: ignore[arg-type]


def test_the_generator_without_norm_has_none() -> None:
    generator = ResNetGenerator(CIFAR, 4, base_channels=2, norm="none")
    latents = torch.randn(4, 4)
    torch.testing.assert_close(generator(latents)[:2], generator(latents[:2]))
