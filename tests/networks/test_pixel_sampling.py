"""Drawing pixels: with and without a cache the same bits, from the generator handed in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_gen.losses.pixel_laws import PixelLaw, build_law
from lightning_gen.networks.pixel_network import PixelNetwork, fill_pixels
from lightning_gen.networks.pixelcnn_pp import PixelCNNPP
from tests.networks.pixel_networks import NETWORKS, make

LAWS = {
    "bernoulli": ({"name": "bernoulli"}, 1),
    "grey": ({"name": "categorical", "levels": 256}, 1),
    "colors": ({"name": "categorical", "levels": 8}, 3),
    "coupled_colors": ({"name": "logistic_mixture", "components": 3}, 3),
}
CASES = [(name, law) for name in NETWORKS for law in LAWS if (name, law) != ("pixelcnn_pp", "colors")]


def build(name: str, law_name: str, size: tuple[int, int], num_classes: int | None) -> tuple[PixelNetwork, PixelLaw]:
    spec, channels = LAWS[law_name]
    law = build_law(spec)
    network = make(name, (channels, *size), law.parameter_channels(channels), num_classes)
    with torch.no_grad():  # so that the pixels before matter as they do after training
        for parameter in network.parameters():
            parameter.mul_(2)
    return network, law


def fill(
    network: PixelNetwork, law: PixelLaw, images: Tensor, first_row: int, use_cache: bool, labels: Tensor | None = None
) -> Tensor:
    rng = torch.Generator().manual_seed(3)
    filled = images.clone()
    fill_pixels(network, filled, first_row, lambda given: law.sample(given, generator=rng), labels, use_cache)
    return filled


@pytest.mark.parametrize(("name", "law_name"), CASES)
@pytest.mark.parametrize("first_row", [0, 5])
def test_cached_pixels_are_those_of_the_whole_network(name: str, law_name: str, first_row: int) -> None:
    network, law = build(name, law_name, (8, 7), 4)
    labels = torch.arange(16) % 4
    start = torch.zeros(16, network.image_shape[0], 8, 7, dtype=torch.float64)
    if first_row:
        start = law.observe(torch.rand_like(start) * 2 - 1, generator=torch.Generator().manual_seed(0)).double()
    cached = fill(network, law, start, first_row, True, labels)
    naive = fill(network, law, start, first_row, False, labels)
    assert torch.equal(cached, naive)
    assert torch.equal(cached[:, :, :first_row], start[:, :, :first_row])
    assert (cached[:, :, first_row:] != start[:, :, first_row:]).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_cached_images_wider_than_the_network_sees_are_those_of_the_whole_network(name: str) -> None:
    network, law = build(name, "bernoulli", (12, 12), None)
    start = torch.zeros(8, 1, 12, 12, dtype=torch.float64)
    cached = fill(network, law, start, 0, True)
    assert torch.equal(cached, fill(network, law, start, 0, False))
    assert 0.1 < float((cached > 0).double().mean()) < 0.9


@pytest.mark.parametrize(("name", "law_name"), [case for case in CASES if case[1] in ("grey", "colors")])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_a_cache_gives_the_parameters_of_the_whole_network(
    name: str, law_name: str, dtype: torch.dtype, error: float
) -> None:
    network, _ = build(name, law_name, (6, 5), 4)
    network.to(dtype)
    images = torch.randn(3, *network.image_shape, dtype=dtype)
    labels = torch.tensor([3, 0, 2])
    with torch.no_grad():
        expected = network(images, labels)
        cache = network.cache(3, labels)
        assert cache is not None
        found = torch.zeros_like(expected)
        for row in range(6):
            cache.begin_row()
            for column in range(5):
                pixels = images[:, :, row, column]
                unknown = torch.cat([pixels[:, : network.groups - 1], torch.full_like(pixels[:, :1], 9.0)], 1)
                cache.parameters(column, unknown)
                found[:, :, row, column] = cache.parameters(column, unknown)
                cache.finish(column, pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=error * float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_come_from_the_generator_alone(name: str) -> None:
    network, law = build(name, "coupled_colors", (3, 3), None)
    start = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    torch.manual_seed(1)
    first = fill(network, law, start, 0, True)
    assert torch.equal(first, fill(network, law, start, 0, True))
    assert torch.initial_seed() == 1
    torch.testing.assert_close(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(1)))
    assert (first.unique() * 127.5 + 127.5).round().unique().numel() > 10


@pytest.mark.parametrize("size", [(4, 4), (7, 9), (1, 3)])
def test_pixelcnn_pp_draws_the_same_through_three_sizes_of_maps(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    law = build_law({"name": "logistic_mixture", "components": 2})
    network = PixelCNNPP((3, *size), law.parameter_channels(3), None, 4, 1, 3, 0.5).double().eval()
    start = torch.zeros(4, 3, *size, dtype=torch.float64)
    assert torch.equal(fill(network, law, start, 0, True), fill(network, law, start, 0, False))


class Copying(PixelNetwork):
    """Logits of an image in which each channel is certain to be the opposite of the value before it."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        values = images.permute(0, 2, 3, 1).flatten(1)
        before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)
        return -100 * before.view(images.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


def test_each_channel_is_drawn_given_the_values_drawn_before_it() -> None:
    network = Copying((3, 2, 2), [0, 1, 2])
    drawn = fill(network, build_law({"name": "bernoulli"}), torch.zeros(16, 3, 2, 2), 0, False)
    values = drawn.permute(0, 2, 3, 1).flatten(1)
    assert set(values[:, 0].tolist()) == {-1, 1}
    assert torch.equal(values, values[:, :1] * torch.tensor([1.0, -1.0]).repeat(6))
