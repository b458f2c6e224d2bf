"""A plain classifier of images: what learning from more than the labelled ones is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.labels import check_has_classes, labelled_part
from lightning_gen.models.one_optimizer import OneOptimizerModel
from lightning_gen.registry import construct


class Classifier(OneOptimizerModel):
    """One network, trained by the cross entropy of the labelled images; all others are not looked at.

    Args:
        image_shape: (C, H, W) of the images.
        classifier: network spec, images -> class logits (`lightning_gen.networks.encoders`).
        optimizer: spec (see `lightning_gen.models.optimizers.build_optimizer`).
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.
        num_classes: K of the data, 0 for a set without classes.

    Raises:
        UserError: a set without classes.
    """

    network_names: ClassVar[tuple[str, ...]] = ("classifier",)
    averaged_networks: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classifier: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        gradient_clip_norm: float | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__(optimizer, gradient_clip_norm)
        self.save_hyperparameters(logger=False)
        check_has_classes("model=classifier", num_classes)
        self.classifier = construct(classifier, nn.Module, image_shape=tuple(image_shape), num_outputs=num_classes)
        # The layout in which convolutions are fastest, on the CPU too.
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on the labelled images of the batch."""
        images, labels = labelled_part(batch)
        loss = F.cross_entropy(self.classifier(images).float(), labels)
        self.step(loss)
        return {"loss": loss}

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) of images (N, C, H, W) in [-1, 1]."""
        return self.classifier(images).float()

    def features(self, images: Tensor) -> Tensor:
        """What the network's last linear layer gets, (N, D), of images (N, C, H, W) in [-1, 1]."""
        return hidden_features(self.classifier, images)


def hidden_features(network: nn.Module, images: Tensor) -> Tensor:
    """What a network's last linear layer gets, (N, D), of images (N, C, H, W).

    Raises:
        UserError: it has no linear layer.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear layer, whose inputs would be its features")
    seen: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        # Past `nn.Module.__call__`: a compiled network does not know of hooks that are added later.
        network.forward(images)
    finally:
        handle.remove()
    return seen[-1].flatten(1).float()
