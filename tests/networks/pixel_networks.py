"""Small pixel networks of every kind, and which pixels reach which parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_gen.networks.gated_pixelcnn import GatedPixelCNN
from lightning_gen.networks.pixel_network import PixelNetwork
from lightning_gen.networks.pixel_rnn import PixelRNN
from lightning_gen.networks.pixelcnn import PixelCNN
from lightning_gen.networks.pixelcnn_pp import PixelCNNPP

Shape = tuple[int, int, int]
Make = Callable[[Shape, Sequence[int], int | None], PixelNetwork]

NETWORKS: dict[str, Make] = {
    "pixelcnn": lambda *options: PixelCNN(*options, 9, 5, 15, 3, 3),
    "gated_pixelcnn": lambda *options: GatedPixelCNN(*options, 12, 6, 15, 3, 3),
    "pixelcnn_pp": lambda *options: PixelCNNPP(*options, 8, 2, 2, 0.0),
    "pixel_rnn_row": lambda *options: PixelRNN(*options, "row", 9, 2, 15, 3, 3),
    "pixel_rnn_diagonal": lambda *options: PixelRNN(*options, "diagonal", 9, 2, 15, 3, 3),
}


def make(name: str, shape: Shape, parameter_channels: Sequence[int], num_classes: int | None = None) -> PixelNetwork:
    """The small network of that name, always with the same weights, in float64 and in evaluation mode."""
    torch.manual_seed(0)
    return NETWORKS[name](shape, parameter_channels, num_classes).double().eval()


def reached(network: PixelNetwork) -> Tensor:
    """Booleans (P, H, W, C, H, W): whether the parameter p at (i, j) has a gradient with respect to a value."""
    images = torch.randn(8, *network.image_shape, dtype=torch.float64).requires_grad_()
    parameters = network(images).sum(0)
    wanted = torch.eye(parameters.numel(), dtype=torch.float64).view(-1, *parameters.shape)
    (gradients,) = torch.autograd.grad(parameters, images, wanted, is_grads_batched=True)
    return (gradients != 0).any(1).view(*parameters.shape, *network.image_shape)


def before(network: PixelNetwork) -> Tensor:
    """Booleans (P, H, W, C, H, W): whether a value comes before the channel of parameter p at (i, j)."""
    channels, height, width = network.image_shape
    order = torch.arange(height * width).view(height, width) * channels
    values = order + torch.arange(channels)[:, None, None]
    parameters = order + torch.tensor(network.parameter_channels)[:, None, None]
    return values < parameters[..., None, None, None]
