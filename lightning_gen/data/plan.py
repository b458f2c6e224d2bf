"""Which images are in which batch of which process: a pure function of a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.seeds import make_rng


class Draw(NamedTuple):
    """The images that one batch takes from one set.

    Attributes:
        indices: (N,) int64.
        epoch: pass over that set in which the first of them is drawn, from 0.
    """

    indices: Tensor
    epoch: int


class BatchPlan:
    """The shuffled batches of this process over one or several sets.

    The longest set makes the epochs: its order in an epoch is a permutation made of (seed, epoch), cut into batches
    over all processes, of which each takes every ``world_size``-th image; the rest that fills no batch is dropped, so
    processes stay in step and no image is padded in. Every other set is an endless row of permutations that is cut in
    the same way with nothing dropped. Batches are numbered through all epochs, so the number of the next one is all
    there is to remember.

    Args:
        lengths: number of images in each set.
        batch_sizes: images that a batch of one process takes from each set.
        seed: of the order.
        rank: this process, from 0.
        world_size: number of processes.

    Raises:
        UserError: the longest set holds less than one batch over all processes, or a set is empty.
    """

    def __init__(
        self, lengths: Sequence[int], batch_sizes: Sequence[int], *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if min(batch_sizes) < 1:
            raise UserError(f"data.batch_size must be at least 1, not {min(batch_sizes)}")
        if min(lengths) < 1:
            raise UserError("a set of images to train on is empty")
        self.lengths = list(lengths)
        self.batch_sizes = list(batch_sizes)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.longest = self.lengths.index(max(self.lengths))
        self.batches_per_epoch = self.lengths[self.longest] // (self.batch_sizes[self.longest] * world_size)
        if self.batches_per_epoch < 1:
            raise UserError(
                f"{self.lengths[self.longest]} training images are less than one batch of "
                f"{self.batch_sizes[self.longest]} on each of {world_size} processes: lower data.batch_size"
            )
        self._orders: dict[tuple[int, int], Tensor] = {}

    def draws(self, number: int) -> list[Draw]:
        """What batch ``number``, counted from 0 through all epochs, takes from each set."""
        return [self._draw(column, number) for column in range(len(self.lengths))]

    def _draw(self, column: int, number: int) -> Draw:
        length, size = self.lengths[column], self.batch_sizes[column] * self.world_size
        if column == self.longest:
            epoch, batch = divmod(number, self.batches_per_epoch)
            start = batch * size
            return Draw(self._order(column, epoch)[start : start + size][self.rank :: self.world_size], epoch)
        epoch, start = divmod(number * size, length)
        parts = [self._order(column, epoch)[start : start + size]]
        following = epoch
        while sum(map(len, parts)) < size:
            following += 1
            parts.append(self._order(column, following)[: size - sum(map(len, parts))])
        return Draw(torch.cat(parts)[self.rank :: self.world_size], epoch)

    def _order(self, column: int, epoch: int) -> Tensor:
        if (column, epoch) not in self._orders:
            # Two epochs of each set at most are in use at once.
            self._orders = {
                key: order for key, order in self._orders.items() if key[0] != column or key[1] == epoch - 1
            }
            part = () if column == 0 else (column,)
            rng = make_rng("order", self.seed, epoch, *part)
            self._orders[column, epoch] = torch.randperm(self.lengths[column], generator=rng)
        return self._orders[column, epoch]
