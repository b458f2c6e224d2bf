"""A loader for sets that fit in memory: batches by one vectorised gather, no workers, exact resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_gen.data.image_set import ImageBatch, ImageSet
from lightning_gen.errors import UserError
from lightning_gen.seeds import make_rng


class InMemoryLoader:
    """Shuffled training batches of this rank, epoch after epoch.

    The order of an epoch is a permutation made of (seed, epoch). It is cut into batches over all ranks, of which each
    rank takes every ``world_size``-th image; the rest that fills no batch is dropped, so ranks stay in step and no
    image is padded in. The position is two numbers, so `load_state_dict` continues with the very next batch. Iterating
    goes on from the position to the end of the epoch.

    Args:
        images: the set; it stays on the device that it is on.
        batch_size: images in a batch of one rank.
        seed: of the order.
        rank: this process, from 0.
        world_size: number of processes.

    Raises:
        UserError: the set holds less than one batch over all ranks.
    """

    def __init__(self, images: ImageSet, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, not {batch_size}")
        if len(images) < batch_size * world_size:
            raise UserError(
                f"{len(images)} training images are less than one batch of {batch_size} on each of {world_size} "
                "processes: lower data.batch_size"
            )
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.batch = 0

    def __len__(self) -> int:
        """Batches of one rank in an epoch."""
        return len(self.images) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        epoch = self.epoch
        order = self._order(epoch)
        while self.epoch == epoch:
            start = self.batch * self.batch_size
            indices = order[start : start + self.batch_size]
            # The position moves before the batch is handed out: a state saved while the batch is in use is that of
            # the next one.
            self._advance()
            batch = self.images.subset(indices)
            yield ImageBatch(batch.images, batch.labels)

    def state_dict(self) -> dict[str, Any]:
        """The position: epoch and batch within it, both from 0."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that `state_dict` returned."""
        self.epoch, self.batch = state["epoch"], state["batch"]

    def _order(self, epoch: int) -> Tensor:
        order = torch.randperm(len(self.images), generator=make_rng("order", self.seed, epoch))
        return order[: len(self) * self.batch_size * self.world_size][self.rank :: self.world_size].to(
            self.images.images.device
        )

    def _advance(self) -> None:
        self.batch += 1
        if self.batch == len(self):
            self.epoch, self.batch = self.epoch + 1, 0
