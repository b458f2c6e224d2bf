"""Decoded images on disk: made once, mapped into memory by every process, found by their content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track

from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.loaders import OrderedLoader
from lightning_gen.errors import UserError, first_line
from lightning_gen.files import canonical_json

log = logging.getLogger(__name__)

BLOCK_SIZE = 64


def decoded(source: EncodedSet, folder: Path, name: str, num_workers: int) -> ImageSet:
    """The images of ``source`` as for evaluation, decoded once into a file below ``folder`` and mapped into memory.

    The place is named by a digest of the encoded images, labels and decoding, so what is stale is never read. Any
    number of processes may ask at once: the first decodes under a lock, the others map its file. What a killed process
    left is removed. Damaged images are left out if the source skips them.

    Args:
        source: what to decode.
        folder: of all such files.
        name: of the set and split, for messages and the progress bar.
        num_workers: processes that decode.

    Raises:
        UserError: a damaged image, a full disk or a folder that cannot be written.
    """
    key = hashlib.sha256(canonical_json(source.content()).encode()).hexdigest()[:24]
    place = folder / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{place.name}.lock"):
            found = _open(place)
            if found is None:
                _decode_into(source, place, name, num_workers)
                found = _open(place)
    except OSError as error:
        raise UserError(
            f"cannot write the decoded images to {folder} ({first_line(error)}): set paths.cache_dir to a folder with "
            "room, or data.residency=stream"
        ) from error
    assert found is not None
    if len(found) < len(source):
        log.warning("%s: %d of %d images were damaged and skipped", name, len(source) - len(found), len(source))
    return found


def _open(place: Path) -> ImageSet | None:
    try:
        facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
        # Private mapping: the pages are shared by all processes until somebody writes, and then not written back.
        images = np.memmap(place / "images.bin", np.uint8, mode="c", shape=tuple(facts["shape"]))
        labels = torch.from_numpy(np.load(place / "labels.npy")) if facts["labelled"] else None
        return ImageSet(torch.from_numpy(images), labels)
    except (OSError, ValueError, KeyError):
        return None


def _decode_into(source: EncodedSet, place: Path, name: str, num_workers: int) -> None:
    unfinished = place.with_name(f".{place.name}.unfinished")
    for leftover in (unfinished, place):
        if leftover.exists():
            shutil.rmtree(leftover)
    free = shutil.disk_usage(place.parent).free
    if free < source.decoded_bytes:
        raise UserError(
            f"{place.parent} has {free / 1e9:.2f} GB free, the decoded images of {name} take "
            f"{source.decoded_bytes / 1e9:.2f} GB: set paths.cache_dir to a larger disk, or data.residency=stream"
        )
    unfinished.mkdir()
    try:
        _fill(source, unfinished, name, num_workers)
        os.replace(unfinished, place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fill(source: EncodedSet, folder: Path, name: str, num_workers: int) -> None:
    labels = []
    number = 0
    loader = OrderedLoader(source, BLOCK_SIZE, num_workers=num_workers)
    with (folder / "images.bin").open("wb") as file:
        # Written, not mapped: a full disk is an error here and would be a crash there.
        for (batch,) in track(
            loader,
            f"decoding {name}",
            len(loader),
            console=Console(stderr=True),
            transient=True,
            disable=len(loader) < 32,
        ):
            file.write(batch.images.contiguous().numpy().data)
            number += len(batch.images)
            if batch.labels is not None:
                labels.append(batch.labels)
        _to_disk(file)
    if not number:
        raise UserError(
            f"none of the {len(source)} images of {name} can be read, such as {source.records.name(0)}: set data.path"
        )
    if labels:
        with (folder / "labels.npy").open("wb") as file:
            np.save(file, torch.cat(labels).numpy())
            _to_disk(file)
    facts = {
        "name": name,
        "shape": [number, *source.image_shape],
        "labelled": bool(labels),
        "skipped": len(source) - number,
    }
    with (folder / "facts.json").open("w", encoding="utf-8") as text:
        text.write(json.dumps(facts))
        _to_disk(text)


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
