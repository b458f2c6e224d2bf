"""Networks of Salimans et al. 2016, section 5: classifiers that are discriminators, and their generators.

Layers and weights follow the published code (openai/improved-gan, mnist_svhn_cifar10). As there, the first batch of
training sets the gains and biases of discriminators (`ClassifyingDiscriminator.initialize_from_data`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, DiscriminatorOutput

L = TypeVar("L", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

GAIN = "parametrizations.weight.original0"
"""g of a weight-normalized layer."""

CLASSES = "classes"
"""The head that holds the K class logits."""


class ClassifyingDiscriminator(Discriminator):
    """A discriminator made of a classifier: its logit is log Z, Z = sum_k exp(l_k) over the K class logits.

    The class logits are ``heads["classes"]``; a subclass sets them with `set_classifier`.
    """

    def set_classifier(self, num_features: int, classifier: nn.Module) -> None:
        """Finish the network with a classifier, features (N, num_features) -> class logits (N, K)."""
        self.set_head(num_features, nn.Identity())
        self.heads[CLASSES] = classifier

    @torch.no_grad()
    def initialize_from_data(self, images: Tensor) -> None:
        """Set gains and biases such that each unit's output has mean 0 and a given deviation over these images.

        Salimans and Kingma 2016, arXiv:1602.07868, equations 5 and 6. The deviation is the gain that the layer was made
        with. Noise and dropout are as they are in training.

        Args:
            images: (N, C, H, W) in [-1, 1], at least 2.
        """

        def standardize(layer: nn.Module, _: Any, outputs: Tensor) -> Tensor:
            dims = [dim for dim in range(outputs.ndim) if dim != 1]
            deviation, mean = torch.std_mean(outputs, dims, correction=0)
            gain, bias = layer.get_parameter(GAIN), layer.get_parameter("bias")
            scale = gain.flatten() / deviation.clamp_min(1e-8)
            gain.mul_(scale.view_as(gain))
            bias.sub_(mean).mul_(scale)
            shape = [-1 if dim == 1 else 1 for dim in range(outputs.ndim)]
            return (outputs - mean.view(shape)) * scale.view(shape)

        layers = [layer for layer in self.modules() if parametrize.is_parametrized(layer)]
        hooks = [layer.register_forward_hook(standardize) for layer in layers]
        training = self.training
        try:
            self.train()
            self(images)
        finally:
            self.train(training)
            for hook in hooks:
                hook.remove()

    def forward(self, images: Tensor, labels: Tensor | None = None) -> DiscriminatorOutput:
        """Logits log Z, features and class logits for images (N, C, H, W) in [-1, 1]."""
        features = self.pool(self.blocks(self.prepare_input(images, labels)))
        heads = {name: head(features) for name, head in self.heads.items()}
        return DiscriminatorOutput(torch.logsumexp(heads[CLASSES], 1), features, heads)


class GaussianNoise(nn.Module):
    """Adds noise N(0, deviation^2) in training, nothing in evaluation."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of any shape, disturbed."""
        return inputs + self.deviation * torch.randn_like(inputs) if self.training else inputs


class SGANMLPDiscriminator(ClassifyingDiscriminator):
    """The classifier of MNIST: weight-normalized layers with ReLU, with Gaussian noise before each.

    Images enter flat and scaled to [0, 1], for which the deviation of the noise is meant. Gains stay as they begin but
    in the last layer. The features are the last hidden layer's, before the noise.

    Args:
        image_shape: (C, H, W) of the images, any.
        num_logits: K, the number of classes.
        hidden: widths of the hidden layers.
        input_noise: deviation of the noise on the image.
        hidden_noise: deviation of the noise on the hidden layers.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_logits: int,
        hidden: Sequence[int] = (1000, 500, 250, 250, 250),
        input_noise: float = 0.3,
        hidden_noise: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [math.prod(image_shape), *hidden]
        noises = [input_noise] + [hidden_noise] * len(hidden)
        blocks = [
            nn.Sequential(GaussianNoise(noise), normalized(_drawn(nn.Linear(width_in, width_out), 0.1)), nn.ReLU())
            for noise, (width_in, width_out) in zip(noises, pairwise(widths), strict=False)
        ]
        self.blocks = nn.Sequential(*blocks)
        last = normalized(_drawn(nn.Linear(widths[-1], num_logits), 0.1), train_gain=True)
        self.set_classifier(widths[-1], nn.Sequential(GaussianNoise(noises[-1]), last))

    def prepare_input(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The pixels (N, C * H * W) in [0, 1]."""
        return (super().prepare_input(images, labels).flatten(1) + 1) / 2


class SGANMLPGenerator(nn.Module):
    """The generator of MNIST: layers with batch norm (no gain) and softplus, and a weight-normalized one to the pixels.

    Args:
        image_shape: (C, H, W) of the images, any.
        latent_dim: D of the latents.
        hidden: widths of the hidden layers.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, hidden: Sequence[int] = (500, 500)) -> None:
        super().__init__()
        self.image_shape = image_shape
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([latent_dim, *hidden]):
            linear = nn.Linear(width_in, width_out, bias=False)
            nn.init.xavier_uniform_(linear.weight)
            layers += [linear, _without_gain(nn.BatchNorm1d(width_out, eps=1e-6)), nn.Softplus()]
        last = nn.Linear([latent_dim, *hidden][-1], math.prod(image_shape))
        nn.init.xavier_uniform_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, normalized(last, train_gain=True))

    def forward(self, latents: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim)."""
        # The code's sigmoid s, brought from [0, 1] to [-1, 1]: 2 s(x) - 1 = tanh(x / 2).
        return torch.tanh(self.layers(latents) / 2).unflatten(1, self.image_shape)


class SGANConvDiscriminator(ClassifyingDiscriminator):
    """The classifier of CIFAR-10: nine weight-normalized layers with LeakyReLU 0.2, and dropout.

    Two stages of three 3x3 convolutions, the third of each with stride 2, then one without padding, two layers of 1x1
    (network in network) and the mean over positions, which is the features. Gains stay as they begin but in the last
    layer.

    Args:
        image_shape: (C, H, W) of the images, H and W at least 9.
        num_logits: K, the number of classes.
        base_channels: width of the first stage; the others have twice as many.
        input_dropout: share of the input that is dropped.
        dropout: share of each stage's output that is dropped.

    Raises:
        UserError: images too small for the convolutions.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_logits: int,
        base_channels: int = 96,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if min(height, width) < 9:
            raise UserError(f"SGANConvDiscriminator takes images from 9x9, not {height}x{width}: set data.image_size")
        wide = 2 * base_channels

        def block(width_in: int, width_out: int, size: int = 3, padding: int = 0, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(width_in, width_out, size, stride, padding)
            return nn.Sequential(normalized(_drawn(convolution, 0.05)), nn.LeakyReLU(0.2))

        self.blocks = nn.Sequential(
            nn.Sequential(nn.Dropout(input_dropout), *block(channels, base_channels, padding=1)),
            block(base_channels, base_channels, padding=1),
            block(base_channels, base_channels, padding=1, stride=2),
            nn.Sequential(nn.Dropout(dropout), *block(base_channels, wide, padding=1)),
            block(wide, wide, padding=1),
            block(wide, wide, padding=1, stride=2),
            nn.Sequential(nn.Dropout(dropout), *block(wide, wide)),
            block(wide, wide, size=1),
            block(wide, wide, size=1),
        )
        self.set_classifier(wide, normalized(_drawn(nn.Linear(wide, num_logits), 0.05), gain=0.1, train_gain=True))

    def pool(self, maps: Tensor) -> Tensor:
        """The mean over positions."""
        return maps.mean((2, 3))


class SGANConvGenerator(nn.Module):
    """The generator of CIFAR-10: a layer to 4x4, then transposed 5x5 convolutions that double the size.

    Batch norm (no gain) and ReLU after all but the last, which is weight-normalized, with tanh.

    Args:
        image_shape: (C, H, W) of the images, H = W a power of two, at least 16.
        latent_dim: D of the latents.
        base_channels: width at 4x4; it halves as the size doubles.

    Raises:
        UserError: images that the architecture cannot make.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, base_channels: int = 512) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height != width or height < 16 or height & (height - 1):
            raise UserError(
                f"SGANConvGenerator makes square images of a power-of-two size from 16, not {height}x{width}: "
                "set data.image_size"
            )
        widths = [max(1, base_channels >> level) for level in range(int(math.log2(height // 4)))]
        double = partial(nn.ConvTranspose2d, kernel_size=5, stride=2, padding=2, output_padding=1)
        layers: list[nn.Module] = [
            _drawn(nn.Linear(latent_dim, widths[0] * 16, bias=False), 0.05),
            _without_gain(nn.BatchNorm1d(widths[0] * 16, eps=1e-6)),
            nn.ReLU(),
            nn.Unflatten(1, (widths[0], 4, 4)),
        ]
        for width_in, width_out in pairwise(widths):
            layers += [
                _drawn(double(width_in, width_out, bias=False), 0.05),
                _without_gain(nn.BatchNorm2d(width_out, eps=1e-6)),
                nn.ReLU(),
            ]
        # A quarter of a kernel meets each pixel, and its inputs, ReLUs of unit normals, have a mean square of 1/2.
        gain = 0.1 * math.sqrt(4 * 2)
        layers.append(normalized(_drawn(double(widths[-1], channels), 0.05), gain, train_gain=True, dim=1))
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, latents: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim)."""
        return self.layers(latents)


def normalized(layer: nn.Module, gain: float = 1.0, train_gain: bool = False, dim: int = 0) -> nn.Module:
    """Weight normalization w = g v / |v| of each unit (Salimans and Kingma 2016); v starts as the layer's weight.

    Args:
        layer: changed in place.
        gain: what g starts with.
        train_gain: whether g is trained.
        dim: of the weight, that counts the units.
    """
    weight_norm(layer, dim=dim)
    g = layer.get_parameter(GAIN)
    nn.init.constant_(g, gain)
    g.requires_grad_(train_gain)
    return layer


def _drawn(layer: L, deviation: float) -> L:
    """The layer with weights ~ N(0, deviation^2) and biases 0."""
    nn.init.normal_(layer.weight, 0.0, deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _without_gain(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    norm.weight.requires_grad_(False)
    return norm
