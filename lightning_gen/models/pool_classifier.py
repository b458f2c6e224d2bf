"""What self-training and co-training share: rounds in which classifiers label the images that have no label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_gen.data.batches import UNLABELLED, SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.models.base import ImageBatch
from lightning_gen.models.labels import check_has_classes
from lightning_gen.models.one_optimizer import OneOptimizerModel
from lightning_gen.models.pool_choice import pool_size
from lightning_gen.seeds import make_rng


class PoolClassifier(OneOptimizerModel):
    """Classifiers that train on the labelled images and on a pool of images which they label themselves.

    After ``warmup_iterations``, and then every ``round_iterations``, a round is made: all training images without a
    label are classified by the averaged weights, and the most confident get a pseudo label
    (`lightning_gen.callbacks.pseudo_labels`). Networks go on from where they are. A classifier minimizes

        CE(labelled images) + pseudo_weight / n * (sum of CE over the pseudo-labelled images of a batch of n),

    so that the weight of the pool grows with its share of the images, as if it were added to the labelled ones
    (Lee 2013, equation 15, with its n' images those of the batch).

    Rounds end once one leaves a pool that is not empty as it was, or after ``rounds`` of them; training goes on.

    Args:
        optimizer: spec (see `lightning_gen.models.optimizers.build_optimizer`).
        name: of the model's config, for messages.
        num_pools: P, sets of pseudo labels.
        num_training_images: N of the data.
        num_classes: K of the data, 0 for a set without classes.
        labelled_per_class: how many images of each class keep their label, None for all.
        warmup_iterations: on the labelled images alone.
        round_iterations: between two rounds.
        rounds: how many at most.
        first_share: share of the images without a label that may have a pseudo label after the first round; it grows
            linearly from round to round.
        last_share: that after the last round.
        threshold: smallest probability of a class with which a label is given.
        balance: whether a round gives equally many labels of each class, as the paper of co-training does for classes
            that are equally frequent.
        relabel: whether all pseudo labels are given anew in every round; otherwise they stay once given.
        candidates: images without a pseudo label, drawn at random, from which a round chooses; those chosen are
            replaced (Blum and Mitchell 1998, table 1: U'). None for all.
        pseudo_weight: see above.
        gradient_clip_norm: total norm to which the gradient is clipped; None for no clipping.

    Raises:
        UserError: a set without classes or all of whose images are labelled, or options that mean nothing.
    """

    pool_labels: Tensor
    rounds_over: Tensor

    def __init__(
        self,
        optimizer: Mapping[str, Any],
        name: str,
        num_pools: int,
        num_training_images: int,
        num_classes: int = 0,
        labelled_per_class: int | None = None,
        warmup_iterations: int = 500,
        round_iterations: int = 200,
        rounds: int = 8,
        first_share: float = 0.1,
        last_share: float = 1.0,
        threshold: float = 0.0,
        balance: bool = True,
        relabel: bool = True,
        candidates: int | None = None,
        pseudo_weight: float = 1.0,
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__(optimizer, gradient_clip_norm)
        check_has_classes(f"model={name}", num_classes)
        if labelled_per_class is None:
            raise UserError(f"model={name} labels images that have no label: set data.labelled_per_class, to 10 say")
        counts = {"warmup_iterations": warmup_iterations, "round_iterations": round_iterations, "rounds": rounds}
        for key, count in counts.items():
            if count < 1:
                raise UserError(f"model.{key} must be at least 1, not {count}")
        if not 0 <= first_share <= last_share <= 1:
            raise UserError(
                f"model.first_share={first_share} and model.last_share={last_share} must be in [0, 1] and not fall"
            )
        if not 0 <= threshold <= 1:
            raise UserError(f"model.threshold must be a probability in [0, 1], not {threshold}")
        if pseudo_weight < 0:
            raise UserError(f"model.pseudo_weight must not be negative, as {pseudo_weight} is")
        if candidates is not None and (candidates < 1 or relabel):
            raise UserError(
                f"model.candidates={candidates} are images that still have no label: set it to at least 1 and "
                "model.relabel=false, or to null"
            )
        self.num_classes = num_classes
        self.warmup_iterations = warmup_iterations
        self.round_iterations = round_iterations
        self.rounds = rounds
        self.first_share = first_share
        self.last_share = last_share
        self.threshold = threshold
        self.balance = balance
        self.relabel = relabel
        self.candidates = candidates
        self.pseudo_weight = pseudo_weight
        self.batch_pool_labels: Tensor | None = None
        self.register_buffer("pool_labels", torch.full((num_pools, num_training_images), UNLABELLED))
        self.register_buffer("rounds_over", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def all_logits(self, images: Tensor) -> list[Tensor]:
        """Class logits (N, K) float32 of each classifier, for images (N, C, H, W)."""

    @abstractmethod
    def choose(self, confidences: Tensor, labels: Tensor, free: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Which labels a round gives.

        Args:
            confidences: (V, U) of each classifier.
            labels: (V, U) int64.
            free: (P, U) bool, images of each pool that may be given a label.
            numbers: how many images of each pool at most.

        Returns:
            Labels (P, U) int64, `UNLABELLED` where none is given, and the confidences (P, U) they are given with.
        """

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One step of all classifiers on the labelled images and on the pseudo-labelled ones of the batch."""
        if not isinstance(batch, SemiSupervisedBatch):
            raise UserError("the model trains on partly labelled images: set data.labelled_per_class")
        if self.batch_pool_labels is None and self.iteration >= self.warmup_iterations:
            raise UserError(
                "nobody gives pseudo labels: set callbacks.pseudo_labels as in configs/callbacks/default.yaml"
            )
        labelled, pseudo = self.losses(batch)
        self.step(labelled + self.pseudo_weight * pseudo)
        return {"labelled": labelled, "pseudo": pseudo}

    @abstractmethod
    def losses(self, batch: SemiSupervisedBatch) -> tuple[Tensor, Tensor]:
        """The sums over classifiers of both terms of the objective, without the weight."""

    def classifier_losses(
        self, classifier: nn.Module, labelled: Tensor, labels: Tensor, images: Tensor, pool: int
    ) -> tuple[Tensor, Tensor]:
        """Both terms of one classifier, without the weight.

        Args:
            classifier: images, or a view of them, -> logits.
            labelled: images (M, ...).
            labels: (M,) int64.
            images: of the batch (n, ...).
            pool: whose pseudo labels they have.
        """
        told = None if self.batch_pool_labels is None else self.batch_pool_labels[pool]
        if told is None or not bool((told != UNLABELLED).any()):
            loss = F.cross_entropy(classifier(labelled).float(), labels)
            return loss, torch.zeros_like(loss)
        chosen = told != UNLABELLED
        # In one pass, so that batch norm sees one batch of both.
        logits = classifier(torch.cat([labelled, images[chosen]])).float()
        first, second = logits[: len(labels)], logits[len(labels) :]
        pseudo = F.cross_entropy(second, told[chosen], reduction="sum") / len(images)
        return F.cross_entropy(first, labels), pseudo

    def round_due(self) -> int:
        """See `lightning_gen.models.capabilities.LabelsPool`."""
        number, rest = divmod(self.iteration - self.warmup_iterations, self.round_iterations)
        due = not rest and 0 <= number < self.rounds and not bool(self.rounds_over)
        return number + 1 if due else 0

    def propose_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `lightning_gen.models.capabilities.LabelsPool`."""
        found = [logits.softmax(1).max(1) for logits in self.all_logits(images)]
        return torch.stack([each.values for each in found]), torch.stack([each.indices for each in found])

    def label_pool(self, confidences: Tensor, labels: Tensor, unlabelled: Tensor) -> Tensor:
        """See `lightning_gen.models.capabilities.LabelsPool`."""
        number = self.round_due()
        before = self.pool_labels.cpu()
        held = before[:, unlabelled]
        kept = torch.full_like(held, UNLABELLED) if self.relabel else held
        size = pool_size(len(unlabelled), number, self.rounds, self.first_share, self.last_share)
        numbers = [max(0, size - int((row != UNLABELLED).sum())) for row in kept]
        given, sure = self.choose(confidences, labels, self._free(kept, unlabelled), numbers)
        after = torch.full_like(before, UNLABELLED)
        after[:, unlabelled] = torch.where(given == UNLABELLED, kept, given)
        settled = torch.equal(after, before) and bool((after != UNLABELLED).any())
        self.pool_labels.copy_(after)
        self.rounds_over.fill_(settled or number == self.rounds)
        return torch.where(given == UNLABELLED, torch.nan, sure)

    def forget_pool(self) -> None:
        """Take all pseudo labels back, and begin with the first round."""
        self.pool_labels.fill_(UNLABELLED)
        self.rounds_over.fill_(False)

    def _free(self, kept: Tensor, unlabelled: Tensor) -> Tensor:
        free = kept == UNLABELLED
        if self.candidates is not None:
            # The first that are left in one random order: what is taken is replaced by the next.
            order = torch.randperm(self.pool_labels.shape[1], generator=make_rng("candidates", self.seed))
            place = order.argsort()[unlabelled]
            for row in free:
                waiting = row.nonzero().flatten()
                row[waiting[place[waiting].argsort()[self.candidates :]]] = False
        return free

    @property
    def balanced_classes(self) -> int | None:
        """What `lightning_gen.models.pool_choice.choose_confident` is told of the classes."""
        return self.num_classes if self.balance else None
