"""Models back from checkpoints, reading tensors and plain values only."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from lightning_gen.errors import UserError, first_line
from lightning_gen.models.base import GenerativeModel
from lightning_gen.registry import construct, resolve

M = TypeVar("M", bound=GenerativeModel)


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


def load_first_stage(
    source: str | Mapping[str, Any] | None, kind: type[M], name: str, image_shape: tuple[int, int, int]
) -> tuple[M, dict[str, Any]]:
    """A trained first stage, from ``model.first_stage``; see `load_part`."""
    return load_part(source, kind, name, image_shape, "model.first_stage")


def load_part(
    source: str | Mapping[str, Any] | None, kind: type[M], name: str, image_shape: tuple[int, int, int], key: str
) -> tuple[M, dict[str, Any]]:
    """A trained model that becomes a part of another, frozen and with its averaged weights, and a spec of its shape.

    Args:
        source: a run directory or a checkpoint; or a spec, whose weights are to be loaded.
        kind: class that it must have.
        name: of the configs of that class, for messages.
        image_shape: (C, H, W) of the images that it must take.
        key: of the config that names the source, for messages.

    Raises:
        UserError: no source, another model, or one of other images.
    """
    if source is None:
        raise UserError(f"{key} is not set: set {key} to a run of {name}")
    if isinstance(source, Mapping):
        model, spec = construct(source, kind), dict(source)
    else:
        path = Path(source)
        checkpoint = read_checkpoint(path / "checkpoints" / "last.ckpt" if path.is_dir() else path)
        found = load_model(checkpoint)
        if not isinstance(found, kind):
            raise UserError(f"{key}={source} holds a {type(found).__name__}: set {key} to a run of {name}")
        if found.average is not None:
            for network, averaged in found.average.networks.items():
                getattr(found, network).load_state_dict(averaged.state_dict())
            found.average = None
        model = found
        spec = {"_target_": f"{type(found).__module__}.{type(found).__qualname__}", **checkpoint["hyper_parameters"]}
    trained_on = tuple(spec["image_shape"])
    if trained_on != tuple(image_shape):
        raise UserError(
            f"{key} was trained on images of {trained_on}, not {tuple(image_shape)}: set data.image_size "
            "or choose another run"
        )
    model.requires_grad_(False).eval()
    return model, spec
