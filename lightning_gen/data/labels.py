"""Which classes there are, how often, and which images keep their label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.data.batches import UNLABELLED
from lightning_gen.errors import UserError
from lightning_gen.seeds import make_rng


class Chosen(NamedTuple):
    """Images of some classes.

    Attributes:
        indices: (M,) int64, ascending.
        labels: (M,) int64, numbered anew.
    """

    indices: Tensor
    labels: Tensor


def class_index(name: str, class_names: Sequence[str], where: str = "") -> int:
    """The label of a class given by name, or by its number.

    Args:
        name: of either.
        class_names: in the order of the labels.
        where: begins the message.

    Raises:
        UserError: there is no such class.
    """
    if name in class_names:
        return list(class_names).index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    raise UserError(f"{where}No class {name!r}: known are {', '.join(class_names)}")


def choose_classes(labels: Tensor, kept: Sequence[int]) -> Chosen:
    """Images whose label (N,) int64 is among ``kept``, of which the first becomes 0, the second 1, and so on.

    Raises:
        UserError: there are none.
    """
    wanted = torch.tensor(kept, dtype=torch.int64)
    found, place = (labels[:, None] == wanted).max(1)
    indices = found.nonzero().flatten()
    if not len(indices):
        raise UserError("data.classes leaves a split without images: name other classes")
    return Chosen(indices, place[indices])


def class_law(labels: Tensor, num_classes: int) -> list[float]:
    """The share of each class among labels (N,) int64: num_classes numbers that sum to 1."""
    return (torch.bincount(labels, minlength=num_classes).double() / len(labels)).tolist()


def labelled_subset(labels: Tensor, num_classes: int, per_class: int, seed: int) -> Tensor:
    """Images that keep their label in semi-supervised training: equally many of each class, drawn by ``seed``.

    Args:
        labels: (N,) int64.
        num_classes: K.
        per_class: images of each class.
        seed: another seed draws other images.

    Returns:
        (K * per_class,) int64 indices, ascending.

    Raises:
        UserError: a class has fewer images.
    """
    if per_class < 1:
        raise UserError(f"data.labelled_per_class must be at least 1, not {per_class}")
    chosen = []
    for label in range(num_classes):
        members = (labels == label).nonzero().flatten()
        if len(members) < per_class:
            raise UserError(f"class {label} has {len(members)} training images, less than data.labelled_per_class")
        order = torch.randperm(len(members), generator=make_rng("labelled", seed, label))
        chosen.append(members[order[:per_class]])
    return torch.cat(chosen).sort().values


def with_others_hidden(labels: Tensor, kept: Tensor) -> Tensor:
    """Labels (N,) int64 that are `UNLABELLED` but at the indices ``kept`` (M,) int64."""
    hidden = torch.full_like(labels, UNLABELLED)
    hidden[kept] = labels[kept]
    return hidden
