"""Optimizers and learning-rate schedules from plain values, so that checkpoints and configs can hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from lightning_gen.errors import UserError
from lightning_gen.models import schedules


def build_optimizer(spec: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer of `torch.optim`.

    Args:
        spec: ``{"name": "Adam", "lr": 2e-4, ...}``; the key ``schedule`` is left to `build_schedule`.
        parameters: what it steps.

    Raises:
        UserError: no such optimizer or option.
    """
    options = {key: value for key, value in spec.items() if key not in ("name", "schedule")}
    optimizer_class = getattr(torch.optim, str(spec.get("name")), None)
    if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, torch.optim.Optimizer)):
        raise UserError(f"torch.optim has no optimizer {spec.get('name')!r}")
    try:
        return optimizer_class(parameters, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"Optimizer {spec['name']}: {error}") from error


def build_schedule(spec: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> LRScheduler | None:
    """A schedule, stepped once an iteration, or None where ``spec`` names none.

    It is one of `torch.optim.lr_scheduler` or of `lightning_gen.models.schedules`.

    Args:
        spec: the optimizer's spec; its key ``schedule`` is ``{"name": "LinearLR", ...}`` in iterations.
        optimizer: the optimizer that `build_optimizer` made from the same spec.

    Raises:
        UserError: no such schedule or option.
    """
    schedule = spec.get("schedule")
    if not schedule:
        return None
    options = {key: value for key, value in schedule.items() if key != "name"}
    name = str(schedule.get("name"))
    schedule_class = getattr(torch.optim.lr_scheduler, name, None) or getattr(schedules, name, None)
    if not (isinstance(schedule_class, type) and issubclass(schedule_class, LRScheduler)):
        raise UserError(
            f"torch.optim.lr_scheduler and lightning_gen.models.schedules have no schedule {schedule.get('name')!r}"
        )
    try:
        return schedule_class(optimizer, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"Schedule {schedule['name']}: {error}") from error
