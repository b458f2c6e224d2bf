"""The command ``lightning-gen``. Torch is imported only by the commands that compute."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lightning_gen.commands import (
    averages,
    boards,
    codes,
    diffusion,
    extractors,
    label_board,
    scores,
    studies,
    sweeps,
    translation,
    walks,
)
from lightning_gen.commands.shared import (
    Device,
    Force,
    Json,
    RunOrCheckpoint,
    SamplerName,
    Seed,
    check_free,
    print_json,
    report,
    write,
)
from lightning_gen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_gen.evaluation import Trained

app = typer.Typer(
    help="Sample from, score and compare the generative models that you trained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(scores.app)
app.add_typer(translation.app)
app.add_typer(boards.app)
app.add_typer(label_board.app)
app.add_typer(averages.app)
app.add_typer(studies.app)
app.add_typer(sweeps.app)
app.add_typer(walks.app, name="latents")
app.add_typer(codes.app, name="codes")
app.add_typer(diffusion.app, name="diffusion")
app.add_typer(extractors.app, name="extractor")


def main() -> None:
    """Console entry: one line and status 2 for mistakes of the user."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train a model: the same as `python train.py`, for an installed package."""
    command = [sys.executable, "-m", "lightning_gen.training", *context.args]
    os.execv(sys.executable, command)


@app.command()
def sample(
    run: RunOrCheckpoint,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A PNG file for a grid, a folder for one PNG each, or an .npz file."),
    ],
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1)] = 64,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Samples of classes with their labels, to train on: data.generated.path.")
    ] = False,
    sampler: SamplerName = None,
    steps: Annotated[int | None, typer.Option(help="Of the sampler.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Of a diffusion model with labels, 1 for none.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw samples from a run or checkpoint."""
    from lightning_gen.evaluation import Sampling, draw_labelled, draw_samples, load_trained
    from lightning_gen.images import display_scale, make_grid, save_png, to_uint8

    suffix = output.suffix.lower()
    if labelled and suffix == ".png":
        raise UserError("--labelled needs a folder or an .npz file as --output: a grid holds no labels")
    check_free(output if suffix in (".png", ".npz") or labelled else output / "000000.png", force)
    trained = load_trained(run, device=device)
    model = trained.model
    Sampling(sampler, steps, guidance_scale).apply(model)
    blocks: list[Tensor] = []
    labels: list[Tensor] = []

    def keep(first: int, images: Tensor, classes: Tensor | None = None) -> None:
        del first
        blocks.append(to_uint8(images).cpu())
        if classes is not None:
            labels.append(classes.cpu())

    def save(first: int, images: Tensor) -> None:
        for index, image in enumerate(to_uint8(images), start=first):
            write(output / f"{index:06d}.png", partial(save_png, image))

    if labelled:
        draw_labelled(model, num_samples, seed, keep)
        _save_labelled(output, blocks, labels, trained)
    elif suffix in (".png", ".npz"):
        draw_samples(model, num_samples, seed, keep)
        if suffix == ".npz":
            _save_labelled(output, blocks, None, trained)
        else:
            write(output, lambda path: save_png(_grid(blocks, make_grid), path, display_scale(blocks[0].shape[-1])))
    else:
        draw_samples(model, num_samples, seed, save)
    report(as_json, {"output": str(output), "num_samples": num_samples, "seed": seed})


@app.command()
def interpolate(
    run: RunOrCheckpoint,
    output: Annotated[Path, typer.Option("--output", "-o", help="A PNG file for strips, or a GIF file for a walk.")],
    rows: Annotated[int, typer.Option(help="Pairs of latents.", min=1)] = 6,
    steps: Annotated[int, typer.Option(help="Images in a row, or frames of the GIF.", min=2)] = 10,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Walk through the latent space of a run or checkpoint."""
    from lightning_gen.callbacks.pictures import interpolation_frames, interpolation_strip, walk_ends
    from lightning_gen.evaluation import load_trained
    from lightning_gen.images import display_scale, save_gif, save_png
    from lightning_gen.models.capabilities import Latents
    from lightning_gen.seeds import make_rng

    if output.suffix.lower() not in (".png", ".gif"):
        raise UserError(f"--output must be a .png or .gif file, not {output}")
    check_free(output, force)
    model = load_trained(run, device=device).model
    if not isinstance(model, Latents):
        raise UserError(f"{type(model).__name__} has no latents to walk between")
    with model.evaluation():
        latents, labels = walk_ends(model, rows, make_rng("interpolation", seed))
        if output.suffix.lower() == ".png":
            strip = interpolation_strip(model, latents, steps, labels)
            write(output, lambda path: save_png(strip, path, display_scale(strip.shape[-1] // steps)))
        else:
            frames = interpolation_frames(model, latents, steps, labels)
            write(output, lambda path: save_gif(list(frames), path, 2 * display_scale(frames.shape[-1])))
    report(as_json, {"output": str(output), "rows": rows, "steps": steps, "seed": seed})


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set: an option of configs/data.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value options of the set, as image_size=64.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A PNG file for a grid.", show_default="NAME.png")
    ] = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="In the grid.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="Of their choice.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Download, verify and describe a data set, and draw a grid of it, e.g. `data cifar10 paths.data_dir=FOLDER`."""
    from lightning_gen.configuration import compose_data
    from lightning_gen.data import ImageDataModule
    from lightning_gen.data.description import describe_data, picture, render
    from lightning_gen.images import display_scale, save_png
    from lightning_gen.registry import construct

    output = output or Path(f"{name}.png")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output must be a .png file, not {output}")
    check_free(output, force)
    module = construct(compose_data(name, overrides or []), ImageDataModule)  # type: ignore[type-abstract]
    facts = describe_data(module)
    grid = picture(module, num_images, seed)
    write(output, lambda path: save_png(grid, path, display_scale(module.image_size)))
    facts["output"] = str(output)
    if as_json:
        print_json(facts)
        return
    Console().print(render(facts))
    print(output)


def _save_labelled(output: Path, blocks: list[Tensor], labels: list[Tensor] | None, trained: Trained) -> None:
    """Samples, with their classes if there are any, as an .npz file or in a folder for each class."""
    import torch

    from lightning_gen.data.generated import write_arrays, write_class_folders
    from lightning_gen.evaluation import load_data

    images = torch.cat(blocks)
    classes = None if labels is None else torch.cat(labels)
    if output.suffix.lower() == ".npz":
        write(output, lambda path: write_arrays(path, images, classes))
    else:
        assert classes is not None
        names = load_data(trained).class_names
        write(output, lambda path: write_class_folders(path, images, classes, names))


def _grid(blocks: list[Tensor], make_grid: Callable[[Tensor], Tensor]) -> Tensor:
    import torch

    return make_grid(torch.cat(blocks))


if __name__ == "__main__":
    main()
