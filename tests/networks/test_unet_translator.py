from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.unet_translator import UNetTranslator
from tests.networks.checks import count, without_gradient


def unet(size: int = 16, channels_in: int = 1, channels_out: int = 3, **options: Any) -> UNetTranslator:
    torch.manual_seed(0)
    return UNetTranslator((channels_in, size, size), (channels_out, size, size), **{"base_channels": 4, **options})


def images(number: int, height: int = 16, width: int = 16, channels: int = 1) -> torch.Tensor:
    return torch.rand(number, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def translate(network: UNetTranslator, batch: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with torch.no_grad():
        return network(batch, network.draw_noise(batch, generator=rng(seed)))


def test_parameters_are_those_of_the_published_network_for_256_pixels() -> None:
    """54.41 M, worked out from the widths in section 6.1.1 of the paper."""
    encoder = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    down = sum(16 * wide * narrow for wide, narrow in zip(encoder[1:], encoder[:-1], strict=True))
    inputs, outputs = [512, 1024, 1024, 1024, 1024, 512, 256], [512, 512, 512, 512, 256, 128, 64]
    up = sum(16 * one * other for one, other in zip(inputs, outputs, strict=True)) + 16 * 128 * 3 + 3
    norms = 2 * (sum(encoder[2:8]) + sum(outputs))
    with torch.device("meta"):
        network = UNetTranslator((3, 256, 256), (3, 256, 256))
    assert count(network) == down + up + norms == 54_413_955


@pytest.mark.parametrize("size", [4, 8, 16, 64])
def test_every_power_of_two_is_halved_down_to_one_pixel_and_every_weight_matters(size: int) -> None:
    network = unet(size, dropout_blocks=0)
    bottom: list[torch.Size] = []
    network.encoder[-1].register_forward_hook(lambda *call: bottom.append(call[2].shape))
    output = network(images(3, size, size))
    assert output.shape == (3, 3, size, size)
    assert output.abs().max() <= 1
    assert bottom[0][2:] == (1, 1)
    assert without_gradient(network, output) == []


def test_a_shallow_network_takes_any_multiple_of_its_stride() -> None:
    network = unet(24, depth=3, dropout_blocks=2).eval()
    assert network.size_multiple == 8
    assert translate(network, images(2, 40, 8)).shape == (2, 3, 40, 8)


def test_every_skip_reaches_the_output() -> None:
    """Without the decoder's deepest maps the output still depends on what every level of the encoder saw."""
    network = unet(16, dropout_blocks=0).double()
    seen: list[torch.Tensor] = []
    for layer in network.encoder[:-1]:
        assert isinstance(layer, nn.Sequential)
        # A copy with a gradient of its own goes into the skip and into the next layer alike.
        layer.register_forward_hook(lambda *call: seen.append(call[2]) or call[2].clone())  # type: ignore[func-returns-value]
    with torch.no_grad():
        nn.init.zeros_(network.decoder[0][1].weight)  # type: ignore[index, arg-type]
    output = network(images(2).double())
    gradients = torch.autograd.grad(output.sum(), seen)
    assert len(gradients) == 3
    assert all(gradient.any() for gradient in gradients)


def test_weights_are_drawn_as_the_paper_says() -> None:
    network = unet(32, base_channels=32)
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    gains = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert torch.cat([weight.flatten() for weight in weights]).std().item() == pytest.approx(0.02, rel=0.01)
    assert torch.cat(gains).mean().item() == pytest.approx(1, abs=0.005)
    assert torch.cat(gains).std().item() == pytest.approx(0.02, rel=0.15)


def test_batch_norm_at_test_time_is_that_of_training_on_one_image() -> None:
    network = unet(dropout_blocks=0)
    network(images(6) * 3)
    batch = images(4)
    with torch.no_grad():
        singly = torch.cat([network.train()(image[None]) for image in batch])
        assert torch.equal(network.eval()(batch[:1]), network(batch)[:1])
        torch.testing.assert_close(network.eval()(batch), singly, rtol=0, atol=1e-5)


def test_running_statistics_are_a_switch() -> None:
    network = unet(dropout_blocks=0, test_statistics="running")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    batch = images(5)
    with torch.no_grad():
        trained = network(batch)
        # With all momentum the running statistics are this batch's, up to n / (n - 1) of the variance.
        torch.testing.assert_close(network.eval()(batch), trained, rtol=0.2, atol=0.02)
        for norm in norms:
            norm.running_mean.add_(1)  # type: ignore[union-attr]
        assert (network(batch) - trained).abs().max() > 0.01


def test_training_drops_half_of_the_three_deepest_decoder_blocks_and_nothing_else() -> None:
    network = unet(64, base_channels=16)
    into = [network.decoder[number + 1] for number in range(4)]
    seen: list[torch.Tensor] = []
    for layer in into:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    with torch.no_grad():
        network(images(8, 64, 64))
    shares = [(maps[:, : maps.shape[1] // 2] == 0).float().mean().item() for maps in seen]
    assert shares[:3] == pytest.approx([0.5] * 3, abs=0.03)
    assert shares[3] == 0
    assert all((maps[:, maps.shape[1] // 2 :] == 0).float().mean() < 0.01 for maps in seen), "the skips are whole"


def test_test_time_masks_are_half_zeros_and_otherwise_two() -> None:
    network = unet(64, base_channels=16).eval()
    batch = images(4, 64, 64)
    noise = network.draw_noise(batch, generator=rng())
    assert noise is not None
    # The three deepest blocks' outputs: 128 channels of 2x2, 128 of 4x4 and 64 of 8x8.
    assert noise.shape == (4, 128 * (4 + 16) + 64 * 64)
    masks = network._masks(batch, noise)
    assert [tuple(mask.shape) for mask in masks] == [(4, 128, 2, 2), (4, 128, 4, 4), (4, 64, 8, 8)]
    for mask in masks:
        assert mask.unique().tolist() == [0, 2]
        assert mask.mean().item() == pytest.approx(1, abs=0.06)


def test_translations_depend_on_the_generator_alone_and_not_on_the_batches() -> None:
    network = unet(base_channels=8).eval()
    batch = images(5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = translate(network, batch)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    torch.manual_seed(2)
    assert torch.equal(whole, translate(network, batch))
    assert not torch.allclose(whole, translate(network, batch, seed=1), atol=1e-3)
    one_after_another = rng()
    with torch.no_grad():
        parts = [
            network(part, network.draw_noise(part, generator=one_after_another)) for part in batch.split([1, 3, 1])
        ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)


def test_without_dropout_at_test_time_there_is_no_noise() -> None:
    network = unet(test_dropout=False).eval()
    batch = images(2)
    assert network.draw_noise(batch, generator=rng()) is None
    assert torch.equal(network(batch), network(batch))
    assert not torch.equal(network.train()(batch), network(batch)), "it is trained with dropout all the same"
    with pytest.raises(ValueError, match="draw_noise"):
        unet().eval()(batch)


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (24, {}, r"24x24 cannot be: set data\.image_size to a power of two, or model\.generator\.depth"),
        (2, {}, r"set data\.image_size"),
        (24, {"depth": 4}, r"depth=4 needs a data\.image_size that is a multiple of 16"),
        (16, {"depth": 1}, r"model\.generator\.depth must be at least 2"),
        (16, {"dropout_blocks": 4}, r"model\.generator\.dropout_blocks must be in \[0, 3\]"),
        (16, {"test_statistics": "batch"}, r"model\.generator\.test_statistics must be image or running"),
    ],
)
def test_what_cannot_be_built_is_refused(size: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        unet(size, **options)
    assert "\n" not in str(caught.value)
