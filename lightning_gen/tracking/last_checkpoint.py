"""The newest checkpoint of a run that is whole."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

from lightning_gen.errors import UserError, first_line
from lightning_gen.files import link
from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.run_directory import RunDirectory


def mend_last_checkpoint(run: RunDirectory) -> None:
    """Let ``last.ckpt`` name the newest numbered checkpoint that is whole, if it does not itself hold one.

    Nothing is done for a run without checkpoints. Only one process may call it.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    last = run.last_checkpoint
    numbered = sorted(run.checkpoints.glob("iteration_*.ckpt"), reverse=True)
    if not last.exists() and not numbered:
        return
    reason = damage(last)
    if reason is None:
        return
    for path in numbered:
        is_last = last.exists() and os.path.samefile(path, last)
        if not is_last and damage(path) is None:
            print(f"warning: {last} is damaged ({reason}): going on from {path}", file=sys.stderr)
            link(path, last)
            return
    raise UserError(
        f"{last} is damaged ({reason}) and no whole checkpoint is beside it: choose another run_name to start anew"
    )


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, on one line; None for a whole one.

    `torch.load` notices a file that was cut, but not one whose bytes have changed: it does not compare the checksums
    that `torch.save` keeps of every tensor, and this does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is not None:
            return f"the checksum of {changed} is wrong"
        read_checkpoint(path)
    except FileNotFoundError:
        return "it is missing"
    except (OSError, ValueError, zipfile.BadZipFile, UserError) as error:
        return first_line(error)
    return None
