"""Work spread over processes, its results in order, and mistakes of the user as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_gen.errors import UserError

T = TypeVar("T")


class _Task(Dataset[Any]):
    def __init__(self, task: Callable[[int], Any]) -> None:
        self.task = task

    def __getitem__(self, number: int) -> Any:
        # DataLoader would wrap an exception's message in a traceback.
        try:
            return self.task(number)
        except UserError as error:
            return error


class _Numbers(Sampler[int]):
    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def run_in_workers(
    task: Callable[[int], T], numbers: Iterable[int], num_workers: int, *, pin_memory: bool = False, ahead: int = 4
) -> Generator[T]:
    """``task(number)`` of every number, in order, computed ahead in worker processes.

    Args:
        task: called in a worker; tensors in its result come back through shared memory.
        numbers: of the tasks, finitely or infinitely many.
        num_workers: processes; 0 computes here.
        pin_memory: put tensors into page-locked memory, from which a GPU copies without waiting.
        ahead: results that each worker may be ahead.

    Raises:
        UserError: as ``task`` raised it.
    """
    loader = DataLoader(
        _Task(task),
        batch_size=None,
        sampler=_Numbers(numbers),
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=ahead if num_workers else None,
    )
    for result in loader:
        if isinstance(result, UserError):
            raise result
        yield result


def default_workers(processes_here: int = 1) -> int:
    """Workers for one of so many processes on this machine: the cores shared out, from 1 to 16."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // processes_here))
