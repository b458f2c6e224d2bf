"""Callbacks that tests hang into runs of their own processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal as signals
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_gen.callbacks.schedule import find_callback
from lightning_gen.callbacks.scores import Scores
from lightning_gen.models import GenerativeModel


class SignalAt(Callback):
    """Sends this process a signal as an iteration begins.

    Args:
        iteration: which one, counted from 0.
        signal: its name.
        rank: the process.
        times: how often.
        whole_group: whether to send it to all processes of this one's group, as a terminal does.
    """

    def __init__(self, iteration: int, signal: str, rank: int = 0, times: int = 1, whole_group: bool = False) -> None:
        self.target = 0 if whole_group else os.getpid()
        self.iteration = iteration
        self.signal = signal
        self.rank = rank
        self.times = times

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.iteration and trainer.global_rank == self.rank:
            for _ in range(self.times):
                os.kill(self.target, getattr(signals, self.signal))


class KillAt(SignalAt):
    """Ends the process by SIGKILL as an iteration begins, as a machine that dies would."""

    def __init__(self, iteration: int, rank: int = 0) -> None:
        super().__init__(iteration, "SIGKILL", rank)


class HangAt(Callback):
    """One process stops moving as an iteration begins, after it wrote its number to a file."""

    def __init__(self, iteration: int, rank: int, file: str) -> None:
        self.iteration = iteration
        self.rank = rank
        self.file = Path(file)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.iteration and trainer.global_rank == self.rank:
            self.file.write_text(str(os.getpid()))
            self.hang()

    def hang(self) -> None:
        time.sleep(3600)


class ScoreAlone(Callback):
    """Rank zero alone scores the model before an iteration, which every rank should do."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.iteration and trainer.is_global_zero:
            scores = find_callback(trainer, Scores)
            assert scores is not None
            assert isinstance(pl_module, GenerativeModel)
            scores.score(trainer, pl_module)


class WaitAt(Callback):
    """Says that an iteration is reached by making one file, and waits there for another."""

    def __init__(self, iteration: int, reached: str, go_on: str) -> None:
        self.iteration = iteration
        self.reached = Path(reached)
        self.go_on = Path(go_on)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.iteration:
            self.reached.touch()
            while not self.go_on.exists():
                time.sleep(0.05)


class CommandAt(Callback):
    """Runs a shell command as an iteration begins."""

    def __init__(self, iteration: int, command: str) -> None:
        self.iteration = iteration
        self.command = command

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.iteration:
            subprocess.run(self.command, shell=True, check=True)


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
