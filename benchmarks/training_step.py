"""Images a second of DCGAN training: the Lightning run against a hand-written loop.

    python benchmarks/training_step.py [--base-channels 64] [--rounds 5] [--iterations 60] [--compile] ...

Both sides train the same networks with the same optimizers, moving average, batches and images, and alternate in one
process; the Lightning side has the monitors and the progress bar of a real run. Prints the medians and the median of
the ratios of each round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import softplus

from lightning_gen.callbacks.monitors import Throughput
from lightning_gen.callbacks.progress import TrainingProgress
from lightning_gen.configuration import compose_config
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.models import GenerativeModel
from lightning_gen.registry import construct
from lightning_gen.training import build_model, quieten

WARMUP = 10
HALF_LIFE = 10_000


def make_model(base_channels: int, data: DigitsDataModule) -> GenerativeModel:
    """DCGAN with its moving average."""
    overrides = [f"model.{name}.base_channels={base_channels}" for name in ("generator", "discriminator")]
    return build_model(compose_config(["model=dcgan", "ema.rampup_ratio=null", *overrides]), data)


class Clock(pl.Callback):
    """Times the iterations after the warm-up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started = self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start after the warm-up, stop after the last iteration."""
        if trainer.global_step in (WARMUP, trainer.max_steps):
            synchronize(self.device)
            now = time.perf_counter()
            self.started, self.seconds = (now, 0.0) if trainer.global_step == WARMUP else (0.0, now - self.started)


def time_lightning(arguments: argparse.Namespace, data: DigitsDataModule, device: torch.device) -> float:
    """Seconds of ``iterations`` under the trainer."""
    model = make_model(arguments.base_channels, data)
    if arguments.compile:
        model.compile_networks()
    options = {
        key: value for key, value in compose_config([])["trainer"].items() if key not in ("_target_", "max_steps")
    }
    if arguments.precision == "bf16":
        options["precision"] = "bf16-mixed"
    clock = Clock(device)
    trainer = pl.Trainer(
        **{**options, "accelerator": "gpu" if device.type == "cuda" else "cpu"},
        max_steps=WARMUP + arguments.iterations,
        callbacks=[Throughput(), TrainingProgress(), clock],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, datamodule=data)
    return clock.seconds


def time_hand_written(arguments: argparse.Namespace, data: DigitsDataModule, device: torch.device) -> float:
    """Seconds of ``iterations`` of a plain PyTorch loop."""
    model = make_model(arguments.base_channels, data).to(device)
    generator: nn.Module = model.generator  # type: ignore[assignment]
    discriminator: nn.Module = model.discriminator  # type: ignore[assignment]
    average = copy.deepcopy(generator).requires_grad_(False)
    if arguments.compile:
        generator.compile()
        discriminator.compile()
    adam_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    images = data.split("train").images.to(device)
    order = torch.randperm(len(images), device=device)
    size = data.batch_size
    batches = len(images) // size
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")
    started = 0.0
    for step in range(WARMUP + arguments.iterations):
        if step % batches == 0:
            order = torch.randperm(len(images), device=device)
        if step == WARMUP:
            synchronize(device)
            started = time.perf_counter()
        first = step % batches * size
        real = images[order[first : first + size]].float() / 127.5 - 1
        with autocast:
            fake = generator(torch.randn(size, 100, device=device))
            loss = softplus(-discriminator(real).logits).mean() + softplus(discriminator(fake.detach()).logits).mean()
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        with autocast:
            loss = softplus(-discriminator(fake).logits).mean()
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.parameters()), list(generator.parameters()), 1 - 0.5 ** (size / HALF_LIFE)
            )
            for copied, buffer in zip(average.buffers(), generator.buffers(), strict=True):
                copied.copy_(buffer)
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Alternate the two sides and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    quieten()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = {**compose_config([])["data"], "batch_size": 64}
    data = construct(spec, DigitsDataModule)
    images = arguments.iterations * data.batch_size
    rows = []
    for round_number in range(arguments.rounds):
        sides = [time_lightning, time_hand_written]
        if round_number % 2:
            sides.reverse()
        seconds = {side: side(arguments, data, device) for side in sides}
        rows.append((images / seconds[time_lightning], images / seconds[time_hand_written]))
    ours, plain = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(one / other for one, other in rows)
    print(
        f"{device.type} {arguments.precision}{' compiled' if arguments.compile else ''}, {arguments.base_channels} base"
        f" channels, batch {data.batch_size}: lightning_gen {ours:.0f} images/s, hand-written {plain:.0f} images/s, "
        f"ratio {ratio:.3f} (rounds: {', '.join(f'{one / other:.3f}' for one, other in rows)})"
    )


if __name__ == "__main__":
    main()
