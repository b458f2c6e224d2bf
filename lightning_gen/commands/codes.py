"""``lightning-gen codes ...``: what a model that encodes images makes of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

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
    report,
    write_picture,
)
from lightning_gen.errors import UserError

app = typer.Typer(help="Look at how a model encodes and decodes images.", no_args_is_help=True)

Split = Annotated[str, typer.Option(help="Of the run's data set: its first images are taken.")]


class Projection(StrEnum):
    """How codes become points of a plane."""

    pca = "pca"
    tsne = "tsne"


@app.command()
def reconstructions(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", min=1)] = 64,
    columns: Annotated[int, typer.Option(help="Images in a row.", min=1)] = 16,
    split: Split = "test",
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show images, and below each its reconstruction."""
    from lightning_gen.callbacks.reconstructions import reconstruction_grid
    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.images import to_float, to_uint8
    from lightning_gen.models.capabilities import Reconstructs
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    model = trained.model
    if not isinstance(model, Reconstructs):
        raise UserError(f"{type(model).__name__} does not reconstruct images")
    chosen = load_data(trained).reference_set(split, num_images)
    pixels = to_float(chosen.images.to(model.device))
    labels = None if chosen.labels is None else chosen.labels.to(model.device)
    with model.evaluation():
        found = model.reconstruct(pixels, labels)
    error = float((found - pixels).square().mean())
    grid = reconstruction_grid(chosen.images, to_uint8(found).cpu(), columns)
    write_picture(output, sheet([[Panel("images, and below each row what became of them", grid[None])]]))
    report(as_json, {"output": str(output), "num_images": len(pixels), "split": split, "mean_squared_error": error})


@app.command()
def scatter(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    method: Annotated[Projection, typer.Option(help="Principal components, or t-SNE.")] = Projection.pca,
    num_images: Annotated[int, typer.Option("--num-images", "-n", min=4)] = 1000,
    split: Split = "test",
    seed: Annotated[int, typer.Option(help="Of t-SNE.")] = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw the codes of images as points of a plane, coloured by class."""
    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.tools import codes as tool

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    data = load_data(trained)
    chosen = data.reference_set(split, num_images)
    with trained.model.evaluation():
        codes = tool.encode(trained.model, chosen)
    points = codes if codes.shape[1] == 2 else tool.project(codes, method.value, seed)
    write_picture(output, tool.scatter(points, chosen.labels, data.class_names))
    method_name = "none" if codes.shape[1] == 2 else method.value
    report(as_json, {"output": str(output), "num_images": len(codes), "split": split, "method": method_name})


@app.command()
def manifold(
    run: RunOrCheckpoint,
    output: Picture,
    steps: Annotated[int, typer.Option(help="Images in a row and in a column.", min=2)] = 20,
    label: Annotated[int, typer.Option(help="Class of a conditional model.", min=0)] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what a model with two latents makes of all of them (Kingma and Welling 2013, figure 4)."""
    from lightning_gen.evaluation import load_trained
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools import codes as tool
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    model = load_trained(run, device=device).model
    law = model.label_law
    if law is not None and label >= len(law):
        raise UserError(f"--label goes from 0 to {len(law) - 1}, not {label}")
    with model.evaluation():
        images = tool.manifold(model, steps, None if law is None else label, make_rng("manifold", seed))
    caption = "first latent from left to right, second upward"
    write_picture(output, sheet([[Panel(caption, images, steps)]]))
    report(as_json, {"output": str(output), "steps": steps, "seed": seed})


@app.command()
def interpolate(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(help="Pairs of images, one a row.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="Images in a row, the ends not counted.", min=2)] = 9,
    split: Split = "test",
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Walk straight from the code of one image to that of another; both images stand at the ends of their row."""
    import torch

    from lightning_gen.evaluation import load_data, load_trained
    from lightning_gen.models.capabilities import Latents
    from lightning_gen.tools import codes as tool
    from lightning_gen.tools.latents import decode
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    model = trained.model
    if not isinstance(model, Latents):
        raise UserError(f"{type(model).__name__} has no latents to walk between")
    if model.label_law is not None:
        raise UserError("The model is conditional, and two images may be of two classes: use `latents class-means`")
    chosen = load_data(trained).reference_set(split, 2 * rows)
    images = chosen.images[: len(chosen) // 2 * 2]
    with model.evaluation():
        codes = tool.encode(model, chosen)[: len(images)].to(model.device)
        weights = torch.linspace(0, 1, steps, device=codes.device)[:, None, None]
        walks = torch.lerp(codes[0::2], codes[1::2], weights).transpose(0, 1)
        decoded = decode(model, walks.flatten(0, 1)).unflatten(0, (-1, steps))
    strips = torch.cat([images[0::2, None], decoded, images[1::2, None]], 1)
    caption = "images at the ends; between them the walk from one code to the other, decoded"
    write_picture(output, sheet([[Panel(caption, strips.flatten(0, 1), steps + 2)]]))
    report(as_json, {"output": str(output), "rows": len(strips), "steps": steps, "split": split})
