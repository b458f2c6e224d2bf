"""Networks that look the levels of pixels up in a table."""

from __future__ import annotations

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.images import from_levels
from lightning_gen.networks.embedded_pixels import EmbeddedPixels
from lightning_gen.networks.pixel_network import fill_pixels

GATED = {
    "_target_": "lightning_gen.networks.gated_pixelcnn.GatedPixelCNN",
    "channels": 8,
    "layers": 3,
    "head_channels": 8,
    "first_kernel_size": 3,
}
LEVELS = 7


def embedded() -> EmbeddedPixels:
    torch.manual_seed(0)
    return EmbeddedPixels((1, 4, 5), [0] * LEVELS, GATED, LEVELS, 6, num_classes=3).double().eval()


def maps(number: int) -> torch.Tensor:
    indices = torch.randint(LEVELS, (number, 1, 4, 5), generator=torch.Generator().manual_seed(1))
    return from_levels(indices, LEVELS).double()


def test_the_inner_network_sees_the_vectors_of_the_levels() -> None:
    network, labels = embedded(), torch.tensor([2, 0])
    indices = torch.tensor([[0, 6, 3, 2, 1]] * 4).expand(2, 4, 5)
    vectors = torch.stack([network.table.weight[index] for index in indices.flatten()]).view(2, 4, 5, 6)
    expected = network.network(vectors.permute(0, 3, 1, 2), labels)
    found = network(from_levels(indices, LEVELS)[:, None].double(), labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_pixel_reaches_some_that_come_after_it_and_nothing_else() -> None:
    network, labels = embedded(), torch.zeros(1, dtype=torch.int64)
    before = maps(1)
    parameters = network(before, labels)[0].flatten(1)
    for pixel in range(20):
        changed = before.clone().view(-1)
        changed[pixel] = -changed[pixel] if changed[pixel] else 1.0
        difference = (network(changed.view_as(before), labels)[0].flatten(1) != parameters).any(0)
        assert not difference[: pixel + 1].any()
        assert difference[pixel + 1 :].any() or pixel == 19


def test_images_are_drawn_the_same_with_and_without_the_cache() -> None:
    network, labels = embedded(), torch.tensor([0, 1, 2])

    def draw(parameters: torch.Tensor) -> torch.Tensor:
        return from_levels(parameters.argmax(1, keepdim=True), LEVELS).double()

    with_cache, without = maps(3), maps(3)
    fill_pixels(network, with_cache, 1, draw, labels)
    fill_pixels(network, without, 1, draw, labels, use_cache=False)
    assert torch.equal(with_cache, without)
    assert not torch.equal(with_cache, maps(3))


def test_what_cannot_be_embedded_is_refused() -> None:
    with pytest.raises(UserError, match="one channel, not 3"):
        EmbeddedPixels((3, 4, 5), [0, 1, 2], GATED, LEVELS, 6)
    with pytest.raises(UserError, match="at least one dimension, not 0"):
        EmbeddedPixels((1, 4, 5), [0], GATED, LEVELS, 0)
