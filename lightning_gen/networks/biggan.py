"""Generator and discriminator of BigGAN (Brock et al. 2019)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.conditional_norm import ConditionalBatchNorm2d, ProjectedBatchNorm2d
from lightning_gen.networks.residual import Norm, ResidualDiscriminator, ResidualGenerator, Stages, check_size

# Widths in units of base_channels, by image size: Brock et al. 2019, appendix B, for 128; its authors' PyTorch code for
# 32 and 64.
GENERATOR_WIDTHS = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1)}
DISCRIMINATOR_STAGES = {
    32: Stages((4, 4, 4, 4), downsamplings=2),
    64: Stages((1, 2, 4, 8, 16), downsamplings=4),
    128: Stages((1, 2, 4, 8, 16, 16), downsamplings=5),
}

Initialization = Literal["orthogonal", "normal"]


class BigGANGenerator(ResidualGenerator):
    """Latents and labels to images by residual blocks (Brock et al. 2019, section 3 and appendix B).

    The latents are cut in chunks, as many as blocks and one more. The first goes through the linear layer; each block
    gets one of the others, appended to an embedding of the label that all blocks share, and its batch norms take their
    gains and biases from there by linear maps. Without classes they depend on the chunk alone.

    Args:
        image_shape: (C, H, W) of the images, H = W = 32, 64 or 128.
        latent_dim: D of the latents, a multiple of 4, 5 or 6 (for 32, 64 or 128 pixels) if they are cut.
        num_classes: K, or None for a generator without labels.
        base_channels: width of the last hidden layer at 128 pixels, a half of it at 64, a quarter of it at 32.
        embedding_dim: size of the shared embedding; None for gains and biases of each class in each batch norm instead.
        hierarchical: whether the latents are cut; else all of them go through the linear layer.
        attention_resolution: size of the feature map that is followed by self-attention, or None.
        initialization: ``orthogonal``, or ``normal`` for N(0, 0.02) (the authors' CIFAR-10 script).

    Raises:
        UserError: an image shape that the architecture cannot make, latents that cannot be cut, classes and cut latents
            without embedding, no feature map of the attention's resolution, or an unknown initialization.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int | None = None,
        base_channels: int = 64,
        embedding_dim: int | None = 128,
        hierarchical: bool = True,
        attention_resolution: int | None = None,
        initialization: Initialization = "orthogonal",
    ) -> None:
        size = check_size(image_shape, tuple(GENERATOR_WIDTHS), "BigGANGenerator")
        widths = [base_channels * factor for factor in GENERATOR_WIDTHS[size]]
        # As many chunks as widths: the linear layer's and the blocks'.
        chunk_dim = latent_dim // len(widths) if hierarchical else latent_dim
        if hierarchical and latent_dim % len(widths):
            raise UserError(
                f"model.latent_dim={latent_dim} is cut in {len(widths)} chunks: set it to a multiple of {len(widths)}, "
                "or model.generator.hierarchical=false"
            )
        shared_dim = 0 if num_classes is None or embedding_dim is None else embedding_dim
        if num_classes is not None and hierarchical and not shared_dim:
            raise UserError("Hierarchical latents of a model with classes need model.generator.embedding_dim=128")

        norm: Norm = nn.BatchNorm2d
        if hierarchical or shared_dim:
            norm = partial(ProjectedBatchNorm2d, condition_dim=shared_dim + (chunk_dim if hierarchical else 0))
        elif num_classes is not None:
            norm = partial(ConditionalBatchNorm2d, num_classes=num_classes)
        super().__init__(image_shape, chunk_dim, widths, norm, nn.BatchNorm2d, attention_resolution)
        self.num_classes = num_classes
        self.chunk_dim = chunk_dim
        # A parameter and no layer: the authors found that spectral norm on it can ruin the generator, and their
        # orthogonal penalty leaves it out.
        self.embedding: nn.Parameter | None = None
        if num_classes is not None and shared_dim:
            self.embedding = nn.Parameter(torch.empty(num_classes, shared_dim))
            _draw(self.embedding, initialization, "generator")
        initialize_biggan(self, initialization, "generator")

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim) and, with classes, labels (N,) int64."""
        assert (labels is None) == (self.num_classes is None)
        classes = labels
        if labels is not None and self.embedding is not None:
            classes = F.embedding(labels, self.embedding)
        first, *chunks = latents.split(self.chunk_dim, dim=1)
        if not chunks:
            return self.make_images(first, [classes] * len(self.blocks))
        return self.make_images(
            first, [chunk if classes is None else torch.cat([classes, chunk], 1) for chunk in chunks]
        )


class BigGANDiscriminator(ResidualDiscriminator):
    """Images and labels to logits by residual blocks and a projection (Brock et al. 2019, appendix B).

    Args:
        image_shape: (C, H, W) of the images, H = W = 32, 64 or 128.
        num_classes: K for a projection discriminator, or None.
        base_channels: width of the first block at 64 and 128 pixels, a quarter of it at 32.
        attention_resolution: size of the feature map that is followed by self-attention, or None.
        initialization: ``orthogonal``, or ``normal`` for N(0, 0.02) (the authors' CIFAR-10 script).

    Raises:
        UserError: an image shape that the architecture cannot take, no feature map of the attention's resolution, or an
            unknown initialization.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        base_channels: int = 64,
        attention_resolution: int | None = None,
        initialization: Initialization = "orthogonal",
    ) -> None:
        size = check_size(image_shape, tuple(DISCRIMINATOR_STAGES), "BigGANDiscriminator")
        widths, downsamplings = DISCRIMINATOR_STAGES[size]
        stages = Stages(tuple(base_channels * factor for factor in widths), downsamplings)
        super().__init__(image_shape, stages, num_classes, wide=True, attention_resolution=attention_resolution)
        self.initialization = initialization
        self.initialize(self)

    def initialize(self, network: nn.Module) -> None:
        """See `initialize_biggan`."""
        initialize_biggan(network, self.initialization, "discriminator")


def initialize_biggan(network: nn.Module, initialization: Initialization, name: str) -> None:
    """Weights orthogonal (Brock et al. 2019, section 3) or ~ N(0, 0.02), biases 0.

    Args:
        network: any part of a network.
        initialization: ``orthogonal`` or ``normal``.
        name: ``generator`` or ``discriminator``, for the message.

    Raises:
        UserError: an unknown initialization.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            _draw(module.weight, initialization, name)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _draw(weight: Tensor, initialization: Initialization, name: str) -> None:
    if initialization == "orthogonal":
        nn.init.orthogonal_(weight)
    elif initialization == "normal":
        nn.init.normal_(weight, 0.0, 0.02)
    else:
        raise UserError(f"model.{name}.initialization must be orthogonal or normal, not {initialization!r}")
