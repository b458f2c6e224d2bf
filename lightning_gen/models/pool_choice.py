"""Which pseudo labels a round takes: functions of what classifiers say, without state or chance."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.data.batches import UNLABELLED


def choose_confident(
    confidences: Tensor, labels: Tensor, number: int, threshold: float = 0.0, classes: int | None = None
) -> Tensor:
    """The labels of the most confident images.

    Among equals the first comes first.

    Args:
        confidences: (N,) in [0, 1].
        labels: (N,) int64 in [0, K), or `UNLABELLED` for an image that is not to be chosen.
        number: how many to choose at most.
        threshold: smallest confidence that is taken.
        classes: K, to choose ``number // K`` of each class at most; None for the most confident of any.

    Returns:
        (N,) int64: the labels of the chosen, `UNLABELLED` elsewhere.
    """
    order = confidences.argsort(descending=True, stable=True)
    order = order[(confidences[order] >= threshold) & (labels[order] != UNLABELLED)]
    if classes is None:
        taken = order[:number]
    else:
        each = [order[labels[order] == label][: number // classes] for label in range(classes)]
        taken = torch.cat(each)
    chosen = torch.full_like(labels, UNLABELLED)
    chosen[taken] = labels[taken]
    return chosen


def merge_choices(chosen: Tensor, confidences: Tensor) -> tuple[Tensor, Tensor]:
    """One set of labels of those that several classifiers chose; where they differ, the most confident one's.

    Among equals the first classifier's is taken.

    Args:
        chosen: (V, N) int64 of `choose_confident`.
        confidences: (V, N).

    Returns:
        Labels (N,) int64, `UNLABELLED` where nobody chose; and the confidences (N,) of who was followed, -1 there.
    """
    followed = torch.where(chosen == UNLABELLED, -1.0, confidences)
    best, who = followed.max(0)
    # On ties `max` may name any classifier.
    who = torch.where(followed == best, torch.arange(len(chosen))[:, None], len(chosen)).amin(0)
    return chosen.gather(0, who[None])[0], best


def pool_size(number: int, round_number: int, rounds: int, first_share: float, last_share: float) -> int:
    """How many of ``number`` images without a label have a pseudo label after a round: a share that grows linearly.

    Args:
        number: of the images.
        round_number: from 1.
        rounds: of all.
        first_share: in the first of several rounds.
        last_share: in the last round.
    """
    progress = (round_number - 1) / (rounds - 1) if rounds > 1 else 1.0
    return round(number * (first_share + (last_share - first_share) * progress))
