"""Images a second of GAN training: the Lightning run against hand-written loops.

    python benchmarks/training_step.py [--models dcgan wgan_gp sngan] [--base-channels 64] [--rounds 5] [--compile] ...
    python benchmarks/training_step.py --models pix2pix cyclegan [--image-size 256] [--batch-size 1] ...

Both sides train the same networks with the same optimizers, moving average (pix2pix and CycleGAN without one, as in
their experiments), batches and images, and alternate in one process; the Lightning side has the monitors and the
progress bar of a real run. Both give the generator the fake images of the last discriminator step. Prints the medians
and the median of the ratios of each round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus
from translation_loops import LOOPS, Batches, build, translation_config

from lightning_gen.callbacks.monitors import Throughput
from lightning_gen.callbacks.progress import TrainingProgress
from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.models import GenerativeModel
from lightning_gen.registry import construct
from lightning_gen.training import build_model, quieten

WARMUP = 5
HALF_LIFE = 10_000
BATCH_SIZE = 64
RATES = {"lr": 2e-4, "betas": [0.5, 0.999]}


class Recipe(NamedTuple):
    """What differs between the hand-written loops.

    Attributes:
        steps: of the discriminator for one of the generator.
        discriminator_loss: of the discriminator, real and fake images.
        generator_loss: of the fake images' logits.
    """

    steps: int
    discriminator_loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    generator_loss: Callable[[Tensor], Tensor]


def dcgan_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Cross entropy."""
    return softplus(-discriminator(real).logits).mean() + softplus(discriminator(fake).logits).mean()


def wgan_gp_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Wasserstein loss and gradient penalty."""
    between = torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1, device=real.device)).requires_grad_(True)
    (gradients,) = torch.autograd.grad(discriminator.forward(between).logits.sum(), between, create_graph=True)
    penalty = (gradients.flatten(1).norm(dim=1) - 1).square().mean()
    return discriminator(fake).logits.mean() - discriminator(real).logits.mean() + 10 * penalty


def sngan_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Hinge."""
    return relu(1 - discriminator(real).logits).mean() + relu(1 + discriminator(fake).logits).mean()


RECIPES = {
    "dcgan": Recipe(1, dcgan_loss, lambda logits: softplus(-logits).mean()),
    "wgan_gp": Recipe(5, wgan_gp_loss, lambda logits: -logits.mean()),
    "sngan": Recipe(5, sngan_loss, lambda logits: -logits.mean()),
}


def make_model(name: str, base_channels: int, data: DigitsDataModule) -> GenerativeModel:
    """The model of configs/model with its moving average, equal rates for all and no schedule."""
    overrides = [f"model.{network}.base_channels={base_channels}" for network in ("generator", "discriminator")]
    config = compose_config([f"model={name}", "ema.rampup_ratio=null", "model.generator_batch_size=null", *overrides])
    for player in ("generator", "discriminator"):
        config["model"][f"{player}_optimizer"] = {"name": "Adam", **RATES}
    return build_model(config, data)


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


def make_translation(name: str, arguments: argparse.Namespace) -> tuple[GenerativeModel, ImageDataModule]:
    """The same of a model that translates, with its data."""
    overrides = [
        f"model.{network}.base_channels={arguments.base_channels}" for network in ("generator", "discriminator")
    ]
    config = translation_config(name, arguments.image_size, arguments.batch_size, *overrides)
    return build(config)


def time_lightning(name: str, arguments: argparse.Namespace, data: ImageDataModule, device: torch.device) -> float:
    """Seconds of ``iterations`` under the trainer."""
    if isinstance(data, DigitsDataModule):
        model = make_model(name, arguments.base_channels, data)
    else:
        model, data = make_translation(name, arguments)
    return time_trainer(model, data, arguments, device)


def time_trainer(
    model: GenerativeModel, data: ImageDataModule, arguments: argparse.Namespace, device: torch.device
) -> float:
    """Seconds of ``iterations`` of a model under the trainer, with the monitors and the progress bar of a real run."""
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


def time_hand_written(name: str, arguments: argparse.Namespace, data: ImageDataModule, device: torch.device) -> float:
    """Seconds of ``iterations`` of a plain PyTorch loop."""
    if not isinstance(data, DigitsDataModule):
        return time_hand_written_translation(name, arguments, device)
    recipe = RECIPES[name]
    model = make_model(name, arguments.base_channels, data).to(device)
    generator: nn.Module = model.generator  # type: ignore[assignment]
    discriminator: nn.Module = model.discriminator  # type: ignore[assignment]
    latent_dim: int = model.prior.dim  # type: ignore[assignment]
    average = copy.deepcopy(generator).requires_grad_(False)
    if arguments.compile:
        generator.compile()
        discriminator.compile()
    adam_g = torch.optim.Adam(generator.parameters(), **RATES)  # type: ignore[arg-type]
    adam_d = torch.optim.Adam(discriminator.parameters(), **RATES)  # type: ignore[arg-type]
    images = data.split("train").images.to(device)
    order = torch.randperm(len(images), device=device)
    batches = len(images) // data.batch_size
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")
    started = 0.0
    for iteration in range(WARMUP + arguments.iterations):
        if iteration % batches == 0:
            order = torch.randperm(len(images), device=device)
        if iteration == WARMUP:
            synchronize(device)
            started = time.perf_counter()
        first = iteration % batches * data.batch_size
        parts = (images[order[first : first + data.batch_size]].float() / 127.5 - 1).chunk(recipe.steps)
        for step, real in enumerate(parts, start=1):
            with autocast, torch.set_grad_enabled(step == recipe.steps):
                fake = generator(torch.randn(len(real), latent_dim, device=device))
            with autocast:
                loss = recipe.discriminator_loss(discriminator, real, fake.detach())
            adam_d.zero_grad()
            loss.backward()
            adam_d.step()
        discriminator.requires_grad_(False)
        with autocast:
            loss = recipe.generator_loss(discriminator(fake).logits)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        with torch.no_grad():
            keep = 0.5 ** (data.batch_size / HALF_LIFE)
            torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 1 - keep)
            for copied, buffer in zip(average.buffers(), generator.buffers(), strict=True):
                copied.copy_(buffer)
    synchronize(device)
    return time.perf_counter() - started


def time_hand_written_translation(name: str, arguments: argparse.Namespace, device: torch.device) -> float:
    """The same of pix2pix or CycleGAN."""
    model, data = make_translation(name, arguments)
    model.to(device)
    if arguments.compile:
        model.compile_networks()
    batches = Batches(name, data, device)
    iterate = LOOPS[name](
        model, RATES, torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")
    )
    started = 0.0
    for iteration in range(WARMUP + arguments.iterations):
        if iteration == WARMUP:
            synchronize(device)
            started = time.perf_counter()
        iterate(*batches[iteration])
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(name: str, arguments: argparse.Namespace, device: torch.device) -> None:
    """Alternate the two sides and print the ratio."""
    if name in LOOPS:
        batch_size, what = arguments.batch_size, f"{arguments.batch_size} of {arguments.image_size} pixels"
        _, data = make_translation(name, arguments)
    else:
        batch_size, what = BATCH_SIZE * RECIPES[name].steps, f"{RECIPES[name].steps} x {BATCH_SIZE} images"
        data = construct({**compose_config([])["data"], "batch_size": batch_size}, DigitsDataModule)
    images = arguments.iterations * batch_size
    rows = []
    for round_number in range(arguments.rounds):
        sides = [time_lightning, time_hand_written]
        if round_number % 2:
            sides.reverse()
        seconds = {side: side(name, arguments, data, device) for side in sides}
        rows.append((images / seconds[time_lightning], images / seconds[time_hand_written]))
    ours, plain = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(one / other for one, other in rows)
    print(
        f"{name}, {device.type} {arguments.precision}{' compiled' if arguments.compile else ''}, "
        f"{arguments.base_channels} base channels, {what}: lightning_gen "
        f"{ours:.4g} images/s, hand-written {plain:.4g} images/s, ratio {ratio:.3f} "
        f"(rounds: {', '.join(f'{one / other:.3f}' for one, other in rows)})",
        flush=True,
    )


def main() -> None:
    """Compare the models one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*RECIPES, *LOOPS], default=list(RECIPES))
    parser.add_argument("--base-channels", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=256, help="of pix2pix and cyclegan")
    parser.add_argument("--batch-size", type=int, default=1, help="of pix2pix and cyclegan")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    quieten()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in arguments.models:
        compare(name, arguments, device)


if __name__ == "__main__":
    main()
