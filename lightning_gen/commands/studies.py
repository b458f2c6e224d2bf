"""Studies of a trained model: neighbors, probe, filters, modes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightning_gen.commands.shared import (
    Device,
    Force,
    Json,
    Overrides,
    Picture,
    RunOrCheckpoint,
    Seed,
    check_picture,
    load_classifier,
    load_extractor,
    print_json,
    report,
    write_picture,
)
from lightning_gen.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_gen.data import ImageDataModule
    from lightning_gen.data.image_set import ImageSet
    from lightning_gen.models import GenerativeModel
    from lightning_gen.tools.neighbors import Embedding
    from lightning_gen.tools.probe import ProbeResult

app = typer.Typer()


class Space(StrEnum):
    """Where distances are measured."""

    pixels = "pixels"
    features = "features"
    both = "both"


@app.command()
def neighbors(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    space: Annotated[Space, typer.Option(help="Distances of pixels, or of the extractor's features.")] = Space.both,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="In the picture.", min=1)] = 8,
    number: Annotated[int, typer.Option("--neighbors", "-k", help="Of each sample.", min=1)] = 5,
    num_scored: Annotated[int, typer.Option(help="Samples that the scores are of.", min=1)] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show the training images nearest to samples, and score whether samples are copies of them."""
    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools.neighbors import TrainingImages
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    data = load_data(trained)
    train = data.reference_set("train").images
    samples = _draw(trained.model, max(num_samples, num_scored), seed)
    if samples.shape[1:] != train.shape[1:]:
        raise UserError(f"Samples are {tuple(samples.shape[1:])}, but training images {tuple(train.shape[1:])}")
    held_out = _held_out(data, num_scored, make_rng("held out", seed))
    panels = [Panel("samples", samples[:num_samples], 1)]
    scores = {}
    extractor = None if space is Space.pixels else load_extractor(trained)
    for name, embed in _spaces(space, trained.model.device, extractor).items():
        training = TrainingImages(train, embed, keep=name != "pixels")
        embedded = embed(samples)
        indices = training.nearest(embedded[:num_samples], number).indices.cpu()
        panels.append(Panel(f"nearest by {name}", train[indices.flatten()], indices.shape[1]))
        others = None if held_out is None else embed(held_out)
        scores[name] = training.memorization(embedded[:num_scored], others).to_json()
    write_picture(output, sheet([panels]))
    if as_json:
        result = {"output": str(output), "num_samples": num_samples, "num_scored": num_scored, "seed": seed}
        print_json({**result, "scores": scores})
        return
    for name, found in scores.items():
        line = f"{name}: {found['closer_share']:.1%} of samples are at least as close to a training image as its own "
        line += "nearest one"
        if found["distance_ratio"] is not None:
            line += f" (held-out images: {found['held_out_closer_share']:.1%}); "
            line += f"distance to the nearest, over that of held-out images: {found['distance_ratio']:.3f}"
        print(line)
    print(output)


@app.command()
def probe(
    run: RunOrCheckpoint,
    overrides: Overrides = None,
    labels_per_class: Annotated[
        int | None, typer.Option(help="Training images whose labels are used.", show_default="all", min=2)
    ] = None,
    draws: Annotated[int, typer.Option(help="Of the labelled images.", min=1)] = 5,
    data_name: Annotated[
        str | None, typer.Option("--data", help="Another data set, of images of the same shape.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the labelled images and the untrained model.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify by a linear SVM on the model's features, on pixels and on the features of an untrained model.

    The protocol of DCGAN (Radford et al. 2016, section 5).
    """
    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.images import to_float
    from lightning_gen.tools import probe as tool
    from lightning_gen.tools.untrained import untrained

    trained = load_trained(run, overrides or [], device)
    embed = tool.model_embedding(trained.model)
    own = load_data(trained)
    data = own if data_name is None else _other_data(data_name, trained.config)
    if data.image_shape != own.image_shape:
        raise UserError(f"{data.name} has images of {data.image_shape}, but the model takes {own.image_shape}")
    train, test = data.reference_set("train"), data.reference_set("test")
    chosen = _draw_labelled(train, data, labels_per_class, draws, seed)
    new = untrained(trained.model, to_float(train.images[:1024]), seed)
    with trained.model.evaluation():
        results = {
            "features": tool.probe(embed, train, test, chosen, seed),
            "untrained features": tool.probe(tool.model_embedding(new), train, test, chosen, seed),
            "pixels": tool.probe(tool.pixel_embedding, train, test, chosen, seed),
        }
    if as_json:
        rows = {name: {"mean": found.mean, "std": found.std, **found._asdict()} for name, found in results.items()}
        print_json({"path": str(run), "data": data.name, "labels_per_class": labels_per_class, "results": rows})
        return
    _print_probe(data.name, labels_per_class, results)


@app.command()
def filters(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    block: Annotated[int, typer.Option(help="Of the feature maps; negative from the last.")] = -1,
    channels: Annotated[int, typer.Option(help="The first so many of the block.", min=1)] = 6,
    top: Annotated[int, typer.Option(help="Images of each channel.", min=1)] = 6,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="To choose from.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the untrained model.")] = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what channels respond to, by guided backpropagation, trained and untrained (Radford et al. 2016, fig. 5)."""
    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.images import to_float
    from lightning_gen.models.capabilities import HasFeatureMaps
    from lightning_gen.tools import filters as tool
    from lightning_gen.tools.sheets import Panel, sheet
    from lightning_gen.tools.untrained import untrained

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    data = load_data(trained)
    images = to_float(data.reference_set("train", num_images).images.to(trained.model.device))
    rows = []
    for name, model in (("trained", trained.model), ("untrained", untrained(trained.model, images, seed))):
        if not isinstance(model, HasFeatureMaps):
            raise UserError(f"{type(model).__name__} has no feature maps to look into")
        with model.evaluation():
            found = tool.filters(model, images, block, range(channels), top)
        shown = found.patches.shape[1]
        names = [f"channel {channel}" for channel in range(channels)]
        rows.append(
            [
                Panel(f"{name}: strongest responses", found.patches.flatten(0, 1), shown, names),
                Panel("guided gradient", found.gradients.flatten(0, 1), shown),
            ]
        )
    write_picture(output, sheet(rows))
    report(as_json, {"output": str(output), "block": block, "channels": channels, "top": top, "seed": seed})


@app.command()
def modes(
    run: RunOrCheckpoint,
    overrides: Overrides = None,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1)] = 10_000,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Count the classes of samples and compare them with the data's: KL divergence and missing classes."""
    import torch

    from lightning_gen.evaluation import draw_samples, load_data, load_trained
    from lightning_gen.tools.modes import compare_modes

    trained = load_trained(run, overrides or [], device)
    data = load_data(trained)
    classifier = load_classifier(trained, data)
    law = data.label_law
    assert law is not None
    labels: list[Tensor] = []
    draw_samples(trained.model, num_samples, seed, lambda first, images: labels.append(classifier(images)))
    found = compare_modes(torch.cat(labels), law).to_json(classifier.class_names)
    if as_json:
        settings = {"path": str(run), "classifier": classifier.name, "classifier_accuracy": classifier.accuracy}
        print_json({**settings, "num_samples": num_samples, "seed": seed, **found})
        return
    _print_modes(found, num_samples)


def _draw(model: GenerativeModel, number: int, seed: int) -> Tensor:
    """Samples (number, C, H, W) uint8 on the CPU."""
    import torch

    from lightning_gen.evaluation import draw_samples
    from lightning_gen.images import to_uint8

    blocks: list[Tensor] = []
    draw_samples(model, number, seed, lambda first, images: blocks.append(to_uint8(images).cpu()))
    return torch.cat(blocks)


def _held_out(data: ImageDataModule, number: int, rng: torch.Generator) -> Tensor | None:
    """Images that were not trained on, ``number`` of them if there are so many; None for a set without."""
    import torch

    split = "test" if "test" in data.splits else "val" if data.validation_share else None
    if split is None:
        return None
    images = data.reference_set(split)
    return images.subset(torch.randperm(len(images), generator=rng)[:number]).images


def _spaces(space: Space, device: torch.device, extractor: Any) -> dict[str, Embedding]:
    from lightning_gen.tools.neighbors import feature_embedding, pixel_embedding

    spaces: dict[str, Embedding] = {}
    if space is not Space.features:
        spaces["pixels"] = pixel_embedding(device)
    if extractor is not None:
        spaces[f"{extractor.name} features"] = feature_embedding(extractor)
    return spaces


def _other_data(name: str, config: dict[str, Any]) -> ImageDataModule:
    from lightning_gen.configuration import compose_data
    from lightning_gen.data import ImageDataModule
    from lightning_gen.registry import construct

    kept = {key: config["data"][key] for key in ("image_size", "data_dir", "cache_dir")}
    overrides = [f"{key}={value}" for key, value in kept.items()]
    return construct(compose_data(name, overrides), ImageDataModule)  # type: ignore[type-abstract]


def _draw_labelled(
    train: ImageSet, data: ImageDataModule, per_class: int | None, draws: int, seed: int
) -> list[Tensor]:
    import torch

    from lightning_gen.data.labels import labelled_subset

    if train.labels is None:
        raise UserError(f"{data.name} has no classes to probe for: name a set with some by --data")
    if per_class is None:
        return [torch.arange(len(train))]
    return [labelled_subset(train.labels, data.num_classes, per_class, seed + draw) for draw in range(draws)]


def _print_probe(data: str, per_class: int | None, results: dict[str, ProbeResult]) -> None:
    from rich.console import Console
    from rich.table import Table

    labels = "all labels" if per_class is None else f"{per_class} labels a class"
    table = Table("linear SVM on", "dimensions", "test accuracy", "C", title=f"{data}, {labels}", title_justify="left")
    for name, found in results.items():
        spread = "" if found.std is None else f" ± {found.std:.2%}"
        penalties = " ".join(f"{penalty:g}" for penalty in sorted(set(found.penalties)))
        table.add_row(name, f"{found.num_features:,}", f"{found.mean:.2%}{spread}", penalties)
    Console().print(table)


def _print_modes(found: dict[str, Any], num_samples: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "samples", "share", "in the data")
    for name, row in found["classes"].items():
        table.add_row(name, f"{row['samples']:,}", f"{row['samples'] / num_samples:.2%}", f"{row['data']:.2%}")
    Console().print(table)
    kl = "infinite" if found["kl"] is None else f"{found['kl']:.4f} nats"
    print(f"KL(samples || data): {kl}; missing classes: {', '.join(found['missing']) or 'none'}")
