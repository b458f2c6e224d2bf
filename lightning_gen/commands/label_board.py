"""Comparing classifiers by the number of labels that they were given."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lightning_gen.commands.shared import RUNS, Force, Json, check_free, name_filter, say, write
from lightning_gen.errors import UserError
from lightning_gen.files import write_bytes, write_text

app = typer.Typer()


class Split(StrEnum):
    """Whose errors are shown."""

    test = "test"
    val = "val"


@app.command()
def labels(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders that hold your runs.", show_default=str(RUNS))
    ] = None,
    split: Annotated[Split, typer.Option(help="Errors on this split; val to choose settings by.")] = Split.test,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Let errors on the same images at different sizes share a table.")
    ] = False,
    data: Annotated[list[str] | None, name_filter("Only this data set")] = None,
    model: Annotated[list[str] | None, name_filter("Only this model")] = None,
    experiment: Annotated[list[str] | None, name_filter("Only this experiment")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page for the browser to this file.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Errors by number of labels",
    plot: Annotated[Path | None, typer.Option(help="Draw error against number of labels to this PNG file.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare classifiers by their errors at each number of labels; only errors on the same images share a table."""
    from rich.console import Console

    from lightning_gen.report.label_page import draw_label_board, label_page
    from lightning_gen.tracking.label_board import build_label_boards, to_label_json, to_label_table
    from lightning_gen.tracking.record_files import find_records
    from lightning_gen.tracking.selection import Selection

    if plot is not None and plot.suffix.lower() != ".png":
        raise UserError(f"--plot must be a PNG file, not {plot}")
    for file in (html, plot):
        if file is not None:
            check_free(file, force)
    found, skipped = find_records(folders or [RUNS])
    for problem in skipped:
        say(f"skipped: {problem}")
    chosen = Selection(data=data or (), models=model or (), experiments=experiment or ()).runs(found)
    boards = build_label_boards(chosen, split.value, any_size=any_size)
    if not boards:
        say(f"No completed runs there have a {split.value}_error: add callbacks=classification when you train")
    if plot is not None:
        if len(boards) != 1:
            raise UserError(
                f"--plot draws one table and there are {len(boards)}: choose by --data, --model or --experiment"
            )
        picture = draw_label_board(boards[0])
        if picture is None:
            raise UserError("--plot needs errors at a number of labels, and all runs there were given every label")
        write(plot, lambda path: write_bytes(path, picture))
    if html is not None:
        page = label_page(boards, title)
        write(html, lambda path: write_text(path, page))
    if as_json:
        sys.stdout.write(to_label_json(boards, skipped))
        return
    console = Console()
    for board in boards:
        console.print(to_label_table(board))
    for file in (html, plot):
        if file is not None:
            print(file)
