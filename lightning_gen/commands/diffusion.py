"""``lightning-gen diffusion ...``: how a model turns images into noise and noise into images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightning_gen.commands.shared import (
    Device,
    Force,
    Json,
    Overrides,
    Picture,
    RunOrCheckpoint,
    SamplerName,
    check_free,
    check_picture,
    parse_numbers,
    report,
    write,
    write_picture,
)
from lightning_gen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_gen.evaluation import Trained
    from lightning_gen.models.capabilities import Diffuses

app = typer.Typer(help="Look at how a diffusion model makes, edits and completes images.", no_args_is_help=True)

NumImages = Annotated[int, typer.Option("--num-images", "-n", help="Images, one a row.", min=1)]
Split = Annotated[str, typer.Option(help="Of the run's data set: its first images are taken.")]
Steps = Annotated[int | None, typer.Option(help="Of the sampler.")]
GuidanceScale = Annotated[float | None, typer.Option(help="Of a model with labels, 1 for none.")]
NoiseSeed = Annotated[int, typer.Option("--seed", help="Of the noise.")]


class Hidden(StrEnum):
    """The part of an image that is filled."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"
    CENTER = "center"
    OUTER = "outer"


@app.command()
def noising(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    num_images: NumImages = 6,
    columns: Annotated[int, typer.Option(help="Times from 0 to 1.", min=2)] = 11,
    split: Split = "test",
    seed: NoiseSeed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what noise makes of images as time goes on."""
    from lightning_gen.evaluation import load_trained
    from lightning_gen.tools import diffusion as tool
    from lightning_gen.tools.sheets import sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    model = _diffusion(trained)
    images, _ = _images(trained, split, num_images)
    with trained.model.evaluation():
        panels, ratios = tool.noising(model, images, columns, seed)
    write_picture(output, sheet([panels]))
    # JSON has no infinity.
    finite = [ratio if abs(ratio) < float("inf") else None for ratio in ratios]
    report(as_json, {"output": str(output), "num_images": len(images), "log_snr": finite, "seed": seed})


@app.command()
def denoising(
    run: RunOrCheckpoint,
    output: Annotated[Path, typer.Option("--output", "-o", help="A PNG or GIF file.", show_default=False)],
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Samples, one a row.", min=1)] = 6,
    frames: Annotated[
        int | None, typer.Option(help="States, at evenly spaced steps.", show_default="11, 51 for a GIF", min=2)
    ] = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    seed: NoiseSeed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show samples on their way from noise, and the model's estimates of them."""
    from lightning_gen.callbacks.pictures import grid_labels
    from lightning_gen.evaluation import Sampling, load_trained
    from lightning_gen.images import save_gif
    from lightning_gen.seeds import make_rng
    from lightning_gen.tools import diffusion as tool
    from lightning_gen.tools.sheets import sheet

    suffix = output.suffix.lower()
    if suffix not in (".png", ".gif"):
        raise UserError(f"--output must be a .png or .gif file, not {output}")
    check_free(output, force)
    trained = load_trained(run, device=device)
    model = _diffusion(trained)
    Sampling(sampler, steps, guidance_scale).apply(trained.model)
    labels, _ = grid_labels(trained.model, num_samples)
    number = frames or (51 if suffix == ".gif" else 11)
    with trained.model.evaluation():
        film = model.film(num_samples, number, labels, generator=make_rng("denoising", seed))
    if suffix == ".png":
        write_picture(output, sheet(tool.denoising_strip(film)))
    else:
        pictures = tool.denoising_frames(film)
        write(output, lambda path: save_gif(pictures, path))
    result = {"output": str(output), "num_samples": num_samples, "frames": len(film.levels), "seed": seed}
    report(as_json, {**result, "sampler": trained.model.sampler_settings()})


@app.command()
def guidance(
    run: RunOrCheckpoint,
    output: Picture,
    scales: Annotated[str, typer.Option(help="0 without labels, 1 without guidance.")] = "0,1,2,4",
    rows: Annotated[int, typer.Option(help="Samples of each class.", min=1)] = 4,
    sampler: SamplerName = None,
    steps: Steps = None,
    seed: NoiseSeed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show the same noise and labels at several guidance scales (Ho and Salimans 2022), classes as columns."""
    import torch

    from lightning_gen.callbacks.pictures import WIDEST
    from lightning_gen.evaluation import Sampling, load_trained
    from lightning_gen.models.capabilities import Guides
    from lightning_gen.tools import diffusion as tool
    from lightning_gen.tools.sheets import Panel, sheet

    check_picture(output, force)
    values = parse_numbers(scales, float, "--scales")
    model = load_trained(run, device=device).model
    if not isinstance(model, Guides):
        raise UserError(f"{type(model).__name__} has no guidance")
    if model.label_law is None:
        raise UserError("guidance needs a model with labels: train one with model.conditional=true")
    Sampling(sampler, steps).apply(model)
    columns = min(len(model.label_law), WIDEST)
    with model.evaluation():
        blocks = tool.guided(model, values, torch.arange(columns, device=model.device).repeat(rows), seed)
    names = (f"guidance scale {value:g}" for value in values)
    panels = [Panel(name, images, columns) for name, images in zip(names, blocks, strict=True)]
    write_picture(output, sheet([panels[first : first + 2] for first in range(0, len(panels), 2)]))
    report(as_json, {"output": str(output), "scales": values, "rows": rows, "classes": columns, "seed": seed})


@app.command()
def inpaint(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    mask: Annotated[Hidden, typer.Option(help="The part that is filled.")] = Hidden.RIGHT,
    resamples: Annotated[int, typer.Option(help="How often each step is taken.", min=1)] = 5,
    draws: Annotated[int, typer.Option(help="Ways to fill each image.", min=1)] = 4,
    num_images: NumImages = 6,
    split: Split = "test",
    sampler: SamplerName = None,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    seed: NoiseSeed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fill a part of images, given the rest (RePaint, Lugmayr et al. 2022)."""
    from lightning_gen.evaluation import Sampling, load_trained
    from lightning_gen.tools import diffusion as tool
    from lightning_gen.tools.sheets import sheet

    check_picture(output, force)
    trained = load_trained(run, overrides or [], device)
    model = _diffusion(trained)
    Sampling(sampler, steps, guidance_scale).apply(trained.model)
    images, labels = _images(trained, split, num_images)
    known = tool.known_pixels(mask.value, *images.shape[2:])
    with trained.model.evaluation():
        panels = tool.inpainting(model, images, labels, known, draws, resamples, seed)
    write_picture(output, sheet([panels]))
    result = {"output": str(output), "num_images": len(images), "mask": mask.value, "resamples": resamples}
    report(as_json, {**result, "draws": draws, "seed": seed, "sampler": trained.model.sampler_settings()})


@app.command()
def edit(
    run: RunOrCheckpoint,
    output: Picture,
    overrides: Overrides = None,
    strength: Annotated[str, typer.Option(help="Times: 0 keeps the image, 1 samples anew.")] = "0.3,0.5,0.7",
    label: Annotated[
        int | None, typer.Option(help="Class of the results.", show_default="the image's own", min=0)
    ] = None,
    num_images: NumImages = 6,
    split: Split = "test",
    sampler: SamplerName = None,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    seed: NoiseSeed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Noise images up to a time and denoise them from there (SDEdit, Meng et al. 2022)."""
    import torch

    from lightning_gen.evaluation import Sampling, load_trained
    from lightning_gen.tools import diffusion as tool
    from lightning_gen.tools.sheets import sheet

    check_picture(output, force)
    strengths = parse_numbers(strength, float, "--strength")
    trained = load_trained(run, overrides or [], device)
    model = _diffusion(trained)
    Sampling(sampler, steps, guidance_scale).apply(trained.model)
    law = trained.model.label_law
    if label is not None and law is None:
        raise UserError("The model has no labels: leave --label out")
    if label is not None and law is not None and label >= len(law):
        raise UserError(f"--label goes from 0 to {len(law) - 1}, not {label}")
    images, labels = _images(trained, split, num_images)
    if label is not None:
        labels = torch.full((len(images),), label, device=images.device)
    with trained.model.evaluation():
        panels = tool.edits(model, images, labels, strengths, seed)
    write_picture(output, sheet([panels]))
    result = {"output": str(output), "num_images": len(images), "strengths": strengths, "label": label, "seed": seed}
    report(as_json, {**result, "sampler": trained.model.sampler_settings()})


def _diffusion(trained: Trained) -> Diffuses:
    """The model, as one that turns noise into images.

    Raises:
        UserError: it does not.
    """
    from lightning_gen.models.capabilities import Diffuses

    if not isinstance(trained.model, Diffuses):
        raise UserError(f"{type(trained.model).__name__} does not make images from noise step by step")
    return trained.model


def _images(trained: Trained, split: str, number: int) -> tuple[Tensor, Tensor | None]:
    """The first images (N, C, H, W) of a split in [-1, 1], and the labels (N,) that a conditional model takes."""
    from lightning_gen.evaluation import load_data
    from lightning_gen.images import to_float

    model = trained.model
    chosen = load_data(trained).reference_set(split, number)
    labels = None if model.label_law is None or chosen.labels is None else chosen.labels.to(model.device)
    return to_float(chosen.images.to(model.device)), labels
