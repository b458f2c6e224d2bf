"""Trained models from runs and checkpoints, with what their configs describe: data, scores, samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from lightning_gen.callbacks.scores import check_scores
from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.errors import UserError, first_line
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.models.capabilities import Denoises, Guides, Samples
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


@dataclass(frozen=True)
class Sampling:
    """How a model samples where that is not to be as in its config.

    Attributes:
        sampler: name, in the place of the config's.
        steps: of the sampler.
        guidance_scale: how much samples are drawn towards their labels.
    """

    sampler: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None

    def apply(self, model: GenerativeModel) -> None:
        """Have a model sample so.

        Raises:
            UserError: the model has no such choice.
        """
        if self.sampler is not None or self.steps is not None:
            if not isinstance(model, Denoises):
                raise UserError(f"{type(model).__name__} does not sample in steps: leave --sampler and --steps out")
            model.use_sampler(self.sampler, self.steps)
        if self.guidance_scale is not None:
            if not isinstance(model, Guides):
                raise UserError(f"{type(model).__name__} has no guidance: leave --guidance-scale out")
            model.guidance_scale = self.guidance_scale


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
    check_scores(evaluator, trained.model, data)
    reference = data.reference_set(evaluator.reference_split, evaluator.num_reference)
    evaluator.set_reference(data.name, reference.images, reference.labels)
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
        for first, number, rng in _blocks(num_samples, seed):
            use(first, model.sample(number, generator=rng))


def draw_labelled(
    model: GenerativeModel, num_samples: int, seed: int, use: Callable[[int, Tensor, Tensor], None]
) -> None:
    """Draw samples of given classes in blocks from the averaged weights and hand each block on with its labels.

    Labels follow the law of the training set. The images are others than those of `draw_samples`.

    Args:
        model: a conditional one.
        num_samples: how many.
        seed: of labels and samples.
        use: called with the first index, float images (N, C, H, W) in [-1, 1] and labels (N,) int64 of every block.

    Raises:
        UserError: the model makes no images of given classes.
    """
    if not isinstance(model, Samples) or model.label_law is None:
        raise UserError(f"{type(model).__name__} makes no images of given classes: leave --labelled out")
    with model.evaluation():
        for first, number, rng in _blocks(num_samples, seed):
            labels = model.draw_labels(number, generator=rng)
            use(first, model.sample(number, labels, generator=rng), labels)


def _blocks(num_samples: int, seed: int) -> Iterator[tuple[int, int, torch.Generator]]:
    """First index, number and generator of each block of samples."""
    for first in range(0, num_samples, BLOCK_SIZE):
        yield first, min(BLOCK_SIZE, num_samples - first), make_rng("sample", seed, first // BLOCK_SIZE)


def _paths(config: Mapping[str, Any]) -> list[str]:
    return [f"paths.{key}={json.dumps(value)}" for key, value in config["paths"].items()]
