"""Pixel models: the probability of an image as the product of its pixels' given those before them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_gen.losses.pixel_laws import build_law
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.labels import check_conditional
from lightning_gen.models.optimizers import build_optimizer, build_schedule
from lightning_gen.networks.pixel_network import PixelNetwork, fill_pixels
from lightning_gen.registry import construct


class PixelModel(GenerativeModel):
    """Any `PixelNetwork` with any law of pixels; the papers' models are its configs.

    Training minimizes the bits per dimension of what the law observes of the images (van den Oord et al. 2016, "Pixel
    recurrent neural networks", equation 1).

    Images are drawn pixel by pixel. A network with a cache draws them in float64, where the cached computation and that
    of the whole network differ by some 1e-15: with and without the cache, samples from one generator are the same bits
    unless a random number falls so near to the border of two values. Where a device has no float64, it is float32, and
    such ties are as likely as some 1e-6 for each pixel and border.

    Args:
        image_shape: (C, H, W) of the images.
        network: spec of a `PixelNetwork`.
        optimizer: optimizer spec (see `build_optimizer`).
        law: ``{"name": ..., **options}`` of a law of pixels (`lightning_gen.losses.pixel_laws`).
        conditional: whether the network takes labels.
        gradient_clip_norm: total norm to which gradients are clipped; None for no clipping.
        num_classes: K of the data, 0 for a set without classes.
        label_law: probabilities of the data's classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Attributes:
        use_cache: whether sampling uses the network's cache; false is far slower and gives the same.

    Raises:
        UserError: unknown names or options, or labels asked of data that lacks them.
    """

    network_names = ("network",)
    averaged_networks: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        network: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        law: Mapping[str, Any],
        conditional: bool = False,
        gradient_clip_norm: float | None = None,
        num_classes: int = 0,
        label_law: list[float] | None = None,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if conditional:
            check_conditional(num_classes, labelled_per_class)
        self.image_shape = tuple(image_shape)
        self.conditional = conditional
        self.label_law = label_law if conditional else None
        self.gradient_clip_norm = gradient_clip_norm
        self.optimizer_spec = optimizer
        self.law_spec = dict(law)
        self.law = build_law(law)
        self.use_cache = True
        self.network = construct(
            network,
            PixelNetwork,  # type: ignore[type-abstract]
            image_shape=image_shape,
            parameter_channels=self.law.parameter_channels(image_shape[0]),
            num_classes=num_classes if conditional else None,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The network's."""
        optimizer = build_optimizer(self.optimizer_spec, self.network.parameters())
        schedule = build_schedule(self.optimizer_spec, optimizer)
        return [optimizer], [schedule] if schedule is not None else []

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on the mean bits per dimension."""
        (optimizer,) = self.optimizer_list()
        loss = self._bits(self.law.observe(batch.images), self._labels(batch.labels)).mean()
        self.minimize(loss, optimizer, self.network, self.gradient_clip_norm)
        return {"bits_per_dim": loss}

    @property
    def likelihood_is_exact(self) -> bool:
        """Whether the law's probabilities are."""
        return self.law.is_exact

    @property
    def likelihood_settings(self) -> Mapping[str, Any]:
        """The law, and whether labels are given."""
        return {"law": self.law_spec, "conditional": self.conditional}

    def bits_per_dim(self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Bits per dimension (N,) of what the law observes of images, -log2 p(x) / (C H W).

        A conditional model that is given no labels takes the mean of the probabilities over the law of the labels. The
        generator is that of the law's observation.
        """
        observed = self.law.observe(images, generator=generator)
        if not self.conditional or labels is not None:
            return self._bits(observed, labels)
        assert self.label_law is not None
        weights = images.new_tensor(self.label_law).log()
        each = [self._log_prob(observed, torch.full_like(images[:, 0, 0, 0], k).long()) for k in range(len(weights))]
        return self._to_bits((torch.stack(each, 1) + weights).logsumexp(1))

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W) in [-1, 1]; a conditional model draws labels that are not given."""
        images = torch.zeros(num_samples, *self.image_shape, device=self.device)
        return self._fill(images, 0, labels, generator)

    def complete(
        self, images: Tensor, rows: int, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] whose first ``rows`` rows are what the law observes of those handed in, and
        the others drawn given them; a conditional model draws labels that are not given.

        Raises:
            ValueError: fewer than 0 or more than H rows.
        """
        if not 0 <= rows <= self.image_shape[1]:
            raise ValueError(f"rows must be from 0 to {self.image_shape[1]}, not {rows}")
        return self._fill(self.law.observe(images, generator=generator), rows, labels, generator)

    def _fill(self, images: Tensor, rows: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        if self.conditional and labels is None:
            labels = self.draw_labels(len(images), generator=generator)
        network, images = self.network, images.clone()
        if type(network).cache is not PixelNetwork.cache and images.device.type != "mps":
            network, images = copy.deepcopy(network).double(), images.double()
        fill_pixels(
            network,
            images,
            rows,
            lambda parameters: self.law.sample(parameters, generator=generator),
            self._labels(labels),
            self.use_cache,
        )
        return images.float()

    def _labels(self, labels: Tensor | None) -> Tensor | None:
        return labels if self.conditional else None

    def _log_prob(self, observed: Tensor, labels: Tensor | None) -> Tensor:
        parameters = self.network(observed, labels)
        # What a network gives under mixed precision has too few digits for a sum over all pixels.
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        return self.law.log_prob(parameters, observed).sum((1, 2))

    def _bits(self, observed: Tensor, labels: Tensor | None) -> Tensor:
        return self._to_bits(self._log_prob(observed, self._labels(labels)))

    def _to_bits(self, log_probabilities: Tensor) -> Tensor:
        return -log_probabilities / (math.log(2) * math.prod(self.image_shape))
