"""Translate image files of any size: what is read and where it goes, padding and cropping, one file at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_gen.data.formats.decoding import decode_image
from lightning_gen.data.image_paths import IMAGE_SUFFIXES, is_clutter
from lightning_gen.errors import UserError, first_line
from lightning_gen.images import save_png, to_float, to_uint8, with_channels
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Translates
from lightning_gen.seeds import make_rng

SHOWN = 3
"""Files that a message names."""


class Task(NamedTuple):
    """A file to translate.

    Attributes:
        source: the image.
        name: its path below the input folder, for people and for the seed of its noise.
        target: the PNG.
    """

    source: Path
    name: str
    target: Path


class Failure(NamedTuple):
    """A file that could not be translated, and why, in one line."""

    name: str
    reason: str


def printable(path: Path) -> str:
    """A path in one line of valid text: what is neither, as bytes that are no UTF-8, is replaced."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def plan(source: Path, output: Path, overwrite: bool) -> list[Task]:
    """The images to translate, ordered by name, and where each goes.

    A folder is searched at any depth for image files by their suffix, but for ``output`` below it and what systems
    leave; a file is taken whatever its name. ``a.jpg`` becomes ``a.png``; where that would be the name of two, both
    keep their whole name: ``a.jpg.png``.

    Args:
        source: a folder or a file.
        output: the folder of the results.
        overwrite: whether results may be there already.

    Raises:
        UserError: there is no image, or a result would overwrite a file.
    """
    if source.is_dir():
        results = source.resolve()
        if output.resolve().is_relative_to(results):
            results = source / output.resolve().relative_to(results)
        files = sorted(
            path
            for path in source.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not _is_left_out(path, source, results)
        )
        names = [path.relative_to(source) for path in files]
    elif source.exists():
        files, names = [source], [Path(source.name)]
    else:
        raise UserError(f"--input {printable(source)}: no such folder or file")
    if not files:
        raise UserError(
            f"{printable(source)} holds no images ({', '.join(IMAGE_SUFFIXES[:5])}, ...): name another --input"
        )
    targets = [output / name for name in output_names(names)]
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {printable(output)} is a file: name a folder")
    taken = {path.resolve() for path in files}
    for target in targets:
        if target.resolve() in taken:
            raise UserError(f"{printable(target)} is one of the images to translate: name another --output")
    existing = [] if overwrite else [target for target in targets if target.exists()]
    if existing:
        shown = ", ".join(map(printable, existing[:SHOWN])) + (", ..." if len(existing) > SHOWN else "")
        raise UserError(
            f"{len(existing)} of {len(targets)} results exist ({shown}): name another --output or pass --overwrite"
        )
    return [Task(path, printable(name), target) for path, name, target in zip(files, names, targets, strict=True)]


def output_names(names: Sequence[Path]) -> list[Path]:
    """A PNG name for each relative path, all different: the stem's, or the whole name's where two share a stem."""
    chosen = [name.with_name(f"{name.stem}.png") for name in names]
    # Whole names are all different, so this ends; a whole name may meet the stem of a third.
    while True:
        number = Counter(chosen)
        longer = [
            name.with_name(f"{name.name}.png") if number[short] > 1 else short
            for name, short in zip(names, chosen, strict=True)
        ]
        if longer == chosen:
            return chosen
        chosen = longer


def translate_files(
    model: GenerativeModel,
    tasks: Sequence[Task],
    direction: str,
    seed: int = 0,
    on_done: Callable[[Failure | None], None] = lambda failure: None,
) -> None:
    """Translate files one by one with the averaged weights; each result is whole or absent.

    Args:
        model: one that translates.
        tasks: of `plan`.
        direction: ``AtoB`` or ``BtoA``.
        seed: of the model's noise, which of a file depends on its name and on no other file.
        on_done: called after every file, with what went wrong if it was left out.

    Raises:
        UserError: the model does not translate in that direction, or a result cannot be written.
    """
    check_direction(model, direction)
    with model.evaluation():
        for task in tasks:
            rng = make_rng("translate", seed, direction, task.name)
            try:
                pixels = decode_image(task.source.read_bytes(), task.name, 3)
                result = translate_image(model, pixels, direction, rng)
            except Exception as error:
                if not _fails_alone(error):
                    raise
                on_done(Failure(task.name, _reason(task.name, error)))
                continue
            try:
                task.target.parent.mkdir(parents=True, exist_ok=True)
                save_png(result, task.target)
            except OSError as error:
                raise UserError(f"Cannot write {printable(task.target)}: {error.strerror or error}") from error
            on_done(None)


def check_direction(model: GenerativeModel, direction: str) -> None:
    """Raise UserError if the model does not translate in a direction."""
    name = type(model).__name__
    if not isinstance(model, Translates):
        raise UserError(f"{name} does not translate images")
    if direction not in model.directions:
        raise UserError(f"{name} has no direction {direction!r}: set --direction to {' or '.join(model.directions)}")


def translate_image(model: GenerativeModel, pixels: Tensor, direction: str, rng: torch.Generator) -> Tensor:
    """The translation of one image of any size.

    Its last row and column are repeated up to a size that the model takes, and the result is cut back.

    Args:
        model: one that translates, in evaluation mode.
        pixels: (3, H, W) uint8; turned grey for a model that takes grey images.
        direction: ``AtoB`` or ``BtoA``.
        rng: of the model's noise.

    Returns:
        (C, H, W) uint8, on the CPU.
    """
    assert isinstance(model, Translates)
    channels, *trained = model.domain_shapes[direction[0]]
    images = with_channels(to_float(pixels[None].to(model.device)), channels)
    height, width = images.shape[2:]
    full = [padded_size(size, model.size_multiple, usual) for size, usual in zip((height, width), trained, strict=True)]
    images = pad(images, [0, full[1] - width, 0, full[0] - height], mode="replicate")
    outputs = model.translate(images, direction, generator=rng)
    return to_uint8(outputs[0, :, :height, :width]).cpu()


def padded_size(size: int, multiple: int, trained: int) -> int:
    """The size that an image's height or width is padded to.

    A multiple of ``multiple``, and twice that or the size of training, if that is less: of the smallest size a network
    keeps a single row, of which instance norm and reflection make nothing.
    """
    return max(-(-size // multiple) * multiple, min(trained, 2 * multiple))


def _is_left_out(path: Path, source: Path, results: Path) -> bool:
    inside = [path, *(parent for parent in path.parents if parent.is_relative_to(source) and parent != source)]
    return results in inside or any(map(is_clutter, inside))


def _fails_alone(error: Exception) -> bool:
    """Whether an exception is about one image: its file, or its size."""
    # The CPU's allocator raises a plain RuntimeError.
    no_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return no_memory or isinstance(error, OSError | UserError)


def _reason(name: str, error: Exception) -> str:
    """What is wrong with a file, in one line that begins with its name and has no remedy for data sets."""
    if isinstance(error, UserError):
        return str(error).rpartition(": ")[0] or str(error)
    return f"{name} cannot be translated ({(isinstance(error, OSError) and error.strerror) or first_line(error)})"
