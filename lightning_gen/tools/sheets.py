"""Sheets: grids of images with captions, on white, ready to be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

from lightning_gen.images import display_scale, make_grid, to_pil

GAP = 14
"""White pixels around the panels and between them."""
FRAME = 200
"""Grey level of the lines around images."""


class Panel(NamedTuple):
    """A grid under a caption.

    Attributes:
        caption: one line or several.
        images: (N, C, H, W) uint8, C 1 or 3.
        columns: images in a row; None makes the grid as square as it can be.
        row_names: written left of the rows.
    """

    caption: str
    images: Tensor
    columns: int | None = None
    row_names: Sequence[str] = ()


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
    cells = _frame(panel.images)
    columns = min(panel.columns or math.ceil(math.sqrt(len(cells))), len(cells))
    blank = cells.new_full((-len(cells) % columns, *cells.shape[1:]), 255)
    grid = to_pil(make_grid(torch.cat([cells, blank]), columns, padding=0))
    # The height of a line, whatever letters this one has, so that neighboring grids begin at one height.
    line = int(font.getbbox("Ag")[3]) + 4
    top = line * (panel.caption.count("\n") + 1)
    margin = max((_width(name, font) + 6 for name in panel.row_names), default=0)
    picture = Image.new("RGB", (margin + max(grid.width, _width(panel.caption, font)), top + grid.height), "white")
    draw = ImageDraw.Draw(picture)
    for number, words in enumerate(panel.caption.split("\n")):
        draw.text((margin, number * line), words, fill="black", font=font)
    pitch = cells.shape[-2]
    for row, name in enumerate(panel.row_names):
        draw.text((0, top + row * pitch + (pitch - line) // 2), name, fill="black", font=font)
    picture.paste(grid, (margin, top))
    return picture


def _frame(images: Tensor) -> Tensor:
    """RGB images, enlarged, each in a thin light grey frame, which shows between dark images and between white ones."""
    scale = display_scale(images.shape[-1])
    enlarged = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return pad(enlarged.expand(-1, 3, -1, -1), [1, 1, 1, 1], value=FRAME)


def _width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return max(int(font.getbbox(line)[2]) for line in text.split("\n")) + 1
