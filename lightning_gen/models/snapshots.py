"""Averages of several times in training on the disk, and averages of other widths put together from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.files import atomic_path
from lightning_gen.models.checkpoints import load_model
from lightning_gen.models.power_average import PowerFunctionAverage, combination, exponent_of


class Reconstruction(NamedTuple):
    """An average of another width.

    Attributes:
        checkpoint: as `lightning_gen.models.load_model` takes it, without the state of training.
        error: distance of its profile from the wished one, as a part of that one's length.
        snapshots: how many were used.
    """

    checkpoint: dict[str, Any]
    error: float
    snapshots: int


def save_snapshot(average: PowerFunctionAverage, images_seen: int, folder: Path) -> None:
    """Write the parameters of all widths to ``<folder>/<images seen>.safetensors``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{images_seen:012d}.safetensors") as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in _parameters(average).items()}, temporary)


def list_snapshots(folder: Path) -> dict[int, Path]:
    """Images seen -> file, in that order."""
    return {int(path.stem): path for path in sorted(folder.glob("[0-9]*.safetensors"))}


def reconstruct(checkpoint: dict[str, Any], folder: Path, relative_width: float) -> Reconstruction:
    """The average of a width as if training had followed it, by least squares of profiles (see `combination`).

    Args:
        checkpoint: of a run with a `PowerFunctionAverage` (see `lightning_gen.models.read_checkpoint`).
        folder: of the run's snapshots; those after the checkpoint are not used.
        relative_width: of the wished average.

    Raises:
        UserError: the run did not follow such averages, a snapshot is damaged or of another run, or there is no such
            width.
    """
    exponent = exponent_of(relative_width)
    model = load_model(checkpoint)
    average = model.average
    if not isinstance(average, PowerFunctionAverage):
        raise UserError("Only runs with ema=power can be given another average afterwards")
    files = {time: path for time, path in list_snapshots(folder).items() if time < model.images_seen}
    times = [time for time in (*files, model.images_seen) for _ in average.exponents]
    factors, error = combination(times, average.exponents * (len(files) + 1), exponent)
    now = _parameters(average)
    names = [name for name, _ in average.networks.named_parameters()]
    totals = {name: now[f"0.{name}"].double() * 0 for name in names}
    remaining = iter(factors.tolist())
    for path in (*files.values(), None):
        tensors = now if path is None else _read(path, now)
        for number in range(len(average.exponents)):
            factor = next(remaining)
            for name, total in totals.items():
                total.add_(tensors[f"{number}.{name}"], alpha=factor)
    with torch.no_grad():
        for name, parameter in average.networks.named_parameters():
            parameter.copy_(totals[name])
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("average.others.")}
    kept: dict[str, Any] = {key: checkpoint[key] for key in ("config", "hyper_parameters") if key in checkpoint}
    about = {**checkpoint["generative_model"], "average": {"relative_widths": [relative_width]}}
    return Reconstruction({**kept, "generative_model": about, "state_dict": state}, error, len(files))


def _parameters(average: PowerFunctionAverage) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": parameter.detach()
        for number, networks in enumerate(average.averages)
        for name, parameter in networks.named_parameters()
    }


def _read(path: Path, like: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot read the snapshot {path}: {error}; remove it to do without") from error
    if {name: tensor.shape for name, tensor in tensors.items()} != {
        name: tensor.shape for name, tensor in like.items()
    }:
        raise UserError(f"The snapshot {path} is of another model: remove it")
    return tensors
