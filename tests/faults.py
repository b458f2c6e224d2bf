"""A small run on image files that is killed at random moments of chosen phases, and what must hold after every kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal as signals
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_gen.callbacks.checkpoints import Checkpoints
from lightning_gen.callbacks.pictures import LatentInterpolation, SampleGrid
from lightning_gen.callbacks.scores import Scores
from lightning_gen.data import decoded_cache
from lightning_gen.errors import EXIT_TRY_AGAIN
from lightning_gen.files import write_text
from lightning_gen.models import read_checkpoint
from lightning_gen.tracking.last_checkpoint import damage
from lightning_gen.tracking.record import read_record
from lightning_gen.tracking.run_claim import process_rank
from tests.conftest import ROOT, SMALL, run_command
from tests.end_to_end.test_resume import assert_equal

ITERATIONS = 48
"""Of every run; a checkpoint every 5, scores every 6, pictures every 4 and 8."""
BATCH = 8
PHASES = ("cache", "training", "evaluation", "pictures", "checkpoint")
SIGNALS = ("SIGKILL", "SIGTERM")
ANY = -1
"""In place of a rank: whichever process comes to the phase first."""
KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "generative_model", "global_step", "config")


@dataclass(frozen=True)
class Kill:
    """A signal to one process, at a fraction of a phase's usual time after the phase begins.

    Attributes:
        phase: one of `PHASES`.
        iteration: the first iteration at which the phase may be hit.
        fraction: of the phase's time, in [0, 1).
        signal: its name.
        rank: the process, or `ANY`.
    """

    phase: str
    iteration: int
    fraction: float
    signal: str
    rank: int


@dataclass(frozen=True)
class Outcome:
    """What came of one start of a run.

    Attributes:
        kill: what was planned; None for a start that was left alone.
        fired_at: iterations done when the signal was sent; None if it was not.
        begin: iteration that the start went on from.
        status: exit status.
    """

    kill: Kill | None
    fired_at: int | None
    begin: int
    status: int


class Fault(Callback):
    """Times the phases of a run and sends this process a signal at a moment within one of them.

    Another process sends it, after a delay, so it comes wherever the run then is.

    Args:
        folder: gets ``fired.json`` just before the signal, and ``phases.json`` at the end of a run without one.
        phase: one of `PHASES`; empty for no signal.
        iteration: see `Kill`.
        delay: seconds.
        signal: its name.
        rank: the process.
    """

    def __init__(
        self,
        folder: str,
        phase: str = "",
        iteration: int = 0,
        delay: float = 0.0,
        signal: str = "SIGKILL",
        rank: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.phase = phase if rank in (ANY, process_rank()) else ""
        self.iteration = iteration
        self.delay = delay
        self.signal = signal
        self.position = 0
        self.seconds: dict[str, list[float]] = {name: [] for name in PHASES}
        self._batch = nullcontext()
        self._around(decoded_cache, "_decode_into", "cache")
        self._around(Scores, "measure", "evaluation")
        self._around(SampleGrid, "draw", "pictures")
        self._around(LatentInterpolation, "draw", "pictures")
        self._around(Checkpoints, "save", "checkpoint")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.position = trainer.global_step
        self._batch = self._within("training")
        self._batch.__enter__()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._batch.__exit__(None, None, None)
        self.position = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not (self.folder / "phases.json").exists():
            write_text(self.folder / "phases.json", json.dumps(self.seconds))

    def _around(self, owner: Any, name: str, phase: str) -> None:
        original = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            with self._within(phase):
                return original(*args, **options)

        setattr(owner, name, timed)

    @contextmanager
    def _within(self, phase: str) -> Iterator[None]:
        if phase == self.phase and self.position >= self.iteration:
            self.phase = ""
            write_text(self.folder / "fired.json", json.dumps({"iteration": self.position}))
            number = int(getattr(signals, self.signal))
            # The process that is hit must not wait for the one that hits it, nor lend it its output.
            subprocess.Popen(
                ["sh", "-c", f"sleep {self.delay:.4f}; kill -{number} {os.getpid()}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        begin = time.perf_counter()
        yield
        self.seconds[phase].append(time.perf_counter() - begin)


def make_images(folder: Path, number: int = 120) -> None:
    """JPEG files of smooth noise, the same wherever they are made."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC).save(folder / f"{index:03d}.jpg", quality=95)


def start(images: Path, output: Path, processes: int, kill: Kill | None = None, delay: float = 0.0) -> tuple[int, str]:
    """Start or go on with the run in ``output``; returns its exit status and standard error."""
    images_seen = BATCH // processes * processes
    arguments = [
        *SMALL,
        "data=image_folder",
        f"data.path={images}",
        "data.image_size=32",
        f"data.batch_size={BATCH // processes}",
        "data.test_share=0.2",
        "data.num_workers=0",
        "metrics.num_samples=48",
        f"metrics.cache_dir={output}/cache",
        f"paths.cache_dir={output}/cache",
        f"trainer.max_steps={ITERATIONS}",
        f"trainer={'cpu' if processes == 1 else 'ddp_cpu'}",
        f"callbacks.scores.every_n_images={images_seen * 6}",
        f"callbacks.samples.every_n_images={images_seen * 4}",
        f"callbacks.interpolation.every_n_images={images_seen * 8}",
        "callbacks.checkpoint.every_n_iterations=5",
        "model.generator_optimizer.schedule={name:LinearLR,start_factor:1.0,end_factor:0.1,total_iters:48}",
        "run_name=run",
        "resume=auto",
        "timeout_minutes=1",
        f"paths.output_dir={output}/runs",
        "+callbacks.fault._target_=tests.faults.Fault",
        f"+callbacks.fault.folder={output}",
    ]
    if kill is not None:
        arguments += [
            f"+callbacks.fault.phase={kill.phase}",
            f"+callbacks.fault.iteration={kill.iteration}",
            f"+callbacks.fault.delay={delay:.4f}",
            f"+callbacks.fault.signal={kill.signal}",
            f"+callbacks.fault.rank={kill.rank}",
        ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = run_command("train.py", *arguments, cwd=output, env=environment, timeout=180)
    return result.returncode, result.stderr


def run_path(output: Path) -> Path:
    return output / "runs" / "tiny" / "run"


def phase_seconds(output: Path) -> dict[str, float]:
    """Median seconds of each phase of an undisturbed run in ``output``."""
    seconds = json.loads((output / "phases.json").read_text(encoding="utf-8"))
    return {phase: float(np.median(values)) for phase, values in seconds.items()}


def plan_kills(rng: random.Random, processes: int, phases: tuple[str, ...] = PHASES) -> list[Kill]:
    """One kill in each of the phases, in random order, ever later in the run."""
    order = rng.sample(phases, len(phases))
    iterations = sorted(rng.sample(range(1, ITERATIONS - 14), len(phases)))
    kills = []
    for phase, iteration in zip(order, iterations, strict=True):
        # Only rank zero draws pictures, and only one process decodes images while the others wait for it.
        rank = {"pictures": 0, "cache": ANY}.get(phase, rng.randrange(processes))
        at = 0 if phase == "cache" else iteration
        kills.append(Kill(phase, at, rng.random(), rng.choice((*SIGNALS, "SIGKILL")), rank))
    return kills


def disturb(images: Path, output: Path, processes: int, kills: list[Kill], seconds: dict[str, float]) -> list[Outcome]:
    """Start a run, hit it by one kill after the other with a check of its files after each, and let it end."""
    output.mkdir()
    outcomes = []
    for kill in [*kills, None]:
        if kill is not None and kill.phase == "cache":
            shutil.rmtree(output / "cache", ignore_errors=True)
        begin = last_iteration(run_path(output))
        (output / "fired.json").unlink(missing_ok=True)
        status, stderr = start(images, output, processes, kill, kill.fraction * seconds[kill.phase] if kill else 0.0)
        fired = output / "fired.json"
        at = json.loads(fired.read_text(encoding="utf-8"))["iteration"] if fired.exists() else None
        outcomes.append(Outcome(kill, at, begin, status))
        check_status(kill, processes, status, stderr)
        check_no_torn_file(output)
    return outcomes


def check_status(kill: Kill | None, processes: int, status: int, stderr: str) -> None:
    """A start that is left alone completes; one that is hit ends as its signal says."""
    if kill is None:
        assert status == 0, stderr
    elif processes == 1 and kill.signal == "SIGKILL":
        assert status == -signals.SIGKILL, (kill, status, stderr)
    elif kill.signal == "SIGTERM" and (processes == 1 or kill.phase != "cache"):
        assert status == EXIT_TRY_AGAIN, (kill, status, stderr)
    else:
        assert status not in (0, EXIT_TRY_AGAIN) or kill.phase == "cache", (kill, status, stderr)


def last_iteration(run: Path) -> int:
    """The iteration of a run's last checkpoint; 0 without one."""
    last = run / "checkpoints" / "last.ckpt"
    return int(read_checkpoint(last)["generative_model"]["iteration"]) if last.exists() else 0


def check_no_torn_file(output: Path) -> None:
    """Every picture opens, every JSON parses, every checkpoint loads, every line is whole; cached arrays have their
    size. Files whose names say that they are unfinished do not count."""
    for path in output.rglob("*"):
        unfinished = path.name.endswith(".tmp") or any(part.endswith(".unfinished") for part in path.parts)
        if unfinished or not path.is_file():
            continue
        if path.suffix in (".png", ".gif"):
            with Image.open(path) as picture:
                for frame in range(getattr(picture, "n_frames", 1)):
                    picture.seek(frame)
                    picture.load()
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".ckpt":
            assert damage(path) is None, path
        elif path.suffix == ".jsonl":
            text = path.read_text(encoding="utf-8")
            assert text.endswith("\n") or not text, path
            assert all(json.loads(line) for line in text.splitlines())
        elif path.name == "images.bin":
            shape = json.loads(path.with_name("facts.json").read_text(encoding="utf-8"))["shape"]
            assert path.stat().st_size == np.prod(shape), path


def check_equal_ends(whole: Path, disturbed: Path) -> None:
    """The disturbed run ended as the undisturbed one: weights, average, optimizers, counters, scores, pictures."""
    runs = run_path(whole), run_path(disturbed)
    for name in ("last.ckpt", "best.ckpt"):
        first, second = (read_checkpoint(run / "checkpoints" / name) for run in runs)
        for part in KEPT:
            assert_equal(plain(first[part], whole), plain(second[part], disturbed), f"{name}: {part}")
        assert any(key.startswith("average.") for key in first["state_dict"])
    assert runs[0].joinpath("metrics.jsonl").read_text() == runs[1].joinpath("metrics.jsonl").read_text()
    first, second = (read_record(run / "result.json") for run in runs)
    for key in ("status", "iterations", "images_seen", "scores", "config_digest"):
        assert first[key] == second[key], key
    for folder in ("samples", "interpolations"):
        pictures = [{path.name: path.read_bytes() for path in (run / folder).iterdir()} for run in runs]
        assert pictures[0] == pictures[1], folder
    caches = [
        {path.parent.name: path.read_bytes() for path in output.glob("cache/decoded/*/images.bin")}
        for output in (whole, disturbed)
    ]
    assert caches[0] == caches[1]
    assert caches[0]
    assert [path.name for path in runs[1].parent.iterdir()] == ["run"]
    assert not list(runs[1].rglob("*.tmp"))


def plain(value: Any, output: Path) -> Any:
    """``value`` with the name of the folder that the run is in left out of every text, and no faults."""
    if isinstance(value, dict):
        return {key: plain(item, output) for key, item in value.items() if key != "fault"}
    return value.replace(str(output), "") if isinstance(value, str) else value
