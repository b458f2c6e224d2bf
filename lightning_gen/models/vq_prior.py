"""The second stage of a VQ-VAE: a prior over the index maps of a trained first stage (van den Oord et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_gen.images import from_levels, to_levels
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.checkpoints import load_first_stage
from lightning_gen.models.pixel_model import PixelModel
from lightning_gen.models.vqvae import VQVAE
from lightning_gen.registry import construct


@dataclass
class Maps:
    """A batch of index maps.

    Attributes:
        images: the maps (N, 1, h, w) as images in [-1, 1] of K levels.
        labels: (N,) int64 or None, of the images they were made of.
    """

    images: Tensor
    labels: Tensor | None


class VQPrior(GenerativeModel):
    """A pixel model of the index maps that a trained `VQVAE` makes of images; its samples are decoded to images.

    Index i of K is the level i of a map of K levels, so any `PixelModel` can be the prior; its network sees a learnt
    vector of each index (`lightning_gen.networks.embedded_pixels`). The first stage is frozen, with its averaged
    weights if it has some, and becomes a part of this model's checkpoints. Images are encoded as they come, so
    augmentation reaches the maps.

    Args:
        image_shape: (C, H, W) of the images.
        first_stage: a run directory or checkpoint of a `VQVAE`; or, in checkpoints of this model, its spec.
        prior: spec of a `PixelModel`; its law is the categorical one of K levels.
        embedding_dim: width of the learnt vectors.
        num_classes: K of the data, 0 for a set without classes.
        label_law: probabilities of the data's classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Raises:
        UserError: no first stage, one of other images, or what the prior raises.
    """

    network_names: ClassVar[tuple[str, ...]] = ("prior", "first_stage")
    averaged_networks: ClassVar[tuple[str, ...]] = ("prior",)
    likelihood_is_exact = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        first_stage: str | Mapping[str, Any] | None,
        prior: Mapping[str, Any],
        embedding_dim: int = 64,
        num_classes: int = 0,
        label_law: list[float] | None = None,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.image_shape = tuple(image_shape)
        self.first_stage, spec = load_first_stage(first_stage, VQVAE, "model=vqvae", image_shape)
        # A checkpoint holds the first stage's weights, and with its spec needs no file beside it.
        self.hparams["first_stage"] = spec
        with torch.no_grad():
            height, width = self.first_stage.encode_indices(torch.zeros(1, *self.image_shape)).shape[1:]
        self.map_size = (height, width)
        law = {"name": "categorical", "levels": self.first_stage.num_codes}
        network = {
            "_target_": "lightning_gen.networks.embedded_pixels.EmbeddedPixels",
            "network": prior["network"],
            "levels": self.first_stage.num_codes,
            "embedding_dim": embedding_dim,
        }
        self.prior = construct(
            {**prior, "law": law, "network": network},
            PixelModel,
            image_shape=(1, height, width),
            num_classes=num_classes,
            label_law=label_law,
            labelled_per_class=labelled_per_class,
        )
        self.label_law = self.prior.label_law

    def networks(self) -> dict[str, nn.Module]:
        """The prior's network, which is trained, and those of the first stage, which are not."""
        return {"prior": self.prior.network, **self.first_stage.networks()}

    def train(self, mode: bool = True) -> VQPrior:
        """Training or evaluation mode of the prior; the first stage stays in evaluation mode."""
        super().train(mode)
        self.first_stage.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The prior's."""
        return self.prior.configure_optimizers()

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The prior's, on the index maps of the images."""
        return self.prior.training_iteration(Maps(self._maps(batch.images), batch.labels))

    @property
    def likelihood_settings(self) -> dict[str, Any]:
        """The law of the pixels given the codes, and the prior's."""
        settings = dict(self.prior.likelihood_settings)
        return {"law": self.first_stage.law_spec, "prior": settings, "conditional": self.prior.conditional}

    def bits_per_dim(self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """An upper bound (N,) of -log2 p(x) / (C H W): of -log p(x | z_q) - log p(z_q), z_q the image's own codes."""
        observed = self.first_stage.law.observe(images, generator=generator)
        indices = self.first_stage.encode_indices(observed)
        nats = -self.first_stage.log_likelihood(observed, indices)
        maps = self._as_maps(indices)
        prior = self.prior.bits_per_dim(maps, labels, generator=generator) * math.prod(self.map_size)
        return (nats / math.log(2) + prior) / math.prod(self.image_shape)

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Decoded samples of the prior, (num_samples, C, H, W) in [-1, 1]."""
        maps = self.prior.sample(num_samples, labels, generator=generator)
        return self.first_stage.decode_indices(to_levels(maps, self.first_stage.num_codes).squeeze(1))

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The first stage's reconstructions."""
        return self.first_stage.reconstruct(images, labels)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The first stage's codes of all positions, (N, D * h * w)."""
        return self.first_stage.encode(images, labels)

    def features(self, images: Tensor) -> Tensor:
        """The first stage's codes of all positions, (N, D * h * w)."""
        return self.encode(images)

    def _averaged(self) -> dict[str, nn.Module]:
        return {"prior": self.prior.network}

    def _maps(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self._as_maps(self.first_stage.encode_indices(images))

    def _as_maps(self, indices: Tensor) -> Tensor:
        """Indices (N, h, w) as images (N, 1, h, w) in [-1, 1] of K levels."""
        return from_levels(indices, self.first_stage.num_codes)[:, None]
