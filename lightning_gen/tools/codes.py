"""What a model's codes tell of images: points of a plane, coloured by class, and all of a space of two latents."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Encodes, Latents
from lightning_gen.tools.latents import decode

BLOCK_SIZE = 250
SCATTER_SIZE = 640
"""Pixels of a side of a scatter plot."""
MARGIN = 16
QUANTILE_DRAWS = 10_000

Method = Literal["pca", "tsne"]

COLORS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c7a00", "#000000", "#999999", "#882255"]
"""The colours of Okabe and Ito 2008, which can be told apart with any colour vision, the yellow darkened for white; and
two more, which make ten."""


def encode(model: GenerativeModel, images: ImageSet) -> Tensor:
    """Codes (N, D) float32 on the CPU of all images; call within `evaluation`.

    Raises:
        UserError: the model has no codes.
    """
    if not isinstance(model, Encodes):
        raise UserError(f"{type(model).__name__} does not encode images")
    parts = []
    for first in range(0, len(images), BLOCK_SIZE):
        block = slice(first, first + BLOCK_SIZE)
        labels = None if images.labels is None else images.labels[block].to(model.device)
        parts.append(model.encode(to_float(images.images[block].to(model.device)), labels).float().cpu())
    return torch.cat(parts)


def project(codes: Tensor, method: Method, seed: int) -> Tensor:
    """Points (N, 2) of codes (N, D), D >= 2: their first two principal components, or t-SNE begun there.

    t-SNE (van der Maaten and Hinton 2008) has perplexity 30, or less where there are fewer than a hundred codes.

    Raises:
        UserError: too few codes or dimensions.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(codes) < 4 or codes.shape[1] < 2:
        raise UserError(f"{len(codes)} codes of {codes.shape[1]} numbers make no scatter plot: at least 4 of 2 do")
    if method == "pca":
        points = PCA(2, svd_solver="full").fit_transform(codes.double().numpy())
    else:
        perplexity = min(30.0, (len(codes) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(codes.numpy())
    return torch.from_numpy(np.ascontiguousarray(points)).float()


def scatter(points: Tensor, labels: Tensor | None, names: Sequence[str]) -> Tensor:
    """A picture of points, coloured by class, with a legend.

    Args:
        points: (N, 2), the second coordinate upward; both axes have one scale.
        labels: (N,) int64, or None for one colour.
        names: of the classes; used with labels alone.

    Returns:
        (3, H, W) uint8.
    """
    font = ImageFont.load_default(13)
    legend = list(names) if labels is not None else []
    width = max((int(font.getbbox(name)[2]) for name in legend), default=-MARGIN - 18) + 18 + MARGIN
    page = Image.new("RGB", (SCATTER_SIZE + width, SCATTER_SIZE), "white")
    draw = ImageDraw.Draw(page)
    low, high = points.amin(0), points.amax(0)
    scale = (SCATTER_SIZE - 2 * MARGIN) / max(float((high - low).max()), 1e-12)
    places = (points - (low + high) / 2) * scale * torch.tensor([1.0, -1.0]) + SCATTER_SIZE / 2
    radius = 2 if len(points) > 500 else 3
    colors = palette(max(1, len(legend)))
    classes = torch.zeros(len(points), dtype=torch.int64) if labels is None else labels
    for (x, y), label in zip(places.tolist(), classes.tolist(), strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colors[label])
    for row, name in enumerate(legend):
        top = MARGIN + 18 * row
        draw.ellipse((SCATTER_SIZE, top + 3, SCATTER_SIZE + 9, top + 12), fill=colors[row])
        draw.text((SCATTER_SIZE + 18, top), name, fill="black", font=font)
    return torch.from_numpy(np.array(page)).permute(2, 0, 1)


def palette(number: int) -> list[str]:
    """So many colours: `COLORS`, or a wheel of hues, light and dark in turn, where they are not enough."""
    if number <= len(COLORS):
        return COLORS[:number]
    wheel = [colorsys.hls_to_rgb(index / number, (0.4, 0.6)[index % 2], 0.8) for index in range(number)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in wheel]


def manifold(model: GenerativeModel, steps: int, label: int | None, rng: torch.Generator) -> Tensor:
    """What a model with two latents makes of a grid of them, the first from left to right, the second upward.

    Kingma and Welling 2013, figure 4: the grid is evenly spaced in probability, at the quantiles 0.5 / steps, 1.5 /
    steps, ... of each latent under the law that samples are made of.

    Args:
        model: with `Latents`; call within `evaluation`.
        steps: images in a row and in a column.
        label: class of a conditional model.
        rng: draws the latents whose quantiles are taken.

    Returns:
        (steps * steps, C, H, W) uint8 on the CPU, row by row.

    Raises:
        UserError: the latents are not two.
    """
    if not isinstance(model, Latents):
        raise UserError(f"{type(model).__name__} has no latents")
    drawn = model.sample_latents(QUANTILE_DRAWS, generator=rng)
    if drawn.shape[1] != 2:
        raise UserError(f"The model has {drawn.shape[1]} latents: train one with model.latent_dim=2")
    at = ((torch.arange(steps) + 0.5) / steps).to(drawn)
    across, up = torch.quantile(drawn, at, dim=0).T
    grid = torch.cartesian_prod(up.flip(0), across).flip(1)
    labels = None if label is None else torch.full((len(grid),), label, device=grid.device)
    return decode(model, grid, labels)
