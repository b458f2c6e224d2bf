"""What diffusion models do to images, on sheets: noise, denoising, guidance, inpainting and edits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_gen.diffusion.film import Film
from lightning_gen.diffusion.schedules import Level
from lightning_gen.images import to_uint8
from lightning_gen.models.capabilities import Diffuses, Guides
from lightning_gen.seeds import make_rng
from lightning_gen.tools.sheets import Panel, sheet

Hidden = Literal["left", "right", "top", "bottom", "center", "outer"]

GREY = 128
"""Of hidden pixels."""


def log_snr(level: Level[float]) -> float:
    """ln(alpha^2 / sigma^2), infinite where there is no noise or nothing else."""
    if level.sigma == 0:
        return math.inf
    return -math.inf if level.alpha == 0 else 2 * math.log(level.alpha / level.sigma)


def noising(model: Diffuses, images: Tensor, columns: int, seed: int) -> tuple[list[Panel], list[float]]:
    """Images at evenly spaced times from 0 to 1, a row an image.

    Args:
        model: call within `evaluation`.
        images: (N, C, H, W) in [-1, 1].
        columns: number of times, at least 2.
        seed: of the noise, the same along a row.

    Returns:
        A panel for each time, and the times' log-SNR.
    """
    times = [index / (columns - 1) for index in range(columns)]
    film = model.noised(images, times, generator=make_rng("noising", seed))
    ratios = [log_snr(level) for level in film.levels]
    captions = [f"t = {time:.2f}\n{_ratio(ratio)}" for time, ratio in zip(times, ratios, strict=True)]
    return _columns(film.noisy, captions), ratios


def denoising_strip(film: Film) -> list[list[Panel]]:
    """Two rows of panels: the noisy states of samples, a row a sample, and the estimates of the images in them."""
    captions = [_ratio(log_snr(level)) for level in film.levels]
    blocks = ("state", film.noisy), ("estimate", film.images)
    return [_columns(images, [f"{name}\n{caption}" for caption in captions]) for name, images in blocks]


def denoising_frames(film: Film, hold: int = 15) -> list[Tensor]:
    """Frames (3, H', W') uint8 of a film, states beside estimates; the last is there ``hold`` times."""
    pairs = zip(to_uint8(film.noisy).cpu(), to_uint8(film.images).cpu(), strict=True)
    frames = [sheet([[Panel("state", noisy), Panel("estimate", images)]]) for noisy, images in pairs]
    return [*frames, *[frames[-1]] * (hold - 1)]


def guided(model: Guides, scales: Sequence[float], labels: Tensor, seed: int) -> list[Tensor]:
    """Samples (N, C, H, W) uint8 for every guidance scale, of the same noise and labels (N,).

    Args:
        model: call within `evaluation`; it keeps its own scale.
        scales: of guidance.
        labels: of the samples.
        seed: of the noise.

    Raises:
        UserError: a scale that the model was not trained for.
    """
    own, blocks = model.guidance_scale, []
    try:
        for scale in scales:
            model.guidance_scale = scale
            images = model.sample(len(labels), labels, generator=make_rng("guidance", seed))
            blocks.append(to_uint8(images).cpu())
    finally:
        model.guidance_scale = own
    return blocks


def known_pixels(hidden: Hidden, height: int, width: int) -> Tensor:
    """Where pixels are known, (height, width) bool, if a part is hidden.

    Args:
        hidden: a half; the ``center``, half as high and as wide as the image; or all but that.
        height: of images.
        width: of images.
    """
    known = torch.ones(height, width, dtype=torch.bool)
    middle = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    parts = {
        "left": (slice(None), slice(width // 2)),
        "right": (slice(None), slice(width // 2, None)),
        "top": (slice(height // 2), slice(None)),
        "bottom": (slice(height // 2, None), slice(None)),
    }
    known[parts.get(hidden, middle)] = False
    return ~known if hidden == "outer" else known


def inpainting(
    model: Diffuses, images: Tensor, labels: Tensor | None, known: Tensor, draws: int, resamples: int, seed: int
) -> list[Panel]:
    """Images, what is known of them, and several ways to fill the rest, a row an image.

    Args:
        model: call within `evaluation`.
        images: (N, C, H, W) in [-1, 1].
        labels: (N,), or None.
        known: (H, W) bool.
        draws: ways to fill the rest.
        resamples: how often each step is taken.
        seed: of the noise.

    Raises:
        UserError: a sampler that cannot inpaint.
    """
    each = None if labels is None else labels.repeat_interleave(draws)
    filled = model.inpaint(
        images.repeat_interleave(draws, 0),
        known.to(images.device),
        each,
        resamples=resamples,
        generator=make_rng("inpaint", seed),
    )
    shown = to_uint8(images).cpu()
    return [
        Panel("image", shown, 1),
        Panel("known", torch.where(known, shown, GREY), 1),
        Panel("filled", to_uint8(filled).cpu(), draws),
    ]


def edits(model: Diffuses, images: Tensor, labels: Tensor | None, strengths: Sequence[float], seed: int) -> list[Panel]:
    """Images, and what becomes of them at each strength with the same noise, a row an image.

    Args:
        model: call within `evaluation`.
        images: (N, C, H, W) in [-1, 1].
        labels: (N,) of the edited images, or None.
        strengths: in [0, 1].
        seed: of the noise.

    Raises:
        UserError: another strength.
    """
    shown = to_uint8(images).cpu()
    panels = [Panel("image", shown, 1)]
    for strength in strengths:
        edited = model.edit(images, strength, labels, generator=make_rng("edit", seed))
        panels.append(Panel(f"{strength:g}", to_uint8(edited).cpu(), 1))
    return panels


def _columns(images: Tensor, captions: Sequence[str]) -> list[Panel]:
    """A panel of one column for each of the first dimension of (F, N, C, H, W)."""
    return [Panel(caption, to_uint8(column).cpu(), 1) for caption, column in zip(captions, images, strict=True)]


def _ratio(log_ratio: float) -> str:
    if math.isinf(log_ratio):
        return "image" if log_ratio > 0 else "noise"
    # Adding 0 makes 0 of -0.
    return f"log-SNR {round(log_ratio, 1) + 0.0:.1f}"
