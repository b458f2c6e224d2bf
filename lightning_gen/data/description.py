"""What a set holds: counts, classes, mean and deviation, digest, and a picture of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console, Group
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import Tensor

from lightning_gen.data.batches import ImageBatch, PairBatch
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.image_set import ImageSource
from lightning_gen.data.loaders import OrderedLoader
from lightning_gen.data.module import ImageDataModule
from lightning_gen.data.pairs import PairDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import make_grid, to_float, to_uint8
from lightning_gen.seeds import make_rng

BLOCK_SIZE = 256


def describe_split(
    source: ImageSource,
    class_names: Sequence[str],
    num_workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Facts about all images of one split, each decoded once and nothing kept.

    Args:
        source: the split.
        class_names: of its classes.
        num_workers: processes that decode.
        progress: called with the number of images seen so far.

    Returns:
        ``size``, ``skipped`` (damaged images), ``shape`` [C, H, W], ``mean`` and ``std`` of each channel on the scale
        [0, 1], ``classes`` {name: count} or None, and ``digest``, that of `ImageSet`.
    """
    shape = source.image_shape
    content = hashlib.sha256(f"uint8{(len(source), *shape)}".encode())
    sums = torch.zeros(2, shape[0], dtype=torch.float64)
    labels = []
    seen = 0
    for (batch,) in OrderedLoader(source, BLOCK_SIZE, num_workers=num_workers):
        content.update(batch.images.contiguous().numpy().data)
        # Sums of squares of bytes are whole numbers, exact in int64.
        pixels = batch.images.long()
        sums += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))]).double()
        seen += len(pixels)
        if batch.labels is not None:
            labels.append(batch.labels)
        progress(seen)
    if seen < len(source):
        # The digest begins with the number of images, which is known only now.
        assert isinstance(source, EncodedSet)
        whole = source.subset(source.undamaged())
        return {**describe_split(whole, class_names, num_workers, progress), "skipped": len(source) - seen}
    mean, square = sums / (seen * shape[1] * shape[2])
    if labels:
        content.update(torch.cat(labels).numpy().data)
    return {
        "size": seen,
        "skipped": 0,
        "shape": list(shape),
        "mean": (mean / 255).tolist(),
        "std": ((square - mean.square()).sqrt() / 255).tolist(),
        "classes": count_classes(torch.cat(labels), class_names) if labels else None,
        "digest": content.hexdigest(),
    }


def count_classes(labels: Tensor, class_names: Sequence[str]) -> dict[str, int]:
    """How many images each class has."""
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    return dict(zip(class_names, counts, strict=True))


def splits_at_hand(data: ImageDataModule) -> dict[str, ImageSource]:
    """The splits that can be read.

    Raises:
        UserError: the first one, for training, cannot.
    """
    first, *others = data.splits
    found = {first: data.split(first)}
    for name in [*others, *(["val"] if data.validation_share else [])]:
        try:
            found[name] = data.split(name)
        except UserError:
            continue
    return found


def describe_data(data: ImageDataModule) -> dict[str, Any]:
    """Name, classes and the facts of every split at hand (see `describe_split`), with a progress bar."""
    splits = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for split, source in splits_at_hand(data).items():
            task = progress.add_task(f"reading {data.name} {split}", total=len(source))
            splits[split] = describe_split(source, data.class_names, data.workers(), partial(_advance, progress, task))
    return {"name": data.name, "num_classes": data.num_classes, "splits": splits}


def _advance(progress: Progress, task: TaskID, seen: int) -> None:
    progress.update(task, completed=seen)


def render(facts: dict[str, Any]) -> Group:
    """A table of what `describe_data` found, and a line of each split's classes."""
    table = Table(title=facts["name"], title_justify="left")
    for column in ("split", "images", "shape", "mean", "std", "digest"):
        table.add_column(column, overflow="fold")
    for split, known in facts["splits"].items():
        table.add_row(
            split,
            f"{known['size']:,}" + (f" ({known['skipped']} skipped)" if known["skipped"] else ""),
            "x".join(map(str, known["shape"])),
            *(" ".join(f"{value:.5f}" for value in known[key]) for key in ("mean", "std")),
            known["digest"][:16],
        )
    classes = [
        f"{split}: {_render_classes(known['classes'])}" for split, known in facts["splits"].items() if known["classes"]
    ]
    return Group(table, *(classes or ["no classes"]))


def _render_classes(classes: dict[str, int]) -> str:
    if len(set(classes.values())) == 1:
        return f"{len(classes)} classes of {next(iter(classes.values())):,} images: {', '.join(classes)}"
    return f"{len(classes)} classes: " + ", ".join(f"{name} {count:,}" for name, count in classes.items())


def picture(data: ImageDataModule, number: int = 64, seed: int = 0) -> Tensor:
    """A grid of training images as a model gets them, without augmentation: (C, H, W) uint8.

    Of a set of pairs each input is left of its output; of an unpaired set the left half is domain A.

    Args:
        data: the set.
        number: of images, about.
        seed: of the choice.
    """
    train = _some(data.split("train"), number, seed, "train")
    if not isinstance(data, PairDataModule):
        return make_grid(to_uint8(train.images))
    if len(data.training_splits) == 2:
        domains = (_some(data.split("train_a"), number, seed, "train_a").images, train.images)
        halves = [make_grid(to_uint8(_colour(images[: number // 2])), columns=4) for images in domains]
        gap = halves[0].new_zeros(3, halves[0].shape[1], 1)
        return torch.cat([halves[0], gap, halves[1]], dim=2)
    pairs = data.assemble((train,))
    assert isinstance(pairs, PairBatch)
    both = torch.stack([_colour(pairs.images_a), _colour(pairs.images_b)], dim=1).flatten(0, 1)
    return make_grid(to_uint8(both[:number]), columns=8)


def _some(source: ImageSource, number: int, seed: int, what: str) -> ImageBatch:
    order = torch.randperm(len(source), generator=make_rng("picture", seed, what))
    batch = source.batch(order[:number], 0)
    return batch._replace(images=to_float(batch.images))


def _colour(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
