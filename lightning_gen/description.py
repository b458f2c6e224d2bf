"""Load a data set by its name in the configs and tell what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console, Group
from rich.progress import Progress, TaskID
from rich.table import Table

from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.data.description import describe_split, splits_at_hand
from lightning_gen.data.workers import default_workers
from lightning_gen.registry import construct


def load_data(name: str, overrides: Sequence[str] = ()) -> ImageDataModule:
    """The data module of an option of ``configs/data``.

    Args:
        name: such as ``mnist``.
        overrides: ``key=value`` options of the set; keys of other config groups have their full name
            (``paths.data_dir=FOLDER``).

    Raises:
        UserError: an unknown name or option, or what the set raises.
    """
    config = compose_config([f"data={name}", "metrics=none", *map(_full_name, overrides)])
    return construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]


def _full_name(override: str) -> str:
    return override if override.startswith(("data.", "data@", "paths.")) else f"data.{override}"


def describe_data(data: ImageDataModule) -> dict[str, Any]:
    """Name, classes and the facts of every split at hand (see `describe_split`), with a progress bar."""
    splits = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for split, source in splits_at_hand(data).items():
            task = progress.add_task(f"reading {data.name} {split}", total=len(source))
            workers = default_workers() if data.num_workers is None else data.num_workers
            splits[split] = describe_split(source, data.class_names, workers, partial(_advance, progress, task))
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
