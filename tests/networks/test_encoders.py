"""Encoders and decoders: shapes, labels, counts and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.networks.decoders import ConvDecoder, MapDecoder, MLPDecoder, ResNetDecoder
from lightning_gen.networks.encoders import ConvEncoder, MapEncoder, MLPEncoder, ResNetEncoder, map_sizes
from tests.networks.checks import count, without_gradient

PAIRS: dict[str, tuple[type[nn.Module], type[nn.Module], dict[str, Any]]] = {
    "mlp": (MLPEncoder, MLPDecoder, {"hidden": (12, 8)}),
    "conv": (ConvEncoder, ConvDecoder, {"base_channels": 3, "hidden": 16}),
    "conv with norm": (ConvEncoder, ConvDecoder, {"base_channels": 3, "hidden": 16, "norm": "batch"}),
    "resnet": (ResNetEncoder, ResNetDecoder, {"base_channels": 3}),
}


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 12)])
@pytest.mark.parametrize("name", PAIRS)
def test_encoders_take_and_decoders_make_images_of_any_even_size(
    name: str, shape: tuple[int, int, int], num_classes: int | None
) -> None:
    torch.manual_seed(0)
    encoder_class, decoder_class, options = PAIRS[name]
    encoder = encoder_class(shape, num_outputs=5, num_classes=num_classes, **options)
    decoder = decoder_class(shape, latent_dim=5, num_outputs=7, num_classes=num_classes, **options)
    labels = () if num_classes is None else (torch.tensor([0, 1, 2, 1]),)
    codes = encoder(torch.randn(4, *shape), *labels)
    assert codes.shape == (4, 5)
    parameters = decoder(codes, *labels)
    assert parameters.shape == (4, 7, *shape[1:])
    assert without_gradient(encoder, codes) == []
    assert without_gradient(decoder, decoder(torch.randn(4, 5), *labels)) == []
    if num_classes is not None:
        decoder.eval()
        latents = torch.randn(1, 5).expand(2, -1)
        one, other = decoder(latents, torch.tensor([0, 2]))
        assert not torch.allclose(one, other)


def test_parameter_counts_of_the_first_vae_are_the_papers() -> None:
    # Kingma and Welling 2013, appendix C: one hidden layer of 500 tanh units; 784*500+500 + 500*40+40
    encoder = MLPEncoder((1, 28, 28), 40, hidden=(500,), activation="tanh")
    decoder = MLPDecoder((1, 28, 28), 20, 1, hidden=(500,), activation="tanh")
    assert count(encoder) == 392_500 + 20_040
    assert count(decoder) == 20 * 500 + 500 + 500 * 784 + 784
    assert [type(layer).__name__ for layer in encoder.layers] == ["Linear", "Tanh", "Linear"]


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_maps_of_vectors_have_the_size_asked_for(halvings: int) -> None:
    torch.manual_seed(0)
    encoder = MapEncoder((3, 16, 24), 5, channels=6, residual_channels=4, halvings=halvings)
    decoder = MapDecoder((3, 16, 24), 5, 7, channels=6, residual_channels=4, halvings=halvings)
    vectors = encoder(torch.randn(2, 3, 16, 24))
    assert vectors.shape == (2, 5, 16 // 2**halvings, 24 // 2**halvings)
    parameters = decoder(torch.randn_like(vectors))
    assert parameters.shape == (2, 7, 16, 24)
    assert without_gradient(encoder, vectors) == []
    assert without_gradient(decoder, parameters) == []


def test_maps_are_halved_while_that_leaves_whole_and_not_tiny_ones() -> None:
    assert map_sizes((1, 28, 28), "it") == [(28, 28), (14, 14), (7, 7)]
    assert map_sizes((3, 32, 64), "it") == [(32, 64), (16, 32), (8, 16), (4, 8)]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UserError, match=r"even sizes from 8, not 7x7: set data\.image_size"):
        ConvEncoder((1, 7, 7), 2)
    with pytest.raises(UserError, match="relu, tanh, softplus, not 'sine'"):
        MLPDecoder((1, 8, 8), 2, 1, activation="sine")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model\.decoder\.norm must be batch or none, not 'layer'"):
        ResNetDecoder((1, 8, 8), 2, 1, norm="layer")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"model\.encoder\.halvings=3: images of 28x28"):
        MapEncoder((1, 28, 28), 2, halvings=3)
