"""Pictures inside a page: the newest grids of runs, within a bounded number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

LONGEST_SIDE = 720
"""Pixels of a picture in a page; longer ones are made smaller."""

MAX_BYTES = 24_000_000
"""Of all pictures of a page together, before base64."""

KINDS = {"samples": "samples", "interpolations": "interpolation", "reconstructions": "reconstructions"}
"""Folders of a run directory, and what a picture in them is called."""


@dataclass(frozen=True)
class Picture:
    """One picture of a run.

    Attributes:
        kind: ``samples``, ``interpolation`` or ``reconstructions``.
        images_seen: when it was drawn, from its name; None for another name.
        width: in pixels.
        height: in pixels.
        uri: ``data:image/png;base64,...``.
    """

    kind: str
    images_seen: int | None
    width: int
    height: int
    uri: str


def png_uri(content: bytes) -> str:
    """A data URI of the bytes of a PNG file."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def read_png(path: Path, longest_side: int = LONGEST_SIDE) -> tuple[bytes, tuple[int, int]] | None:
    """A PNG file and its (width, height), made smaller if a side is longer; None if it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            picture.load()
            if max(picture.size) <= longest_side:
                return content, picture.size
            smaller = picture.convert("RGB" if picture.mode not in ("L", "RGB") else picture.mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    smaller.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    smaller.save(file, format="PNG", optimize=True)
    return file.getvalue(), smaller.size


def collect_pictures(
    folders: Iterable[Path], max_bytes: int = MAX_BYTES
) -> tuple[dict[Path, list[Picture]], Sequence[Path]]:
    """The newest picture of each kind of each run.

    Args:
        folders: run directories, those first whose pictures matter most.
        max_bytes: of all of them together.

    Returns:
        The pictures of the runs that have some, and the runs whose pictures would have gone over ``max_bytes``.
    """
    found: dict[Path, list[Picture]] = {}
    left_out: list[Path] = []
    used = 0
    for folder in folders:
        newest = {kind: max((folder / name).glob("*[0-9].png"), default=None) for name, kind in KINDS.items()}
        if left_out:  # the room is used up: what follows is counted without being read
            left_out += [folder] if any(newest.values()) else []
            continue
        read = [(kind, path, read_png(path)) for kind, path in newest.items() if path is not None]
        pictures, size = [], 0
        for kind, path, content in read:
            if content is not None:
                data, (width, height) = content
                size += len(data)
                seen = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else None
                pictures.append(Picture(kind, seen, width, height, png_uri(data)))
        if used + size > max_bytes:
            left_out.append(folder)
        elif pictures:
            found[folder] = pictures
            used += size
    return found, left_out
