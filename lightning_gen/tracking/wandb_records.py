"""Run records of a W&B project, for the leaderboard."""

from __future__ import annotations

import os

from lightning_gen.errors import UserError, first_line
from lightning_gen.tracking.record import parse_record
from lightning_gen.tracking.record_files import FoundRun, drop_unusable_scores
from lightning_gen.tracking.wandb_account import RECORD_KEY, wandb_key_is_configured

UNFINISHED = ("running", "pending")


def read_project(path: str) -> tuple[list[FoundRun], list[str]]:
    """The run records in the summaries of a W&B project's runs, and a line for each that could not be used.

    Runs that still go on are left out, and so are runs that were not logged by this framework.

    Args:
        path: ``ENTITY/PROJECT``.

    Raises:
        UserError: W&B is offline, has no key or no such project, or cannot be reached.
    """
    if path.count("/") != 1 or not all(path.split("/")):
        raise UserError(f"--wandb takes ENTITY/PROJECT, not {path!r}")
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        raise UserError(f"--wandb reads from the server, but WANDB_MODE is {os.environ['WANDB_MODE']}: unset it")
    if not wandb_key_is_configured():
        raise UserError("--wandb needs an account: run `wandb login` or set WANDB_API_KEY")
    import wandb

    found, problems = [], []
    try:
        for run in wandb.Api().runs(path, per_page=100, lazy=False):
            text = run.summary_metrics.get(RECORD_KEY)
            if run.state in UNFINISHED or text is None:
                continue
            try:
                record = parse_record(text if isinstance(text, str) else "", run.url)
            except UserError as error:
                problems.append(str(error))
                continue
            problems += drop_unusable_scores(record, run.url)
            found.append(FoundRun(record, run.url))
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(f"Cannot read the W&B project {path}: {first_line(error)}") from error
    return found, problems
