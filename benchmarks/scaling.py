"""Images a second and evaluation time at one and two processes on the CPU; a plan for more GPUs.

    python benchmarks/scaling.py [--rounds 3] [--iterations 30]     rewrites the section of docs/results.md
    python benchmarks/scaling.py --plan                             rewrites the table of docs/clusters.md

Each process has one core and a batch of its own, so two processes see twice the images in an iteration. The runs are
those of ``train.py`` and take turns: one process; two; two whose gradients are not exchanged, which is what the machine
would give if communication cost nothing; and, in the first round, two whose hook waits for each all-reduce and times
it. The evaluation is made again after the run's last iteration, its samples shared between the processes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, distributed
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results_page import ROOT, rewrite_section
from lightning_gen.callbacks.scores import evaluate_model, synchronize_buffers
from lightning_gen.configuration import compose_config
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.models import GenerativeModel
from lightning_gen.tracking.record import package_versions
from lightning_gen.training import build_model, quieten

WARMUP = 5
EXPERIMENTS = ("dcgan_digits", "sngan_digits")
SETUPS = {"one": (1, "reduce"), "two": (2, "reduce"), "apart": (2, "skip"), "timed": (2, "time")}
"""Number of processes, and what happens to gradients."""


class Clock(Callback):
    """Measures a run from inside and writes what it found, as rank zero, to a JSON file.

    Args:
        file: ``seconds`` of the iterations after the warm-up, ``evaluation`` seconds, ``communication`` seconds, and
            ``bytes`` and ``calls`` of all-reduces for an iteration.
        evaluator: the run's.
        gradients: ``reduce`` as DDP does it, ``skip`` it, or ``time`` it.
    """

    def __init__(self, file: str, evaluator: Evaluator, gradients: str = "reduce") -> None:
        self.file = Path(file)
        self.evaluator = evaluator
        self.gradients = gradients
        self.found = {"seconds": 0.0, "evaluation": 0.0, "communication": 0.0, "bytes": 0, "calls": 0}
        self.started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the exchange of gradients."""
        if self.gradients != "reduce":
            trainer.strategy.model.register_comm_hook(None, self._exchange)  # type: ignore[operator, union-attr]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Start after the warm-up, stop after the last iteration but one: the last is scored."""
        if trainer.global_step == WARMUP:
            self.found.update(communication=0.0, bytes=0, calls=0)
            self.started = time.perf_counter()
        elif trainer.global_step == trainer.max_steps - 1:
            self.found["seconds"] = time.perf_counter() - self.started
            iterations = trainer.global_step - WARMUP
            self.found["bytes"] //= iterations
            self.found["calls"] /= iterations
            self.gradients = "done"

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate once more, with all caches filled, and write."""
        assert isinstance(pl_module, GenerativeModel)
        with pl_module.evaluation():
            synchronize_buffers(trainer, pl_module)
            trainer.strategy.barrier()
            started = time.perf_counter()
            evaluate_model(self.evaluator, pl_module, rank=trainer.global_rank, world_size=trainer.world_size)
            self.found["evaluation"] = time.perf_counter() - started
        if trainer.is_global_zero:
            self.file.write_text(json.dumps(self.found))

    def _exchange(self, _, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are strings
        gradients = bucket.buffer()
        if self.gradients == "time":
            self.found["bytes"] += gradients.numel() * gradients.element_size()
            self.found["calls"] += 1
            started = time.perf_counter()
            distributed.all_reduce(gradients.div_(distributed.get_world_size()))
            self.found["communication"] += time.perf_counter() - started
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(gradients)
        return future


class Row(NamedTuple):
    """Medians of one experiment."""

    experiment: str
    batch_size: int
    speeds: dict[str, float]
    evaluations: dict[str, float]
    ratio: float
    lost: float
    waiting: float
    bytes: int
    calls: float


def measure(experiment: str, setup: str, iterations: int, batch_size: int, folder: Path) -> dict[str, float]:
    """What `Clock` found in a run of ``train.py``."""
    processes, gradients = SETUPS[setup]
    file = folder / "clock.json"
    overrides = [
        f"experiment={experiment}", "trainer=cpu" if processes == 1 else "trainer=ddp_cpu", "logger=none",
        f"trainer.max_steps={WARMUP + iterations + 1}", f"data.batch_size={batch_size}", "callbacks.samples=null",
        "callbacks.interpolation=null", "callbacks.checkpoint=null", "callbacks.scores.every_n_images=null",
        f"paths.output_dir={folder}/runs", "+callbacks.clock._target_=benchmarks.scaling.Clock",
        f"+callbacks.clock.file={file}", f"+callbacks.clock.gradients={gradients}",
    ]  # fmt: skip
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "train.py", *overrides]
    subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, float] = json.loads(file.read_text())
    return {**found, "images_per_second": iterations * batch_size * processes / found["seconds"]}


def compare(experiment: str, rounds: int, iterations: int) -> Row:
    """Alternate the setups."""
    batch_size = compose_config([f"experiment={experiment}"])["data"]["batch_size"]
    found: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(rounds):
            order = [setup for setup in SETUPS if setup != "timed" or round_number == 0]
            found.append({
                setup: measure(experiment, setup, iterations, batch_size, Path(folder))
                for setup in order[:: -1 if round_number % 2 else 1]
            })  # fmt: skip
            print(
                experiment, {setup: round(each["images_per_second"]) for setup, each in found[-1].items()}, flush=True
            )

    def median(setup: str, key: str) -> float:
        return statistics.median(each[setup][key] for each in found if setup in each)

    return Row(
        experiment,
        batch_size,
        {setup: median(setup, "images_per_second") for setup in SETUPS},
        {setup: median(setup, "evaluation") for setup in SETUPS},
        statistics.median(each["two"]["images_per_second"] / each["one"]["images_per_second"] for each in found),
        statistics.median(
            1 - each["two"]["images_per_second"] / each["apart"]["images_per_second"] for each in found
        ),
        found[0]["timed"]["communication"] / found[0]["timed"]["seconds"],
        int(found[0]["timed"]["bytes"]),
        found[0]["timed"]["calls"],
    )  # fmt: skip


def table(rows: Sequence[Row], rounds: int) -> list[str]:
    """The section of docs/results.md."""
    lines = [
        "| experiment | images/s, 1 process | 2 processes | ratio | 2, gradients not exchanged | lost to communication "
        "| waiting in all-reduces | MB an iteration | evaluation s, 1 process | 2 processes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.experiment} | {row.speeds['one']:.0f} | {row.speeds['two']:.0f} | {row.ratio:.2f} "
        f"| {row.speeds['apart']:.0f} | {row.lost:.1%} | {row.waiting:.1%} "
        f"| {row.bytes / 1e6:.2f} in {row.calls:.0f} | {row.evaluations['one']:.2f} | {row.evaluations['two']:.2f} |"
        for row in rows
    ]
    sizes = ", ".join(f"{row.batch_size} ({row.experiment})" for row in rows)
    lines += [
        "",
        f"Batches of {sizes} in each process, one thread each on {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"gloo, torch {package_versions()['torch']}; medians of {rounds} rounds.",
    ]
    return lines


class Network(NamedTuple):
    """What the plan assumes of a cluster; docs/clusters.md names the sources.

    Attributes:
        name: of the column.
        gpus: that take part.
        bandwidth: of a ring's slowest link, bytes a second.
        latency: of one all-reduce, seconds.
    """

    name: str
    gpus: int
    bandwidth: float
    latency: float


class Batch(NamedTuple):
    """What a data module would hand to a model."""

    images: Tensor
    labels: Tensor | None


NETWORKS = (
    Network("8 GPUs, NVLink", 8, 370e9, 30e-6),
    Network("64 GPUs, 8 x 400 Gb/s a node", 64, 40e9, 150e-6),
    Network("64 GPUs, 100 Gb/s a node", 64, 10e9, 300e-6),
)
PLANNED = {"dcgan_lsun64": 0, "sngan_lsun128": 0, "biggan_cifar10": 10}
"""Experiments and their numbers of classes."""
SUSTAINED_FLOPS = 20e12
"""What a GPU is assumed to do of these networks a second."""
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
"""Sizes of DDP's first bucket and of the others, bytes."""


def communication_seconds(message: float, calls: float, network: Network) -> float:
    """Time of ring all-reduces: each GPU sends 2 (N - 1) / N of the message over the slowest link.

    Args:
        message: bytes of one iteration, all calls together.
        calls: all-reduces of one iteration.
        network: what they go over.
    """
    return 2 * (network.gpus - 1) / network.gpus * message / network.bandwidth + calls * network.latency


class Cost(NamedTuple):
    """Of one iteration on one GPU: images, parameters, operations, bytes in all-reduces, and their number."""

    images: int
    parameters: int
    flops: float
    message: float
    calls: int


def iteration_cost(experiment: str, classes: int) -> Cost:
    """Count an iteration, by running a small batch of noise here: operations grow with the batch."""
    config = compose_config([f"experiment={experiment}"])
    batch_size, options = config["data"]["batch_size"], config["model"]
    steps = options["discriminator_steps"]
    small = 4 * steps
    if options["generator_batch_size"]:
        options["generator_batch_size"] = max(1, options["generator_batch_size"] * small // batch_size)
    shape = (3, config["data"]["image_size"], config["data"]["image_size"])
    law = [1 / classes] * classes if classes else None
    data = SimpleNamespace(image_shape=shape, num_classes=classes, label_law=law, labelled_per_class=None)
    model = build_model(config, data)  # type: ignore[arg-type]
    labels = torch.arange(small) % classes if classes else None
    batch = Batch(torch.rand(small, *shape) * 2 - 1, labels)
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        trainer.fit(model, train_dataloaders=DataLoader([batch], batch_size=None))
    parameters = sum(model.parameter_counts().values())
    # Each optimizer's step exchanges the gradients of both networks, those of the other one as zeros, and a map of
    # which parameters were used.
    calls = (steps + 1) * (2 + math.ceil(max(0, 4 * parameters - FIRST_BUCKET) / BUCKET))
    return Cost(
        batch_size, parameters, counter.get_total_flops() * batch_size / small, 4 * parameters * (steps + 1), calls
    )


def plan() -> list[str]:
    """The table of docs/clusters.md."""
    quieten()
    heads = ["experiment", "images", "parameters", "MB in all-reduces", "compute ms"]
    heads += [f"{network.name}: ms, images/s, efficiency" for network in NETWORKS]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for experiment, classes in PLANNED.items():
        cost = iteration_cost(experiment, classes)
        compute = cost.flops / SUSTAINED_FLOPS
        cells = [
            f"`{experiment}`", str(cost.images), f"{cost.parameters / 1e6:.1f} M",
            f"{cost.message / 1e6:.0f} in {cost.calls}", f"{compute * 1e3:.1f}",
        ]  # fmt: skip
        for network in NETWORKS:
            exchange = communication_seconds(cost.message, cost.calls, network)
            speed = network.gpus * cost.images / (compute + exchange)
            cells.append(f"{exchange * 1e3:.1f}, {speed:,.0f}, {compute / (compute + exchange):.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and rewrite the section of results, or the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--plan", action="store_true")
    options = parser.parse_args()
    if options.plan:
        rewrite_section("plan", plan(), ROOT / "docs" / "clusters.md")
        return
    rows = [compare(experiment, options.rounds, options.iterations) for experiment in EXPERIMENTS]
    rewrite_section("scaling", table(rows, options.rounds))


if __name__ == "__main__":
    main()
