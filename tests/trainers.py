"""Trainers of tests: one CPU core, and nothing logged, printed or saved."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def quiet_trainer(steps: int, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """A trainer of so many iterations.

    Args:
        steps: iterations.
        callbacks: the only ones.
        options: further ones of `pytorch_lightning.Trainer`.
    """
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
