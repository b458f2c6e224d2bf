"""Semi-supervised VAE, the model M2 of Kingma et al. 2014."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.data.batches import SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.losses.variational import labelled_objective, unlabelled_objective
from lightning_gen.models.autoencoding import check_classes
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.labels import check_has_classes
from lightning_gen.models.vae import VAE, Posterior
from lightning_gen.registry import construct


class M2(VAE):
    """A VAE whose decoder is told the class, and a classifier that tells it where no label does.

    Kingma et al. 2014, "Semi-supervised learning with deep generative models", section 3.1: p(y) p(z) p(x | y, z), with
    uniform p(y) and normal p(z), is inferred by q(y | x) q(z | x, y). With L and U of equations 6 and 7, one draw of z
    each and every class of an image enumerated, it minimizes

        E[U(x)] + labelled_weight E[L(x, y)] + classification_weight E[-log q(y | x)],

    the first mean over images of the whole training set, the others over labelled ones: the paper's objective
    (equation 9) for one image, where ``classification_weight`` is its alpha over the number of images, 0.1, and
    ``labelled_weight`` is the share of images that are labelled.

    Args:
        image_shape: (C, H, W) of the images.
        classifier: network spec, images -> class logits (`lightning_gen.networks.encoders`).
        encoder: network spec with labels; see `VAE`.
        decoder: network spec with labels; see `VAE`.
        labelled_weight: see above.
        classification_weight: see above.
        supervised_only: train the classifier on the labelled images alone, by its own term, as a baseline; encoder and
            decoder stay as they were drawn.
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many images of each class keep their label, None for all.
        options: those of `VAE`.

    Raises:
        UserError: a set without classes, all of whose images are labelled, or what `VAE` raises.
    """

    network_names: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "classifier")
    averaged_networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "classifier")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classifier: Mapping[str, Any],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        labelled_weight: float = 0.1,
        classification_weight: float = 0.1,
        supervised_only: bool = False,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        **options: Any,
    ) -> None:
        check_has_classes("model=m2", num_classes)
        if labelled_per_class is None:
            raise UserError("model=m2 learns from few labels: set data.labelled_per_class, 10 for example")
        if labelled_weight < 0 or classification_weight < 0:
            raise UserError("model.labelled_weight and model.classification_weight must not be negative")
        check_classes({"encoder": encoder, "decoder": decoder}, num_classes)
        super().__init__(
            image_shape,
            encoder=encoder,
            decoder=decoder,
            conditional=True,
            num_classes=num_classes,
            label_law=[1 / num_classes] * num_classes,
            **options,
        )
        # What this class fixes is none of the settings that a checkpoint keeps.
        for name in ("conditional", "label_law"):
            del self.hparams[name]
        self.num_classes = num_classes
        self.labelled_weight = labelled_weight
        self.classification_weight = classification_weight
        self.supervised_only = supervised_only
        self.classifier = construct(classifier, nn.Module, image_shape=tuple(image_shape), num_outputs=num_classes)
        self.to(memory_format=torch.channels_last)

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step on a batch of all images and one of labelled images."""
        if not isinstance(batch, SemiSupervisedBatch):
            raise UserError("model=m2 trains on partly labelled images: set data.labelled_per_class")
        labelled, labels = self.law.observe(batch.labelled_images), batch.labelled_labels
        classification = F.cross_entropy(self.classifier(labelled).float(), labels)
        if self.supervised_only:
            self.step(classification)
            return {"classification": classification}
        unlabelled_loss = self.unlabelled_objective(self.law.observe(batch.images)).mean()
        labelled_loss = self.labelled_objective(labelled, labels).mean()
        loss = unlabelled_loss + self.labelled_weight * labelled_loss + self.classification_weight * classification
        self.step(loss)
        return {
            "loss": loss,
            "unlabelled": unlabelled_loss,
            "labelled": labelled_loss,
            "classification": classification,
        }

    def labelled_objective(self, observed: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """L(x, y) (N,), with the weight beta of the latents' divergence."""
        log_likelihood, kl = self.bound_terms(observed, labels, generator)
        return labelled_objective(log_likelihood, self.beta * kl, kl.new_tensor(-math.log(self.num_classes)))

    def unlabelled_objective(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """U(x) (N,), every class enumerated."""
        log_q = self.classifier(observed).float().log_softmax(1)
        images, labels = self._every_class(observed)
        labelled = self.labelled_objective(images, labels, generator).unflatten(0, (-1, self.num_classes))
        return unlabelled_objective(log_q, labelled)

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (N, K) of images (N, C, H, W) in [-1, 1]."""
        return self.classifier(images).float()

    def evidence_bound(
        self, observed: Tensor, labels: Tensor | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """A lower bound (N,) of log p(x), in nats: the sum over classes of importance-weighted estimates of p(x, y).

        Labels are not looked at. The estimates are unbiased, so that the logarithm of their sum is a bound.
        """
        del labels
        images, every = self._every_class(observed)
        joint = super().evidence_bound(images, every, num_samples, generator) - math.log(self.num_classes)
        return torch.logsumexp(joint.unflatten(0, (-1, self.num_classes)), 1)

    @property
    def likelihood_settings(self) -> dict[str, Any]:
        """The law and the number of importance samples for each class; the likelihood is that of images alone."""
        return {**super().likelihood_settings, "conditional": False}

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        """The law q(z | x, y) of the latents; where no labels are given, of the classes that the classifier tells."""
        return super().posterior(images, self.classify(images).argmax(1) if labels is None else labels)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Means of p(x | y, z) at the means of q(z | x, y), of the classes that the classifier tells."""
        del labels
        told = self.classify(images).argmax(1)
        return self.decode(self.encode(images, told), told)

    def features(self, images: Tensor) -> Tensor:
        """Means (N, D) of q(z | x, y), of the classes that the classifier tells."""
        return self.encode(images)

    def _every_class(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Every image K times (N * K, C, H, W), and the K labels of each (N * K,)."""
        labels = torch.arange(self.num_classes, device=images.device).repeat(len(images))
        return images.repeat_interleave(self.num_classes, 0), labels
