"""Real image files for tests, in every format that is read, with colours that tell where each part came from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
QUARTERS = (RED, GREEN, BLUE, WHITE)
ORIENTATION = 0x0112
LSUN_MAP_SIZE = 2**22


def quarters(height: int = 32, width: int = 32, colours: Sequence[tuple[int, ...]] = QUARTERS) -> np.ndarray:
    """(H, W, C) uint8 with colours top left, top right, bottom left and bottom right: red, green, blue and white."""
    pixels = np.empty((height, width, len(colours[0])), np.uint8)
    middle, centre = height // 2, width // 2
    pixels[:middle, :centre], pixels[:middle, centre:] = colours[0], colours[1]
    pixels[middle:, :centre], pixels[middle:, centre:] = colours[2], colours[3]
    return pixels


def noise(height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(H, W, C) uint8, every pixel different from its neighbours; (H, W) for one channel."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def plain(level: int, height: int = 8, width: int = 8) -> np.ndarray:
    """(H, W, 3) uint8, grey of one level, by which the image is recognised."""
    return np.full((height, width, 3), level, np.uint8)


def encode(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """An encoded image of a format of Pillow (``JPEG``, ``PNG``, ...)."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    """Write a file, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def exif(orientation: int) -> Image.Exif:
    """EXIF data with nothing but an orientation, 1 to 8."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


def write_jpeg(path: Path, pixels: np.ndarray | None = None, orientation: int | None = None, **options: Any) -> Path:
    """A JPEG, RGB for (H, W, 3), grey for (H, W)."""
    if orientation is not None:
        options["exif"] = exif(orientation)
    return write(path, encode(quarters() if pixels is None else pixels, "JPEG", **{"quality": 95, **options}))


def write_grey_jpeg(path: Path, pixels: np.ndarray | None = None) -> Path:
    """A grey JPEG, the brightness of (H, W, 3) pixels."""
    return write(path, encode(Image.fromarray(quarters() if pixels is None else pixels).convert("L"), "JPEG"))


def write_cmyk_jpeg(path: Path, pixels: np.ndarray | None = None) -> Path:
    """A JPEG with four inks."""
    image = Image.fromarray(quarters() if pixels is None else pixels).convert("CMYK")
    return write(path, encode(image, "JPEG", quality=95))


def write_png(path: Path, pixels: np.ndarray | None = None, **options: Any) -> Path:
    """A PNG: RGB for (H, W, 3), RGBA for (H, W, 4), grey for (H, W), 16-bit grey for (H, W) uint16."""
    return write(path, encode(quarters() if pixels is None else pixels, "PNG", **options))


def write_plain(path: Path, level: int, height: int = 8, width: int = 8) -> Path:
    """An image of one grey level, lossless for PNG, in the format that the path's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plain(level, height, width)).save(path)
    return path


def write_palette_png(path: Path, height: int = 32, width: int = 32) -> Path:
    """A PNG with a palette whose bottom right is black but transparent: laid on white it looks like `quarters`."""
    numbers = quarters(height, width, ((0,), (1,), (2,), (3,)))[:, :, 0]
    image = Image.fromarray(numbers)
    image.putpalette([*RED, *GREEN, *BLUE, *BLACK])
    return write(path, encode(image, "PNG", transparency=3))


def write_webp(path: Path, pixels: np.ndarray | None = None, orientation: int | None = None) -> Path:
    """A lossless WebP."""
    options = {} if orientation is None else {"exif": exif(orientation)}
    return write(path, encode(quarters() if pixels is None else pixels, "WEBP", lossless=True, **options))


def write_animated_gif(path: Path, frames: int = 3) -> Path:
    """A GIF of several frames."""
    first, *others = [Image.fromarray(plain(80 * number)) for number in range(frames)]
    return write(path, encode(first, "GIF", save_all=True, append_images=others, duration=40))


def write_side_by_side(path: Path, a: np.ndarray, b: np.ndarray, **options: Any) -> Path:
    """A (H, W, 3) left of B in one image: a JPEG, or whatever format the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([a, b], axis=1)).save(path, **options)
    return path


def write_lmdb(folder: Path, values: Sequence[bytes]) -> Path:
    """An LMDB environment as LSUN has it, each value an encoded image under the hexadecimal of a digest."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=LSUN_MAP_SIZE) as environment, environment.begin(write=True) as transaction:
        for number, value in enumerate(values):
            transaction.put(f"{number:040x}".encode(), value)
    (folder / "lock.mdb").unlink()
    return folder


def write_lsun(folder: Path, name: str, train: Sequence[bytes], val: Sequence[bytes] = ()) -> None:
    """Databases of one class of scenes, ``<name>_train_lmdb`` and, if there are images for it, ``<name>_val_lmdb``."""
    write_lmdb(folder / f"{name}_train_lmdb", train)
    if val:
        write_lmdb(folder / f"{name}_val_lmdb", val)


def write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | str | None],
    class_names: Sequence[str] | None = None,
) -> Path:
    """A Parquet file with columns ``img``, of bytes and path, and ``label``, as the hub makes them.

    Args:
        path: of the file.
        images: encoded.
        labels: whole numbers or strings.
        class_names: put into the hub's metadata.
    """
    rows = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    label_type = pyarrow.string() if any(isinstance(label, str) for label in labels) else pyarrow.int64()
    table = pyarrow.table({"img": pyarrow.array(rows, image_type), "label": pyarrow.array(labels, label_type)})
    if class_names is not None:
        features: Mapping[str, Any] = {
            "img": {"_type": "Image"},
            "label": {"names": list(class_names), "_type": "ClassLabel"},
        }
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)
    return path
