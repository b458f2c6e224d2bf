"""``lightning-gen translate``: images of one domain to the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_gen.commands.shared import Device, Json, RunOrCheckpoint, print_json, say
from lightning_gen.errors import UserError

if TYPE_CHECKING:
    from lightning_gen.tools.translation import Failure

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

app = typer.Typer()


@app.command()
def translate(
    run: RunOrCheckpoint,
    source: Annotated[
        Path, typer.Option("--input", "-i", help="A folder of images of any size, or one image.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the PNG files.", show_default=False)],
    direction: Annotated[str, typer.Option(help="AtoB or BtoA.")] = "AtoB",
    seed: Annotated[int, typer.Option(help="Of the model's noise.")] = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Overwrite files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Translate images, e.g. `translate RUN --input photos --output paintings`; exit status 1 if some were damaged."""
    from lightning_gen.evaluation import load_trained
    from lightning_gen.tools.translation import check_direction, plan, printable, translate_files

    tasks = plan(source, output, overwrite)
    model = load_trained(run, device=device).model
    check_direction(model, direction)
    console = Console(stderr=True)
    failures: list[Failure] = []
    done = 0
    interrupted = False
    columns = (TextColumn("translating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        each = bar.add_task("translating", total=len(tasks))

        def count(failure: Failure | None) -> None:
            nonlocal done
            if failure is None:
                done += 1
            else:
                failures.append(failure)
                console.print(f"skipped: {failure.reason}", soft_wrap=True, markup=False, highlight=False)
            bar.advance(each)

        try:
            translate_files(model, tasks, direction, seed, count)
        except KeyboardInterrupt:
            interrupted = True
        except UserError:
            # A full disk, for one.
            say(f"{done} of {len(tasks)} images translated")
            raise
    state = "interrupted: " if interrupted else ""
    if interrupted or failures:
        say(f"{state}{done} of {len(tasks)} images translated")
    if as_json:
        result = {
            "output": str(output),
            "direction": direction,
            "seed": seed,
            "num_images": len(tasks),
            "translated": done,
            "failed": [failure._asdict() for failure in failures],
            "interrupted": interrupted,
        }
        print_json(result)
    else:
        print(printable(output))
    if interrupted or failures:
        raise typer.Exit(INTERRUPTED if interrupted else 1)
