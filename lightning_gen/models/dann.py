"""DANN: features in which a domain classifier cannot tell source from target (Ganin et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses.adversarial import cross_entropy_discriminator_loss
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.domain_classifier import DomainClassifier
from lightning_gen.models.translation import domains
from lightning_gen.networks.encoders import perceptron
from lightning_gen.networks.gradient_reversal import reverse_gradient


class DANN(DomainClassifier):
    """A `DomainClassifier` whose features a domain classifier is trained to tell apart, and the body to confuse.

    Ganin et al. 2016, "Domain-adversarial training of neural networks", equations 9 to 15. With the labels' loss L_y
    and the domains' L_d, the sum of the means over source and target images of the domain classifier's cross-entropy,
    one optimizer steps the body on L_y - lambda L_d, the classifier on L_y and the domain classifier on L_d: one
    backward pass with a gradient reversal (equations 16 to 18). After the share p of the training

        lambda = domain_weight (2 / (1 + exp(-gamma p)) - 1),

    for the body alone, as in section 5.2.2. Where target images have labels, ``train_on=both`` trains on those too.

    Args:
        image_shape: (C, H, W) of the images of both domains.
        total_iters: iterations of the training.
        domain_hidden: widths of the hidden layers between features and the domain's logit.
        domain_weight: of the reversed gradient at the end.
        gamma: how fast it gets there.
        train_on: ``source`` or ``both``.
        input_shape: see `DomainClassifier`.
        num_classes: see `DomainClassifier`.
        labelled_per_class: see `DomainClassifier`.
        options: those of `DomainClassifier`.

    Raises:
        UserError: numbers out of range, ``train_on=target``, or what `DomainClassifier` raises.
    """

    network_names: ClassVar[tuple[str, ...]] = ("body", "classifier", "domain_classifier")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        total_iters: int,
        domain_hidden: Sequence[int] = (100,),
        domain_weight: float = 1.0,
        gamma: float = 10.0,
        train_on: str = "source",
        input_shape: tuple[int, int, int] | None = None,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        **options: Any,
    ) -> None:
        if train_on == "target":
            raise UserError("model=dann learns from the source's labels: set model.train_on to source or both")
        if total_iters < 1:
            raise UserError(f"model.total_iters must be at least 1, not {total_iters}: set trainer.max_steps")
        if domain_weight < 0 or gamma < 0:
            raise UserError(
                f"model.domain_weight={domain_weight} and model.gamma={gamma} must not be negative: set both from 0"
            )
        super().__init__(
            image_shape=image_shape,
            train_on=train_on,  # type: ignore[arg-type]
            input_shape=input_shape,
            num_classes=num_classes,
            labelled_per_class=labelled_per_class,
            **options,
        )
        self.total_iters = total_iters
        self.domain_weight = domain_weight
        self.gamma = gamma
        self.domain_classifier = perceptron([self.num_features, *domain_hidden, 1], "relu")

    @property
    def reversal(self) -> float:
        """Lambda of the coming iteration."""
        share = min(self.iteration / self.total_iters, 1.0)
        return self.domain_weight * (2 / (1 + math.exp(-self.gamma * share)) - 1)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step of all networks on the labelled images and on both domains."""
        images, labels = self.labelled_images(batch)
        source, target = domains(batch)
        reversal = self.reversal
        # One pass, so that batch norm, where there is one, sees both domains. The source is the first of the labelled.
        features = self.body(torch.cat([images, target]))
        label_loss = F.cross_entropy(self.classifier(features[: len(labels)]).float(), labels)
        seen = reverse_gradient(torch.cat([features[: len(source)], features[len(labels) :]]), reversal)
        source_logits, target_logits = self.domain_classifier(seen).float().split([len(source), len(target)])
        domain_loss = cross_entropy_discriminator_loss(target_logits, source_logits)
        self.step(label_loss + domain_loss)
        return {
            "label_loss": label_loss,
            "domain_loss": domain_loss,
            "reversal": label_loss.new_tensor(reversal),
        }
