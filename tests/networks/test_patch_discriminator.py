from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.patch_discriminator import PatchDiscriminator
from tests.networks.checks import count, without_gradient


def patchgan(size: int = 64, channels: int = 3, **options: Any) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(channels, (3, size, size), **{"base_channels": 4, **options})


def field(network: PatchDiscriminator, size: int) -> tuple[int, int]:
    """Height and width of what the gradient of the middle logit reaches."""
    images = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    logits = network.double()(images).logits
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], images)
    rows, columns = gradient[0].abs().sum(0).nonzero().unbind(1)
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


@pytest.mark.parametrize(("num_layers", "pixels"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_sees_a_patch_of_the_papers_size(num_layers: int, pixels: int) -> None:
    size = 2 * pixels + 32
    assert field(patchgan(size, num_layers=num_layers, norm="none", base_channels=2), size) == (pixels, pixels)


def test_parameters_are_those_of_the_published_networks() -> None:
    """2.77 M with 6 channels and batch norm, 2.76 M with 3 and instance norm, whose layers keep their biases."""
    body = 16 * (64 * 128 + 128 * 256 + 256 * 512)
    head = 16 * 512 + 1
    with torch.device("meta"):
        conditional = PatchDiscriminator(6, (3, 256, 256))
        single = PatchDiscriminator(3, (3, 256, 256), norm="instance")
    assert count(conditional) == 16 * 6 * 64 + 64 + body + 2 * (128 + 256 + 512) + head == 2_768_705
    assert count(single) == 16 * 3 * 64 + 64 + body + (128 + 256 + 512) + head == 2_764_737


def test_256_pixels_give_30_by_30_logits_and_a_map_of_each_block() -> None:
    with torch.device("meta"):
        network = PatchDiscriminator(3, (3, 256, 256))
        output = network(torch.empty(2, 3, 256, 256))
    assert output.logits.shape == (2, 1, 30, 30)
    expected = [(2, 64, 128, 128), (2, 128, 64, 64), (2, 256, 32, 32), (2, 512, 31, 31)]
    assert [tuple(maps.shape) for maps in output.feature_maps] == expected


def test_a_condition_comes_before_the_images_channels() -> None:
    network = patchgan(channels=5, norm="none")
    condition, images = torch.randn(2, 2, 64, 64), torch.randn(2, 3, 64, 64)
    both = network(torch.cat([condition, images], 1)).logits
    assert torch.equal(network(images, condition).logits, both)


@pytest.mark.parametrize(("norm", "affects"), [("batch", True), ("instance", False), ("none", False)])
def test_only_batch_norm_lets_images_affect_one_another(norm: str, affects: bool) -> None:
    network = patchgan(norm=norm).double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    others = torch.cat([images[:1], torch.randn(2, 3, 64, 64, dtype=torch.float64)])
    same = torch.allclose(network(images).logits[0], network(others).logits[0], atol=1e-12)
    assert same != affects
    kinds = {type(module) for module in network.modules()} & {nn.BatchNorm2d, nn.InstanceNorm2d}
    assert kinds == {"batch": {nn.BatchNorm2d}, "instance": {nn.InstanceNorm2d}, "none": set()}[norm]


def test_every_weight_matters() -> None:
    network = patchgan(norm="batch")
    assert without_gradient(network, network(torch.randn(2, 3, 64, 64)).logits) == []


@pytest.mark.parametrize(("size", "num_layers"), [(24, 3), (12, 2), (32, 3), (16, 2), (6, 1)])
def test_the_smallest_images_of_each_depth_can_be_trained_on_one_by_one(size: int, num_layers: int) -> None:
    for norm in ("batch", "instance"):
        output = patchgan(size, num_layers=num_layers, norm=norm)(torch.randn(1, 3, size, size))
        assert output.logits.isfinite().all()
        assert output.logits.shape[2] == size // 2**num_layers - 2


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (16, {}, r"model\.discriminator\.num_layers=3 needs images of at least 24 pixels"),
        (64, {"num_layers": -1}, r"model\.discriminator\.num_layers must be at least 0"),
        (64, {"norm": "layer"}, r"model\.discriminator\.norm must be batch, instance or none"),
    ],
)
def test_what_cannot_be_built_is_refused(size: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        patchgan(size, **options)
    assert "\n" not in str(caught.value)
