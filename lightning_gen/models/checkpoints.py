"""Models back from checkpoints, reading tensors and plain values only."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from lightning_gen.errors import UserError, first_line
from lightning_gen.models.base import GenerativeModel
from lightning_gen.registry import resolve


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint of this project, on the CPU, loaded with ``weights_only=True``.

    Raises:
        UserError: the file is missing, damaged, or written by another program.
    """
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise UserError(f"Cannot read the checkpoint {path}: {first_line(error)}") from error
    if not isinstance(checkpoint, dict) or "generative_model" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of lightning_gen")
    return checkpoint


def load_model(checkpoint: dict[str, Any]) -> GenerativeModel:
    """The model that a checkpoint (see `read_checkpoint`) holds, with its moving average and counters.

    Raises:
        UserError: its class is not a model of this installation.
    """
    model_class = resolve(checkpoint["generative_model"]["class"], GenerativeModel)  # type: ignore[type-abstract]
    model = model_class(**checkpoint["hyper_parameters"])
    if checkpoint["generative_model"]["average"]:
        model.add_average(**checkpoint["generative_model"]["average"])
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The checkpoint's weights do not fit this version of its model: {reason}") from error
    model.on_load_checkpoint(checkpoint)
    return model.eval()
