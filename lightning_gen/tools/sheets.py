"""Sheets: grids of images with captions, on white, ready to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_gen.images import display_scale, make_grid, to_pil

GAP = 14
"""White pixels around the panels and between them."""


class Panel(NamedTuple):
    """A grid under a caption.

    Attributes:
        caption: one line.
        images: (N, C, H, W) uint8, C 1 or 3.
        columns: images in a row; None makes the grid as square as it can be.
    """

    caption: str
    images: Tensor
    columns: int | None = None


def sheet(rows: Sequence[Sequence[Panel]]) -> Tensor:
    """One picture of panels, row by row; small images are enlarged.

    Returns:
        (3, H', W') uint8.
    """
    font = ImageFont.load_default(13)
    drawn = [[_draw(panel, font) for panel in row] for row in rows]
    width = max(sum(panel.width + GAP for panel in row) for row in drawn) + GAP
    height = sum(max(panel.height for panel in row) + GAP for row in drawn) + GAP
    page = Image.new("RGB", (width, height), "white")
    top = GAP
    for row in drawn:
        left = GAP
        for panel in row:
            page.paste(panel, (left, top))
            left += panel.width + GAP
        top += max(panel.height for panel in row) + GAP
    return torch.from_numpy(np.array(page)).permute(2, 0, 1)


def _draw(panel: Panel, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    grid = to_pil(make_grid(panel.images, panel.columns))
    scale = display_scale(panel.images.shape[-1])
    grid = grid.resize((grid.width * scale, grid.height * scale), Image.Resampling.NEAREST)
    _, _, right, _ = font.getbbox(panel.caption)
    # The height of a line, whatever letters this one has, so that neighboring grids begin at one height.
    line = int(font.getbbox("Ag")[3]) + 4
    picture = Image.new("RGB", (max(grid.width, int(right) + 1), line + grid.height), "white")
    ImageDraw.Draw(picture).text((0, 0), panel.caption, fill="black", font=font)
    picture.paste(grid, (0, line))
    return picture
