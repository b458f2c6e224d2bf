"""Searching for parameters: sweep files of W&B's format, run without a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightning_gen.commands.shared import Json, parse_numbers, print_json, say, write
from lightning_gen.errors import UserError
from lightning_gen.files import write_text

if TYPE_CHECKING:
    from lightning_gen.sweeps.folder import Settings, SweepFolder
    from lightning_gen.sweeps.sweep_file import Sweep

app = typer.Typer()

BEST = 5
"""Trials in the printed table."""


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file, as sweeps/dcgan_digits.yaml.", show_default=False)],
    storage: Annotated[
        Path, typer.Option(help="The sweep's folder; others may join it or go on with it.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="After --: options of every trial.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", "-n", help="Over all restarts.", min=1, show_default="run_cap, or the whole grid"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", help="Trials at the same time.", min=1)] = 1,
    seeds: Annotated[
        str | None, typer.Option(help="A trial's score is the mean over these: 0,1,2.", show_default="one run")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the runs go.", show_default="runs, or LIGHTNING_GEN_OUTPUT_DIR")
    ] = None,
    search_seed: Annotated[int, typer.Option(help="Of the drawn parameters.")] = 0,
    report_only: Annotated[bool, typer.Option("--report", help="Only show what has been found so far.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the page with the pictures here.", show_default="report.html in --storage"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for the best parameters with W&B's sweep files, without W&B's server.

    The same command again goes on where it was stopped or killed; on several nodes it shares the trials.
    """
    try:
        from lightning_gen.sweeps.driver import run_sweep
        from lightning_gen.sweeps.folder import SweepFolder
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("Sweeps need Optuna: pip install 'lightning-gen[sweeps]'") from error
    from lightning_gen.sweeps.commands import find_program
    from lightning_gen.sweeps.summary import summarize
    from lightning_gen.sweeps.sweep_file import read_sweep

    folder = SweepFolder(storage)
    if report_only:
        folder.open()
    else:
        chosen = read_sweep(file)
        find_program(chosen.program)
        settings, number = _settings(chosen, overrides or [], seeds, output_dir, search_seed), _most(chosen, trials)
        folder.open(settings, file.stem)
        try:
            run_sweep(folder, number, workers)
        except KeyboardInterrupt:
            say(f"stopped; the same command goes on: {storage}")
            raise typer.Exit(130) from None
    summary = summarize(folder)
    _report(folder, summary, html, as_json)


def _settings(
    chosen: Sweep, overrides: list[str], seeds: str | None, output_dir: Path | None, search_seed: int
) -> Settings:
    from lightning_gen.sweeps.commands import check_overrides
    from lightning_gen.sweeps.folder import Settings

    numbers = None if seeds is None else tuple(dict.fromkeys(parse_numbers(seeds, int, "--seeds")))
    check_overrides(overrides, numbers)
    searched = {parameter.name for parameter in chosen.parameters}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if key in searched:
            raise UserError(f"{key} is a parameter of the sweep: leave it out of the options of every trial")
    if numbers is not None and "seed" in searched:
        raise UserError("seed is a parameter of the sweep: leave --seeds out")
    folder = output_dir or Path(os.environ.get("LIGHTNING_GEN_OUTPUT_DIR", "runs"))
    return Settings(chosen, tuple(overrides), numbers, folder.resolve(), search_seed)


def _most(chosen: Sweep, trials: int | None) -> int:
    if trials is not None:
        return trials
    if chosen.run_cap is not None:
        return chosen.run_cap
    if chosen.method == "grid":
        return len(chosen.grid())
    raise UserError(f"A {chosen.method} search has no end of its own: give --trials N, or run_cap in the file")


def _report(folder: SweepFolder, summary: dict[str, Any], html: Path | None, as_json: bool) -> None:
    from lightning_gen.report.sweep_page import sweep_page

    page = html or folder.path / "report.html"
    write(page, lambda path: write_text(path, sweep_page(summary)))
    if as_json:
        print_json({**summary, "output": str(page)})
        return
    _print_tables(summary)
    print(page)
    if summary["best"] is None and summary["counts"]["failed"]:
        first = next(trial for trial in summary["trials"] if trial["state"] == "failed")
        say(f"No trial has a score; trial {first['number']} failed: {first['error']}")
        sys.exit(1)


def _print_tables(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from lightning_gen.sweeps.summary import format_value

    counts = ", ".join(f"{number} {state}" for state, number in summary["counts"].items() if number)
    names = summary["parameters"]
    best = Table(title=f"{summary['study']}: {counts or 'no trials'}", title_justify="left", box=None)
    for name in ("trial", summary["score"], *names):
        best.add_column(name, overflow="fold", justify="right" if name in ("trial", summary["score"]) else "left")
    by_number = {trial["number"]: trial for trial in summary["trials"]}
    for number in summary["ranking"][:BEST]:
        trial = by_number[number]
        spread = f" ± {trial['spread']:.2g}" if trial["spread"] is not None else ""
        values = [format_value(trial["values"][name]) if name in trial["values"] else "" for name in names]
        best.add_row(str(number), f"{trial['score']:.4g}{spread}", *values)
    console = Console()
    console.print(best)
    if summary["importances"]:
        console.print(
            "importance: " + ", ".join(f"{name} {share:.0%}" for name, share in summary["importances"].items())
        )
    for trial in summary["trials"]:
        if trial["state"] == "failed":
            console.print(f"trial {trial['number']} failed: {trial['error']}", markup=False)
