"""What image shapes the architectures can make."""

from __future__ import annotations

from lightning_gen.errors import UserError


def power_of_two_size(image_shape: tuple[int, int, int], architecture: str) -> tuple[int, int]:
    """Channels C and size S of ``image_shape`` (C, S, S), S a power of two, at least 32.

    Raises:
        UserError: another shape; ``architecture`` is its subject.
    """
    channels, height, width = image_shape
    if height != width or height < 32 or height & (height - 1):
        raise UserError(
            f"{architecture} makes square images of a power-of-two size from 32, not {height}x{width}: "
            "set data.image_size"
        )
    return channels, height
