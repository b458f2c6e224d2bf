"""Work spread over processes, its results in order, and mistakes of the user as they are."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_gen.errors import UserError

A = TypeVar("A")
T = TypeVar("T")

AHEAD = 3
"""Results that each worker may be ahead."""


class _Task(Dataset[Any]):
    def __init__(self, task: Callable[[Any], Any]) -> None:
        self.task = task

    def __getitem__(self, argument: Any) -> Any:
        # DataLoader would wrap an exception's message in a traceback.
        try:
            return self.task(argument)
        except UserError as error:
            return error


class _Arguments(Sampler[Any]):
    def __init__(self, arguments: Iterable[Any]) -> None:
        self.arguments = arguments

    def __iter__(self) -> Iterator[Any]:
        return iter(self.arguments)


def _leave_group(worker: int) -> None:
    """Let signals to the process group, as Ctrl-C is one, reach the main process alone.

    A worker that such a signal ended would end the run in the middle of an iteration; workers end with their parent.
    """
    os.setpgid(0, 0)


def run_in_workers(
    task: Callable[[A], T], arguments: Iterable[A], num_workers: int, *, pin_memory: bool = False
) -> Generator[T]:
    """``task(argument)`` of every argument, in order, computed ahead in worker processes.

    Args:
        task: called in a worker; tensors in its result come back through shared memory.
        arguments: of the tasks, finitely or infinitely many; drawn from when a worker is given the task.
        num_workers: processes; 0 computes here. Each is ahead by `AHEAD` results at most.
        pin_memory: put tensors into page-locked memory, from which a GPU copies without waiting.

    Raises:
        UserError: as ``task`` raised it.
    """
    loader = DataLoader(
        _Task(task),
        batch_size=None,
        sampler=_Arguments(arguments),
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=AHEAD if num_workers else None,
        # Forked workers share what this process holds, memory maps among it, and start at once.
        multiprocessing_context="fork" if num_workers else None,
        worker_init_fn=_leave_group,
    )
    for result in loader:
        if isinstance(result, UserError):
            raise result
        yield result


class SharedSlots:
    """Batches of images in memory that workers write to and this process reads, used again and again.

    A new piece of shared memory for each batch would cost more than decoding does. The memory is anonymous, so the size
    of /dev/shm, small in containers, does not limit it.

    Args:
        number: of slots; as many batches can be on their way.
        shapes: (N, C, H, W) of the images of each set in a batch.
    """

    def __init__(self, number: int, shapes: Sequence[tuple[int, int, int, int]]) -> None:
        self.free = deque(range(number))
        self._slots = []
        for count, channels, height, width in shapes:
            memory = mmap.mmap(-1, number * count * channels * height * width)
            images = torch.frombuffer(memory, dtype=torch.uint8)
            self._slots.append(images.view(number, count, height, width, channels))

    def __getitem__(self, slot: int) -> list[Tensor]:
        """The images (N, H, W, C) uint8 of each set."""
        return [images[slot] for images in self._slots]


def default_workers(processes_here: int = 1) -> int:
    """Workers for one of so many processes on this machine: the cores shared out, from 1 to 16."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // processes_here))
