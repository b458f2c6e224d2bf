from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.biggan import BigGANDiscriminator, BigGANGenerator
from tests.networks.counting import attention, conv3, count, down, level, up

CIFAR = (3, 32, 32)


def test_parameter_counts_at_32_pixels() -> None:
    # Widths of github.com/ajbrock/BigGAN-PyTorch, whose own networks have the same sums.
    # its CIFAR-10 script: dense 128 -> 4x4x256, 3 blocks of 256 with 10 gains and biases for each channel
    end = 2 * 256 + conv3(256, 3)
    plain = BigGANGenerator(CIFAR, 128, 10, embedding_dim=None, hierarchical=False)
    assert 128 * 4096 + 4096 + 3 * up(256, 256, per_channel=20) + end == count(plain) == 4_304_387
    # shared embedding of 128, latents in 4 chunks of 32: 2 * (128 + 32) numbers for each channel
    shared = 10 * 128 + 32 * 4096 + 4096 + 3 * up(256, 256, per_channel=320) + end
    assert shared == count(BigGANGenerator(CIFAR, 128, 10)) == 4_373_251
    # 2 blocks that downsample, 2 that do not, dense 256 -> 1 and an embedding of the 10 classes
    discriminator = down(3, 256, 256) + down(256, 256, 256) + 2 * level(256) + 257 + 10 * 256
    assert discriminator == count(BigGANDiscriminator(CIFAR, 10)) == 4_207_361


def test_parameter_counts_at_128_pixels() -> None:
    # Brock et al. 2019, appendix B: 96 channels, 120 latents in 6 chunks, attention at 64 pixels, 1000 classes
    widths = [1536, 1536, 768, 384, 192, 96]
    blocks = sum(up(*pair, per_channel=2 * (128 + 20)) for pair in pairwise(widths))
    generator = 1000 * 128 + 20 * 16 * 1536 + 16 * 1536 + blocks + attention(192) + 2 * 96 + conv3(96, 3)
    downs = sum(
        down(*pair, hidden=pair[1]) for pair in zip([3, 96, 192, 384, 768], [96, 192, 384, 768, 1536], strict=True)
    )
    discriminator = downs + level(1536) + attention(96) + 1537 + 1000 * 1536
    with torch.device("meta"):
        built = BigGANGenerator((3, 128, 128), 120, 1000, 96, attention_resolution=64, initialization="normal")
        assert count(built) == generator
        critic = BigGANDiscriminator((3, 128, 128), 1000, 96, attention_resolution=64, initialization="normal")
        assert count(critic) == discriminator


@pytest.mark.parametrize(("size", "latent_dim"), [(32, 8), (64, 10), (128, 12)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [None, 5])
def test_images_and_logits_of_every_size(size: int, latent_dim: int, channels: int, num_classes: int | None) -> None:
    shape = (channels, size, size)
    labels = None if num_classes is None else torch.tensor([4, 0])
    images = BigGANGenerator(shape, latent_dim, num_classes, base_channels=2)(torch.randn(2, latent_dim), labels)
    assert images.shape == (2, *shape)
    assert images.abs().max() <= 1
    assert BigGANDiscriminator(shape, num_classes, base_channels=2)(images, labels).logits.shape == (2,)


@pytest.mark.parametrize(
    ("size", "widths", "sizes"),
    [
        (32, [8, 8, 8, 8], [16, 8, 8, 8]),
        (64, [2, 4, 8, 16, 32], [32, 16, 8, 4, 4]),
        (128, [2, 4, 8, 16, 32, 32], [64, 32, 16, 8, 4, 4]),
    ],
)
def test_feature_maps_of_the_discriminator(size: int, widths: list[int], sizes: list[int]) -> None:
    maps = BigGANDiscriminator((3, size, size), base_channels=2).feature_maps(torch.randn(1, 3, size, size))
    assert [tuple(each.shape[1:]) for each in maps] == [(w, s, s) for w, s in zip(widths, sizes, strict=True)]


def block_outputs(generator: BigGANGenerator, latents: Tensor, labels: Tensor | None) -> list[Tensor]:
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
        for module in (generator.dense, *generator.blocks)
    ]
    generator(latents, labels)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_chunk_of_the_latents_changes_its_own_block_and_those_after_it(num_classes: int | None) -> None:
    torch.manual_seed(0)
    generator = BigGANGenerator(CIFAR, 8, num_classes, base_channels=2, embedding_dim=4)
    labels = None if num_classes is None else torch.tensor([0, 1, 2])
    latents = torch.randn(3, 8)
    before = block_outputs(generator, latents, labels)
    assert len(before) == 4
    for chunk in range(4):
        changed = latents.clone()
        changed[:, 2 * chunk : 2 * chunk + 2] += 1
        same = [torch.equal(*pair) for pair in zip(before, block_outputs(generator, changed, labels), strict=True)]
        assert same == [True] * chunk + [False] * (4 - chunk)


def test_classes_enter_every_block_by_the_shared_embedding_and_nothing_before() -> None:
    torch.manual_seed(0)
    generator = BigGANGenerator(CIFAR, 8, 3, base_channels=2, embedding_dim=4)
    latents = torch.randn(3, 8)
    first = block_outputs(generator, latents, torch.tensor([0, 0, 0]))
    second = block_outputs(generator, latents, torch.tensor([1, 1, 1]))
    assert [torch.equal(*pair) for pair in zip(first, second, strict=True)] == [True, False, False, False]
    generator.embedding.data[1] = generator.embedding.data[0]  # type: ignore[union-attr]
    third = block_outputs(generator, latents, torch.tensor([1, 1, 1]))
    assert all(torch.equal(*pair) for pair in zip(first, third, strict=True))


def test_gains_and_biases_are_linear_in_the_embedding_and_the_chunk() -> None:
    torch.manual_seed(0)
    generator = BigGANGenerator(CIFAR, 8, 3, base_channels=2, embedding_dim=4).double()
    latents, labels = torch.randn(5, 8).double(), torch.tensor([0, 2, 1, 2, 0])
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    norm = generator.blocks[1].norm1

    def note(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.append(arguments[0])
        outputs.append(output)

    norm.register_forward_hook(note)
    generator(latents, labels)
    maps = inputs[0]
    mean = maps.mean((0, 2, 3), keepdim=True)
    std = (maps.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    for sample in range(5):
        # the second block has the third of the chunks
        condition = torch.cat([generator.embedding[labels[sample]], latents[sample, 4:6]])  # type: ignore[index]
        gain, bias = 1 + norm.gain.weight @ condition, norm.bias.weight @ condition
        expected = gain[:, None, None] * ((maps - mean) / std)[sample] + bias[:, None, None]
        torch.testing.assert_close(outputs[0][sample], expected, rtol=0, atol=1e-10)


def test_latents_in_one_piece_all_go_through_the_linear_layer() -> None:
    torch.manual_seed(0)
    generator = BigGANGenerator(CIFAR, 7, 3, base_channels=2, embedding_dim=4, hierarchical=False)
    assert generator.dense.in_features == 7
    labels = torch.tensor([0, 1, 2])
    before = block_outputs(generator, torch.randn(3, 7), labels)
    after = block_outputs(generator, torch.randn(3, 7), labels)
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(norm.gain.in_features == 4 for block in generator.blocks for norm in (block.norm1, block.norm2))


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"latent_dim": 10}, r"model\.latent_dim=10 is cut in 4 chunks"),
        ({"embedding_dim": None}, r"model\.generator\.embedding_dim"),
        ({"initialization": "glorot"}, r"model\.generator\.initialization"),
        ({"attention_resolution": 4}, r"model\.generator\.attention_resolution"),
        ({"image_shape": (1, 28, 28)}, r"data\.image_size"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        BigGANGenerator(**{"image_shape": CIFAR, "latent_dim": 8, "num_classes": 3, "base_channels": 2, **options})


def test_the_discriminator_refuses_what_it_cannot_take() -> None:
    with pytest.raises(UserError, match=r"model\.discriminator\.initialization"):
        BigGANDiscriminator(CIFAR, base_channels=2, initialization="glorot")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"data\.image_size"):
        BigGANDiscriminator((3, 48, 48))


def test_initial_weights_are_orthogonal() -> None:
    networks = (
        BigGANGenerator(CIFAR, 8, 3, base_channels=4, embedding_dim=4, attention_resolution=16),
        BigGANDiscriminator(CIFAR, 3, base_channels=4, attention_resolution=16),
    )
    checked = 0
    for network in networks:
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2:
                continue
            matrix = parameter.detach().flatten(1)
            gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5, msg=name)
            checked += 1
    # generator: embedding, dense, 3 * (3 convolutions, 4 maps to gains and biases), attention's 4, output;
    # discriminator: 3 + 3 + 2 + 2 convolutions, attention's 4, linear, embedding
    assert checked == (1 + 1 + 3 * 7 + 4 + 1) + (10 + 4 + 2)


def test_normal_initial_weights_have_the_spread_of_the_cifar_script() -> None:
    torch.manual_seed(0)
    for network in (
        BigGANGenerator(CIFAR, 8, 3, base_channels=16, initialization="normal"),
        BigGANDiscriminator(CIFAR, 3, base_channels=16, initialization="normal"),
    ):
        weights = torch.cat([p.detach().flatten() for p in network.parameters() if p.ndim > 1])
        assert weights.std() == pytest.approx(0.02, rel=0.01)
        assert weights.mean().abs() < 1e-3


@pytest.mark.parametrize(
    "options",
    [{"num_classes": 3}, {"num_classes": None}, {"num_classes": 3, "embedding_dim": None, "hierarchical": False}],
)
def test_a_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    generator = BigGANGenerator(CIFAR, 8, base_channels=4, attention_resolution=16, **options)
    discriminator = BigGANDiscriminator(CIFAR, options["num_classes"], base_channels=4, attention_resolution=16)
    networks = dict(generator.named_parameters()), dict(discriminator.named_parameters())
    for parameters in networks:
        for name, parameter in parameters.items():
            if name.endswith("gamma"):
                parameter.data.fill_(0.5)
    labels = None if options["num_classes"] is None else torch.tensor([0, 1, 2, 1])
    discriminator(generator(torch.randn(4, 8), labels), labels).logits.square().sum().backward()
    for parameters in networks:
        for name, parameter in parameters.items():
            assert parameter.grad is not None, name
            # A bias that a norm takes away again gets a gradient of zeros.
            if parameter.ndim > 1 or name.endswith("gamma"):
                assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize(("size", "chunks"), [(32, 4), (64, 5), (128, 6)])
def test_latents_are_cut_in_one_chunk_more_than_there_are_blocks(size: int, chunks: int) -> None:
    generator = BigGANGenerator((1, size, size), 3 * chunks, base_channels=1)
    assert (generator.dense.in_features, len(generator.blocks)) == (3, chunks - 1)
