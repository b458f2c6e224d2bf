"""Feature extractors of one domain: training them, and what there is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lightning_gen.commands.shared import Device, Force, Json, check_free, print_json, say
from lightning_gen.errors import UserError

app = typer.Typer(help="Train feature extractors on your own data, and list them.", no_args_is_help=True)

POOR_ACCURACY = 0.8


class Architecture(StrEnum):
    """What is trained."""

    lenet = "lenet"
    resnet = "resnet"


class Precision(StrEnum):
    """What is computed with in training; scores are always computed in float32."""

    float32 = "32"
    bfloat16 = "bf16"


@app.command()
def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME] data=DATASET [KEY=VALUE]...",
            help="NAME is of a-z, 0-9 and _, by default DATASET_ARCHITECTURE; scores are called fd_NAME. Then the data "
            "and changes of it, as data.image_size=64.",
            show_default=False,
        ),
    ],
    architecture: Annotated[Architecture, typer.Option(help="LeNet sees 32x32, ResNet at most 64x64 pixels.")] = (
        Architecture.resnet
    ),
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data.", min=1, show_default="12 or 16, at least 1500 updates")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror images at random: not for digits and letters.")] = False,
    precision: Annotated[Precision, typer.Option(help="bf16 is faster where the processor has it.")] = (
        Precision.float32
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file.", show_default="paths.extractors_dir")
    ] = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a classifier of labelled data to score with: `metrics=trained metrics.extractor.weights=NAME`.

    A training that was stopped goes on when the same command is given again.
    """
    from lightning_gen.configuration import compose_config
    from lightning_gen.data import ImageDataModule
    from lightning_gen.evaluation import pick_device
    from lightning_gen.metrics.extractors.trained import check_name
    from lightning_gen.metrics.extractors.training import Recipe
    from lightning_gen.registry import construct
    from lightning_gen.tools.extractor_training import train_extractor

    names, overrides = ([each for each in arguments if ("=" in each) is keyed] for keyed in (False, True))
    chosen = next((each.partition("=")[2] for each in overrides if each.startswith("data=")), None)
    if chosen is None or len(names) > 1:
        raise UserError("Name the data to train on: [NAME] data=DATASET, an option of configs/data")
    name = names[0] if names else f"{chosen}_{architecture.value}"
    check_name(name)
    config = compose_config(["metrics=none", *overrides])
    path = output or Path(config["paths"]["extractors_dir"], f"{name}.safetensors")
    if path.suffix != ".safetensors":
        raise UserError(f"--output must be a .safetensors file, not {path}")
    check_free(path, force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}") from error

    def progress(recipe: Recipe, epoch: int, loss: float) -> None:
        say(f"epoch {epoch} of {recipe.epochs}: loss {loss:.4f}")

    record = train_extractor(
        name,
        construct(config["data"], ImageDataModule),  # type: ignore[type-abstract]
        path,
        {
            "architecture": architecture.value,
            "epochs": epochs,
            "flip": flip,
            "precision": precision.value,
            "seed": seed,
        },
        pick_device(device),
        progress,
    )
    if record["test_accuracy"] < POOR_ACCURACY:
        say(
            f"warning: only {record['test_accuracy']:.1%} of the test images are classified rightly; distances in such "
            "features say little: train for more --epochs"
        )
    if as_json:
        print_json(record)
        return
    print(f"{path}  accuracy {record['test_accuracy']:.2%}  sha256 {record['weights_sha256']}")


@app.command(name="list")
def list_extractors(
    overrides: Annotated[list[str] | None, typer.Argument(help="As paths.extractors_dir=FOLDER.")] = None,
    as_json: Json = False,
) -> None:
    """Show the trained extractors, those that ship and those that you registered, with accuracy and digest."""
    from lightning_gen.configuration import compose_config
    from lightning_gen.metrics.extractors.trained import WEIGHTS_DIR

    folder = Path(compose_config(["metrics=none", *(overrides or [])])["paths"]["extractors_dir"])
    rows, problems = [], []
    for origin, place in (("shipped", WEIGHTS_DIR), ("registered", folder)):
        for file in sorted(place.glob("*.safetensors")):
            try:
                rows.append(_describe(file, origin))
            except UserError as error:
                problems.append(str(error))
    for problem in problems:
        say(f"skipped: {problem}")
    if as_json:
        print_json({"folder": str(folder), "extractors": rows, "skipped": problems})
        return
    table = Table("name", "origin", "data", "images", "classes", "features", "accuracy", "sha256", box=None)
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        shape = "x".join(map(str, row["image_shape"]))
        table.add_row(
            row["name"],
            row["origin"],
            row["data"],
            shape,
            str(row["num_classes"]),
            str(row["dimension"]),
            f"{row['test_accuracy']:.2%}",
            row["weights_sha256"][:8],
        )
    Console().print(table)


def _describe(file: Path, origin: str) -> dict[str, Any]:
    from lightning_gen.metrics.extractors.trained import ClassifierExtractor

    extractor = ClassifierExtractor(file)
    shown = ("name", "data", "architecture", "image_shape", "num_classes", "test_accuracy", "train_size", "test_size")
    facts = {key: extractor.record[key] for key in shown}
    return {
        **facts,
        "origin": origin,
        "dimension": extractor.num_features,
        "weights_sha256": extractor.weights_sha256,
        "file": str(file),
    }
