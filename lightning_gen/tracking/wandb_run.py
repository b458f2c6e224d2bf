"""The W&B logger of a run."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger

from lightning_gen.files import write_text
from lightning_gen.tracking.record import with_schema
from lightning_gen.tracking.wandb_account import RECORD_KEY, wandb_key_is_configured


class WandbRunLogger(WandbLogger):
    """A W&B run in the run directory; it never asks a question.

    Its curves have images seen on their axis; the summary of a score is its best value. The run's id is kept in the
    file ``wandb_id`` of the run directory, so that a resumed run stays the same W&B run.

    Args:
        run_path: the run directory.
        group: W&B group (the experiment).
        scores: score name -> whether lower is better.
        project: W&B project.
        entity: W&B user or team; None for the default.
        mode: ``online``, ``offline``, or ``auto``: online where an API key is configured, else offline.
        tags: W&B tags.
    """

    def __init__(
        self,
        run_path: Path,
        group: str,
        scores: Mapping[str, bool],
        project: str = "lightning_gen",
        entity: str | None = None,
        mode: str = "auto",
        tags: Iterable[str] = (),
    ) -> None:
        id_file = run_path / "wandb_id"
        if not id_file.exists():
            write_text(id_file, secrets.token_hex(4))
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if wandb_key_is_configured() else "offline")
        run = wandb.init(
            project=project,
            entity=entity,
            name=run_path.name,
            group=group,
            id=id_file.read_text(encoding="utf-8"),
            dir=run_path,
            mode=mode,  # type: ignore[arg-type]
            tags=list(tags),
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(console="off", silent=True),
        )
        run.define_metric("images_seen", hidden=True)
        run.define_metric("*", step_metric="images_seen")
        for score, lower_is_better in scores.items():
            summary = "min" if lower_is_better else "max"
            run.define_metric(f"score/{score}", step_metric="images_seen", summary=summary)
        if mode == "offline":
            print(f"W&B is offline; upload this run with: wandb sync {Path(run.dir).parent}", file=sys.stderr)
        super().__init__(experiment=run, save_dir=run_path)
        self._recorded = self._finished = False

    def finalize(self, status: str) -> None:
        """Close the W&B run, so that its file is whole and a next run in this process gets its own.

        Lightning calls it at the end of the fit too, when the run does not have its record yet: then nothing is done.
        """
        if self._recorded and not self._finished:
            self._finished = True
            self.experiment.finish(exit_code=0 if status == "success" else 1)

    def log_record(self, record: Mapping[str, Any]) -> None:
        """Keep the run record in the run's summary, where the leaderboard reads it (`wandb_records.read_project`).

        As a text: W&B would turn a dictionary into one column for every number in it.
        """
        self._recorded = True
        self.experiment.summary[RECORD_KEY] = json.dumps(with_schema(record))

    def log_picture(self, name: str, path: Path, images_seen: int) -> None:
        """Log a PNG or GIF file as it is; arrays would be rescaled or wrapped on the way."""
        media = wandb.Video(str(path), format="gif") if path.suffix == ".gif" else wandb.Image(str(path))
        self.experiment.log({name: media, "images_seen": images_seen})
