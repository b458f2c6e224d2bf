"""Callbacks that tests hang into runs of their own processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class KillAt(Callback):
    """Ends the process by SIGKILL as an iteration begins, as a machine that dies would."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


class RankSpy(Callback):
    """Writes what each rank drew and what it ended with to ``<folder>/rank<r>.json``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.latents: list[float] = []
        self.images: list[str] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if module.training:
                self.latents.append(float(inputs[0][0, 0]))

        pl_module.generator.register_forward_pre_hook(note)  # type: ignore[operator, union-attr]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any) -> None:
        self.images += [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in batch.images]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        digest = hashlib.sha256()
        for parameter in pl_module.parameters():
            digest.update(parameter.detach().contiguous().numpy().tobytes())
        report = {"latents": self.latents, "images": self.images, "parameters": digest.hexdigest()}
        indices = trainer.datamodule.labelled_indices  # type: ignore[attr-defined]
        report["labelled"] = None if indices is None else indices.tolist()
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(report))


class SlowFirstAttempt(Callback):
    """Drags a Slurm job's first attempt out, so that its time limit comes; notes where each attempt began.

    Args:
        file: gets one line for each attempt: the iteration that it began at.
        seconds: pause after every iteration of the first attempt.
    """

    def __init__(self, file: str, seconds: float) -> None:
        self.file = Path(file)
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            with self.file.open("a") as file:
                file.write(f"{trainer.global_step}\n")

    def on_train_batch_end(self, *args: Any) -> None:
        if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
            time.sleep(self.seconds)
