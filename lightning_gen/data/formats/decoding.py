"""Encoded images to uint8 tensors of one shape: decode, turn upright, cut and resize."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from lightning_gen.errors import UserError, first_line

DECODING_VERSION = 1
"""Part of every decoded cache's key: raise it when other pixels come out."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Images (N, C, H, W) uint8 resized by bicubic filtering with antialiasing; bit for bit the same on every CPU."""
    if images.shape[2:] == (height, width):
        return images
    return interpolate(images, size=(height, width), mode="bicubic", antialias=True)


@dataclass(frozen=True)
class Frame:
    """Which square of an image is kept, and at what size.

    Attributes:
        image_size: height and width of the result.
        center_crop: side, in pixels of the original, of a square that is cut from the middle first; None for the whole.
        crop: which square of an oblong image is kept: its middle, or one at a place drawn anew in every epoch.
    """

    image_size: int
    center_crop: int | None = None
    crop: Literal["center", "random"] = "center"

    def __post_init__(self) -> None:
        if self.crop not in ("center", "random"):
            raise UserError(f"data.crop must be center or random, not {self.crop!r}")
        if self.center_crop is not None and self.center_crop < 1:
            raise UserError(f"data.center_crop must be at least 1, not {self.center_crop}")

    def apply(self, pixels: Tensor, name: str, position: float = 0.5) -> Tensor:
        """The square of one image.

        Args:
            pixels: (C, H, W) uint8.
            name: of the image, for messages.
            position: in [0, 1], where along the longer side the square lies; 0.5 is the middle.

        Returns:
            (C, image_size, image_size) uint8.

        Raises:
            UserError: the image is smaller than ``center_crop``.
        """
        height, width = pixels.shape[1:]
        if self.center_crop is not None:
            side = self.center_crop
            if min(height, width) < side:
                raise UserError(
                    f"{name} is {width}x{height}, smaller than data.center_crop={side}: lower that or remove the image"
                )
            top, left = (height - side) // 2, (width - side) // 2
        else:
            side = min(height, width)
            top, left = round((height - side) * position), round((width - side) * position)
        square = pixels[None, :, top : top + side, left : left + side]
        return resize(square, self.image_size, self.image_size)[0]

    def settings(self) -> dict[str, Any]:
        """What the pixels of an image cut from the middle depend on beside its file."""
        return {"image_size": self.image_size, "center_crop": self.center_crop, "version": DECODING_VERSION}


def decode_image(content: bytes, name: str, channels: int) -> Tensor:
    """The pixels of an encoded image.

    Grey, palette, CMYK and 16-bit images become 8-bit grey or RGB; transparent ones are laid on white; the rotation
    that EXIF asks for is done.

    Args:
        content: of a JPEG, PNG, WebP, BMP, TIFF, ... file.
        name: of the image, for messages.
        channels: 1 for grey, 3 for RGB.

    Returns:
        (channels, H, W) uint8.

    Raises:
        UserError: not an image, damaged, animated, or of a kind that has no obvious 8-bit form.
    """
    pixels = _decode_plain_jpeg(content, channels)
    if pixels is not None:
        return pixels
    try:
        image = Image.open(io.BytesIO(content))
        # An MPO is a photograph with its preview.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{name} has {image.n_frames} frames, not one: remove it, or set data.on_error=skip")  # type: ignore[attr-defined]
        return _to_tensor(_to_mode(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image: remove it, or set data.on_error=skip") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything at damaged files
        raise UserError(f"{name} is damaged ({first_line(error)}): replace it, or set data.on_error=skip") from error


def _decode_plain_jpeg(content: bytes, channels: int) -> Tensor | None:
    """Pixels of a whole grey or RGB JPEG, or None for anything else.

    torchvision's decoder gives Pillow's pixels in two thirds of the time, but takes a truncated file for a whole one:
    that, and what needs a conversion, is left to Pillow.
    """
    if not (content.startswith(JPEG_START) and content.rstrip(b"\0").endswith(JPEG_END)):
        return None
    try:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels = decode_jpeg(encoded, ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    except RuntimeError:
        return None
    if len(pixels) == channels:
        return pixels
    return pixels.expand(channels, -1, -1) if len(pixels) == 1 else None


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow's own conversion clips at 255 where the file has 65535 levels.
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"pixels from {levels.min()} to {levels.max()}, beyond 16 bits")
        image = Image.fromarray(np.rint(levels / 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels: their range is not known")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _to_tensor(image: Image.Image) -> Tensor:
    # np.array copies, so the tensor owns its memory.
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
