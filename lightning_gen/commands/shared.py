"""What the commands share: their common options, and how they write files and report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lightning_gen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_gen.data import ImageDataModule
    from lightning_gen.evaluation import Trained
    from lightning_gen.metrics.extractors import FeatureExtractor
    from lightning_gen.tools.classifier import Classifier

Number = TypeVar("Number", int, float)

RUNS = Path(os.environ.get("LIGHTNING_GEN_OUTPUT_DIR", "runs"))
"""Where runs are looked for unless a folder is named."""

RunOrCheckpoint = Annotated[Path, typer.Argument(help="A run directory, or a checkpoint file.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value changes of the run's config.")]
Picture = Annotated[Path, typer.Option("--output", "-o", help="A PNG file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Of the latents.")]
SamplerName = Annotated[
    str | None, typer.Option("--sampler", help="Of a diffusion model: ddpm, ddim, euler, heun, dpm_solver_pp_2m, ode.")
]
Force = Annotated[bool, typer.Option(help="Overwrite files that exist.")]


def name_filter(help_text: str) -> typer.models.OptionInfo:
    """An option that takes names and patterns of names."""
    option: typer.models.OptionInfo = typer.Option(help=f"{help_text}; * stands for any text, repeat for several.")
    return option


def check_free(path: Path, force: bool) -> None:
    """Raise UserError if there is a file at ``path`` that may not be overwritten."""
    if path.exists() and not force:
        raise UserError(f"{path} exists: name another --output or pass --force")


def check_picture(path: Path, force: bool) -> None:
    """Raise UserError if ``path`` is no PNG file or may not be overwritten."""
    if path.suffix.lower() != ".png":
        raise UserError(f"--output must be a .png file, not {path}")
    check_free(path, force)


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Save a file and the folders above it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}") from error


def write_picture(path: Path, picture: Tensor) -> None:
    """Save uint8 (C, H, W) as a PNG, pixel for pixel."""
    from lightning_gen.images import save_png

    write(path, lambda target: save_png(picture, target))


def report(as_json: bool, result: dict[str, Any]) -> None:
    """Print the result as JSON, or only where its file is."""
    if as_json:
        print_json(result)
    else:
        print(result["output"])


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(value))


def say(line: str) -> None:
    """Print a line for the person, beside the result."""
    print(line, file=sys.stderr)


def parse_numbers(text: str, kind: type[Number], option: str) -> list[Number]:
    """The numbers in ``"1,2,3"`` or ``"1 2 3"``.

    Raises:
        UserError: one is no number, or there is none.
    """
    try:
        numbers = [kind(part) for part in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers:
        raise UserError(f"{option} takes numbers, as {option} 1,2, not {text!r}")
    return numbers


def load_extractor(trained: Trained) -> FeatureExtractor:
    """The feature extractor of the run's scores, on the model's device.

    Raises:
        UserError: the run has none.
    """
    from lightning_gen.metrics.extractors import create_extractor

    if not trained.config["metrics"]:
        raise UserError(f"{trained.checkpoint} was trained without metrics: name an extractor by metrics=NAME")
    return create_extractor(**trained.config["metrics"]["extractor"]).to(trained.model.device)


def load_classifier(trained: Trained, data: ImageDataModule) -> Classifier:
    """The classifier that comes with the extractor of the run's scores, with its accuracy on the set's own images.

    Raises:
        UserError: the run has no extractor, or its classes are not the set's.
    """
    from lightning_gen.tools.classifier import Classifier

    extractor = load_extractor(trained)
    classifier = Classifier(extractor, data.image_shape, data.class_names)
    split = trained.config["metrics"]["reference_split"]
    classifier.accuracy = classifier.measure(data.reference_set(split, 1000))
    if classifier.accuracy < 0.9:
        say(f"note: {classifier.name} classifies only {classifier.accuracy:.0%} of {data.name}'s own images rightly")
    return classifier
