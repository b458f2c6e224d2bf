"""Comparing runs: the leaderboard, and the test of whether people can tell samples from data."""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightning_gen.commands.shared import (
    RUNS,
    Device,
    Force,
    Json,
    RunOrCheckpoint,
    check_free,
    name_filter,
    report,
    say,
    write,
)
from lightning_gen.errors import UserError
from lightning_gen.files import write_text
from lightning_gen.tracking.selection import Sort

if TYPE_CHECKING:
    import numpy as np

    from lightning_gen.tracking.leaderboard import Board
    from lightning_gen.tracking.record_files import FoundRun

app = typer.Typer()


class Format(StrEnum):
    """How boards are written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


class Status(StrEnum):
    """How a run ended."""

    completed = "completed"
    interrupted = "interrupted"
    failed = "failed"


@app.command()
def leaderboard(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders that hold your runs.", show_default=str(RUNS))
    ] = None,
    score: Annotated[list[str] | None, name_filter("Only this score")] = None,
    data: Annotated[list[str] | None, name_filter("Only this data set")] = None,
    model: Annotated[list[str] | None, name_filter("Only this model")] = None,
    experiment: Annotated[list[str] | None, name_filter("Only this experiment")] = None,
    status: Annotated[list[Status] | None, typer.Option(help="Only runs that ended so.")] = None,
    protocol: Annotated[str, typer.Option(help="Only this protocol: the beginning of its hash.")] = "",
    sort: Annotated[Sort, typer.Option(help="Order of the entries; places stay those by score.")] = Sort.value,
    reverse: Annotated[bool, typer.Option("--reverse", help="Turn the order.")] = False,
    output_format: Annotated[Format, typer.Option("--format", help="Of what is printed or written.")] = Format.table,
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default="standard output")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page for the browser to this file.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Leaderboard",
    pictures: Annotated[bool, typer.Option(help="Put samples and interpolations into the page.")] = True,
    wandb: Annotated[
        str | None, typer.Option(metavar="ENTITY/PROJECT", help="Take the finished runs of a W&B project too.")
    ] = None,
    force: Force = False,
) -> None:
    """Rank runs by their scores, averaged over seeds; only scores of one protocol share a table."""
    from lightning_gen.tracking.leaderboard import build_boards
    from lightning_gen.tracking.selection import Selection, sort_entries

    for file in (output, html):
        if file is not None:
            check_free(file, force)
    found, skipped = _find(folders, wandb)
    for problem in skipped:
        say(f"skipped: {problem}")
    statuses = [each.value for each in status or ()]
    chosen = Selection(score or (), data or (), model or (), experiment or (), statuses, protocol).runs(found)
    boards = build_boards(chosen)
    sort_entries(boards, sort, reverse)
    if html is not None:
        from lightning_gen.report.board_page import leaderboard_page

        page = leaderboard_page(boards, chosen, title, pictures=pictures)
        write(html, lambda path: write_text(path, page))
    if not boards:
        known = sorted({score["name"] for run in found for score in run.record["scores"]})
        say(f"No scored runs match; scores there: {', '.join(known)}" if known else "No scored runs there")
    if html is None or output is not None or as_json or output_format is not Format.table:
        _print_boards(boards, skipped, Format.json if as_json else output_format, output)
    if html is not None and not as_json:
        print(html)


def _find(folders: list[Path] | None, wandb: str | None) -> tuple[list[FoundRun], list[str]]:
    """Runs of the folders and of a W&B project; of the default folder only where no project is named."""
    from lightning_gen.tracking.record_files import find_records

    found, skipped = ([], []) if wandb and not folders else find_records(folders or [RUNS])
    if wandb is not None:
        from lightning_gen.tracking.wandb_records import read_project

        more, problems = read_project(wandb)
        here = {_identity(run) for run in found}
        found = [*found, *(run for run in more if _identity(run) not in here)]
        skipped = [*skipped, *problems]
    return found, skipped


def _identity(run: FoundRun) -> tuple[str, str, object]:
    """Equal for a run here and the same run in W&B."""
    return run.record["experiment"], run.record["run_name"], run.record.get("config_digest")


def _print_boards(boards: list[Board], skipped: list[str], chosen: Format, output: Path | None) -> None:
    from rich.console import Console

    from lightning_gen.tracking import exports

    if chosen is Format.table:
        if output is None:
            console = Console()
            for board in boards:
                console.print(exports.to_table(board))
            return
        console = Console(width=120, record=True, file=io.StringIO())
        for board in boards:
            console.print(exports.to_table(board))
        text = console.export_text()
    elif chosen is Format.markdown:
        text = exports.to_markdown(boards)
    elif chosen is Format.csv:
        text = exports.to_csv(boards)
    else:
        text = exports.to_json(boards, skipped)
    if output is None:
        sys.stdout.write(text)
    else:
        write(output, lambda path: write_text(path, text))


@app.command()
def turing(
    run: RunOrCheckpoint,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="Half of them real.", min=2)] = 40,
    output: Annotated[Path, typer.Option("--output", "-o", help="An HTML file.")] = Path("turing.html"),
    seed: Annotated[int, typer.Option(help="Of the samples, the choice of real images and the order.")] = 0,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of PNG files to take for the generated images.", show_default="samples of the run"),
    ] = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a page on which a person tells samples from real images, and sees how often they were fooled."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output must be a .html file, not {output}")
    if num_images % 2:
        raise UserError(f"--num-images must be even, not {num_images}: half of them are real")
    check_free(output, force)
    from lightning_gen.report.turing import turing_page
    from lightning_gen.tracking.run_directory import open_run

    real, fake, data_name = _draw_both(run, num_images // 2, seed, images, device)
    directory, _ = open_run(run)
    name = f"{directory.path.resolve().parent.name}/{directory.name}"
    page = turing_page(real, fake, name=name, data=data_name, seed=seed)
    write(output, lambda path: write_text(path, page))
    report(as_json, {"output": str(output), "num_images": num_images, "seed": seed})


def _draw_both(
    run: Path, number: int, seed: int, folder: Path | None, device: str
) -> tuple[list[np.ndarray], list[np.ndarray], str]:
    """So many real and generated images (H, W, C) uint8, C 1 or 3, and the name of the data set."""
    import torch

    from lightning_gen.data.image_set import ImageSet
    from lightning_gen.evaluation import draw_samples, load_data, load_trained
    from lightning_gen.images import to_uint8
    from lightning_gen.report.turing import read_images
    from lightning_gen.seeds import make_rng

    trained = load_trained(run, device=device)
    data = load_data(trained)
    split = (trained.config["metrics"] or {}).get("reference_split", "train")
    source = data.split(split)
    if len(source) < number:
        raise UserError(f"The {split} split of {data.name} holds {len(source)} images: lower --num-images")
    chosen = torch.randperm(len(source), generator=make_rng("turing", seed))[:number]
    if isinstance(source, ImageSet):
        real = source.images[chosen]
    else:
        real = data.in_memory(source.subset(chosen.sort().values), split).images
    if folder is None:
        blocks: list[torch.Tensor] = []
        draw_samples(trained.model, number, seed, lambda first, images: blocks.append(to_uint8(images).cpu()))
        fake = list(torch.cat(blocks).permute(0, 2, 3, 1).numpy())
    else:
        fake = read_images(folder, number, seed)
    return list(real.permute(0, 2, 3, 1).numpy()), fake, data.name
