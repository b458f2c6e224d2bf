"""Score and sample from runs and checkpoints, in one process or several."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from lightning_gen.callbacks.scores import evaluate_model
from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.errors import UserError, first_line
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.models.capabilities import Samples
from lightning_gen.registry import construct
from lightning_gen.seeds import make_rng
from lightning_gen.tracking.run_directory import open_run

BLOCK_SIZE = 64


@dataclass
class Trained:
    """A model from a checkpoint, with the config of its run."""

    model: GenerativeModel
    config: dict[str, Any]
    checkpoint: Path


def load_trained(path: Path, overrides: Sequence[str] = (), device: str = "auto") -> Trained:
    """The model of a run directory (its last checkpoint) or of a checkpoint file.

    Args:
        path: of either.
        overrides: ``key=value`` changes of the run's config; ``metrics=NAME`` takes another config of that group.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        UserError: no such run, a damaged checkpoint, or an unknown key.
    """
    _, checkpoint_path = open_run(path)
    checkpoint = read_checkpoint(checkpoint_path)
    if "config" not in checkpoint:
        raise UserError(f"{checkpoint_path} does not hold the config of its run")
    config = apply_overrides(checkpoint["config"], overrides)
    model = load_model(checkpoint).to(pick_device(device))
    return Trained(model, config, checkpoint_path)


def apply_overrides(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A plain config with ``key=value`` changes.

    Raises:
        UserError: a key that the config does not have.
    """
    changed = dict(config)
    dotted = []
    for override in overrides:
        key, separator, _ = override.partition("=")
        if not separator:
            raise UserError(f"{override!r} is not of the form key=value")
        if key == "metrics":
            changed["metrics"] = compose_config([override, *_paths(config)])["metrics"]
        else:
            dotted.append(override)
    tree = OmegaConf.create(changed)
    OmegaConf.set_struct(tree, True)
    try:
        merged = OmegaConf.merge(tree, OmegaConf.from_dotlist(dotted))
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"Unknown config key: {first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def pick_device(name: str) -> torch.device:
    """The device that ``auto`` stands for, or the named one.

    Raises:
        UserError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"No device {name!r}: {first_line(error)}") from error
    return device


def evaluate_checkpoint(
    path: Path, overrides: Sequence[str] = (), num_processes: int = 1, device: str = "auto"
) -> list[dict[str, Any]]:
    """Scores of a run or checkpoint under the protocol of its config; the same at any number of processes.

    Args:
        path: run directory or checkpoint.
        overrides: ``key=value`` changes of the run's config.
        num_processes: processes that share the work; on GPUs, one each.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The scores as plain values (see `lightning_gen.metrics.base.Score`).

    Raises:
        UserError: see `load_trained`.
    """
    if num_processes < 1:
        raise UserError(f"--nproc must be at least 1, not {num_processes}")
    if num_processes == 1:
        return _evaluate(path, overrides, 0, 1, device)
    load_trained(path, overrides, "cpu")  # mistakes show here, as one line, and not in every process
    with tempfile.TemporaryDirectory() as folder:
        arguments = (path, list(overrides), num_processes, device, folder)
        spawn(_evaluate_rank, args=arguments, nprocs=num_processes)
        result: list[dict[str, Any]] = json.loads(Path(folder, "scores.json").read_text(encoding="utf-8"))
        return result


def _evaluate_rank(rank: int, path: Path, overrides: Sequence[str], world_size: int, device: str, folder: str) -> None:
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(rank)
        device = f"cuda:{rank}"
    torch.set_num_threads(max(1, torch.get_num_threads() // world_size))
    distributed.init_process_group(
        "nccl" if chosen.type == "cuda" else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
    )
    try:
        scores = _evaluate(path, overrides, rank, world_size, device)
        if rank == 0:
            Path(folder, "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    finally:
        distributed.destroy_process_group()


def _evaluate(path: Path, overrides: Sequence[str], rank: int, world_size: int, device: str) -> list[dict[str, Any]]:
    trained = load_trained(path, overrides, device)
    if not isinstance(trained.model, Samples):
        raise UserError(f"{type(trained.model).__name__} cannot sample, so it cannot be scored")
    evaluator = load_evaluator(trained, load_data(trained))
    with trained.model.evaluation():
        scores = evaluate_model(evaluator, trained.model, rank=rank, world_size=world_size)
    return [score.to_json() for score in scores]


def load_data(trained: Trained) -> ImageDataModule:
    """The data that a model was trained on, as its config describes them."""
    return construct(trained.config["data"], ImageDataModule)  # type: ignore[type-abstract]


def load_evaluator(trained: Trained, data: ImageDataModule) -> Evaluator:
    """The protocol of a model's config, with its reference, on the model's device.

    Raises:
        UserError: the run had none, or it cannot score such images.
    """
    if not trained.config["metrics"]:
        raise UserError(f"{trained.checkpoint} was trained without metrics: name them by metrics=NAME")
    evaluator = construct(trained.config["metrics"], Evaluator).to(trained.model.device)
    classes = None if trained.model.label_law is None else len(trained.model.label_law)
    evaluator.check(data.image_shape, len(data.split(evaluator.reference_split)), classes)
    evaluator.set_reference(data.name, data.reference_set(evaluator.reference_split, evaluator.num_reference).images)
    return evaluator


def draw_samples(model: GenerativeModel, num_samples: int, seed: int, use: Callable[[int, Tensor], None]) -> None:
    """Draw samples in blocks from the averaged weights and hand each block on.

    Args:
        model: any that can sample.
        num_samples: how many.
        seed: of the samples.
        use: called with the first index and float images (N, C, H, W) in [-1, 1] of every block.

    Raises:
        UserError: the model cannot sample.
    """
    if not isinstance(model, Samples):
        raise UserError(f"{type(model).__name__} cannot sample")
    with model.evaluation():
        for first in range(0, num_samples, BLOCK_SIZE):
            rng = make_rng("sample", seed, first // BLOCK_SIZE)
            use(first, model.sample(min(BLOCK_SIZE, num_samples - first), generator=rng))


def _paths(config: Mapping[str, Any]) -> list[str]:
    return [f"paths.{key}={json.dumps(value)}" for key, value in config["paths"].items()]
