"""Batches in training order, from memory or decoded on the way, and in file order; all can go on where they stopped."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_gen.data.batches import ImageBatch
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.data.plan import BatchPlan
from lightning_gen.data.workers import AHEAD, SharedSlots, run_in_workers

Columns = tuple[ImageBatch, ...]
"""One uint8 batch from each set."""
Drawn = tuple[int, list[list[int] | None]]
"""The slot that a worker wrote a batch's images to, and their labels."""


class TrainingLoader:
    """The batches of a plan, epoch after epoch, with a position that can be saved.

    Iterating goes on from the position to the end of the epoch.

    Args:
        plan: which images are in which batch.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.number = 0

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return self.plan.batches_per_epoch

    def __iter__(self) -> Iterator[Columns]:
        last = (self.number // len(self) + 1) * len(self)
        while self.number < last:
            number = self.number
            # The position moves before the batch is handed out: a state saved while the batch is in use is that of
            # the next one.
            self.number += 1
            yield self.load(number)

    def state_dict(self) -> dict[str, Any]:
        """The position: the number of the next batch, counted through all epochs."""
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that `state_dict` returned."""
        self.number = state["number"]

    @abstractmethod
    def load(self, number: int) -> Columns:
        """Batch ``number``."""

    def close(self) -> None:
        """Let go of what the loader holds beside its sets."""


class InMemoryLoader(TrainingLoader):
    """Batches by one vectorised gather from sets in memory: no workers, no copies but the batch.

    Args:
        sets: they stay on the device that they are on.
        plan: which images are in which batch.
    """

    def __init__(self, sets: Sequence[ImageSet], plan: BatchPlan) -> None:
        super().__init__(plan)
        self.sets = sets

    def load(self, number: int) -> Columns:
        """Batch ``number``."""
        return tuple(
            images.batch(draw.indices.to(images.images.device), draw.epoch)
            for images, draw in zip(self.sets, self.plan.draws(number), strict=True)
        )


class StreamingLoader(TrainingLoader):
    """Batches that worker processes decode ahead of their use, with nothing kept.

    The workers go on over the end of an epoch; they stop when the loader is closed, moved or dropped.

    Args:
        sources: where images are drawn from.
        plan: which images are in which batch.
        num_workers: worker processes; 0 decodes in this one.
        pin_memory: hand batches out in page-locked memory, for a GPU.
    """

    def __init__(
        self, sources: Sequence[ImageSource], plan: BatchPlan, num_workers: int, pin_memory: bool = False
    ) -> None:
        super().__init__(plan)
        self.sources = sources
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self._slots: SharedSlots | None = None
        self._stream: Generator[Drawn] | None = None
        self._stream_position = 0

    def load(self, number: int) -> Columns:
        """Batch ``number``, at once if it is the next one."""
        if self._stream is None or self._stream_position != number:
            self._start(number)
        assert self._stream is not None
        assert self._slots is not None
        self._stream_position = number + 1
        slot, labels = next(self._stream)
        columns = tuple(map(self._copy, self._slots[slot], labels))
        self._slots.free.append(slot)
        return columns

    def _copy(self, images: Tensor, labels: list[int] | None) -> ImageBatch:
        # NumPy copies in this thread. Torch would wake its others, and they spin for a while on the workers' cores.
        images = images.pin_memory() if self.pin_memory else torch.from_numpy(images.numpy().copy())
        return ImageBatch(images.permute(0, 3, 1, 2), None if labels is None else torch.tensor(labels))

    def _start(self, number: int) -> None:
        self.close()
        shapes = [(size, *source.image_shape) for size, source in zip(self.plan.batch_sizes, self.sources, strict=True)]
        self._slots = slots = SharedSlots(self.num_workers * AHEAD + 1, shapes)
        # The stream does not know the loader: in a cycle of references workers would end only when it is collected.
        task = partial(_draw_batch, self.sources, self.plan, slots)
        tasks = ((batch, slots.free.popleft()) for batch in itertools.count(number))
        self._stream = run_in_workers(task, tasks, self.num_workers)

    def close(self) -> None:
        """Stop the workers; the position stays."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._slots = None


def _draw_batch(
    sources: Sequence[ImageSource], plan: BatchPlan, slots: SharedSlots, number_and_slot: tuple[int, int]
) -> Drawn:
    number, slot = number_and_slot
    labels = []
    for source, draw, out in zip(sources, plan.draws(number), slots[slot], strict=True):
        drawn = source.batch(*draw, out)
        labels.append(None if drawn.labels is None else drawn.labels.tolist())
    return slot, labels


class OrderedLoader:
    """All images of one set in order, for evaluation: each exactly once over all processes.

    Process ``r`` of ``w`` gets the images ``r, r + w, ...``; nothing is repeated or padded, and nothing dropped but
    damaged images that the source skips.

    Args:
        source: the images.
        batch_size: images in a batch; the last one may be smaller.
        rank: this process, from 0.
        world_size: number of processes.
        num_workers: worker processes; 0 for sets in memory.
        pin_memory: hand batches out in page-locked memory, for a GPU.
    """

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.source = source
        self.batch_size = batch_size
        self.num_workers = 0 if isinstance(source, ImageSet) else num_workers
        self.pin_memory = pin_memory
        self._mine = torch.arange(rank, len(source), world_size)

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-len(self._mine) // self.batch_size)

    def __iter__(self) -> Iterator[Columns]:
        return run_in_workers(self._decode, range(len(self)), self.num_workers, pin_memory=self.pin_memory)

    def _decode(self, number: int) -> Columns:
        indices = self._mine[number * self.batch_size : (number + 1) * self.batch_size]
        return (self.source.read(indices),)
