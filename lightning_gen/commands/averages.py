"""``lightning-gen ema``: averages of weights that training did not follow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lightning_gen.commands.shared import Force, Json, RunOrCheckpoint, check_free, report, say, write

app = typer.Typer()


@app.command()
def ema(
    run: RunOrCheckpoint,
    width: Annotated[float, typer.Option(help="Relative width of the average, as 0.12.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A checkpoint file.", show_default="checkpoints/ema_WIDTH.ckpt"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a checkpoint whose average has another width, from the snapshots of a run with ema=power."""
    import torch

    from lightning_gen.files import atomic_path
    from lightning_gen.models import read_checkpoint
    from lightning_gen.models.snapshots import reconstruct
    from lightning_gen.tracking.run_directory import open_run

    directory, path = open_run(run)
    target = output or directory.checkpoints / f"ema_{width:g}.ckpt"
    check_free(target, force)
    found = reconstruct(read_checkpoint(path), directory.snapshots, width)

    def save(place: Path) -> None:
        with atomic_path(place) as temporary:
            torch.save(found.checkpoint, temporary)

    write(target, save)
    if found.error > 0.1:
        say(f"note: {found.snapshots} snapshots come no closer to this width than {found.error:.0%}: keep more of them")
    images_seen = found.checkpoint["generative_model"]["images_seen"]
    result = {"output": str(target), "width": width, "images_seen": images_seen}
    report(as_json, {**result, "snapshots": found.snapshots, "profile_error": found.error})
