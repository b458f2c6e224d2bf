"""Images a second of diffusion training: the Lightning run against a hand-written loop.

    python benchmarks/diffusion_step.py [--model ddpm_small] [--batch-size 64] [--rounds 5] [--compile] [key=value ...]

Both sides train the same U-Net on the digits, 1x32x32, by the objective of Ho et al. 2020 (algorithm 1), with Adam, the
gradient's norm clipped to 1, a moving average and the same batches, and take turns in one process; the Lightning side
has the monitors and the progress bar of a real run. Further arguments are changes of the config, as
``model.network.channels=64``. Prints the medians and the median of the ratios of each round.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from training_step import HALF_LIFE, WARMUP, synchronize, time_trainer

from lightning_gen.configuration import compose_config
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.models.diffusion import Diffusion
from lightning_gen.registry import construct
from lightning_gen.training import build_model, quieten

RATES = {"lr": 2e-4, "betas": [0.9, 0.999]}
STEPS = 1000


def make_model(arguments: argparse.Namespace, data: DigitsDataModule) -> Diffusion:
    """The model of the config with its moving average, and no schedule of the rate."""
    config = compose_config(
        [
            f"model={arguments.model}",
            "ema.rampup_ratio=null",
            "model.gradient_clip_norm=1.0",
            f"+model.schedule.num_steps={STEPS}",
            *arguments.overrides,
        ]
    )
    config["model"]["optimizer"] = {"name": "Adam", **RATES}
    config["ema"]["half_life_images"] = HALF_LIFE
    model = build_model(config, data)
    assert isinstance(model, Diffusion)
    return model


def time_lightning(arguments: argparse.Namespace, data: DigitsDataModule, device: torch.device) -> float:
    """Seconds of ``iterations`` under the trainer."""
    model = make_model(arguments, data)
    return time_trainer(model, data, arguments, device)


def time_hand_written(arguments: argparse.Namespace, data: DigitsDataModule, device: torch.device) -> float:
    """Seconds of ``iterations`` of a plain PyTorch loop."""
    network = make_model(arguments, data).network.to(device)
    average = copy.deepcopy(network).requires_grad_(False)
    if arguments.compile:
        network.compile()
    adam = torch.optim.Adam(network.parameters(), **RATES)  # type: ignore[arg-type]
    kept = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64).neg().add(1).cumprod(0)
    of_image, of_noise = kept.sqrt().float().to(device), (1 - kept).sqrt().float().to(device)
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
        real = images[order[first : first + data.batch_size]].float() / 127.5 - 1
        noise = torch.randn_like(real)
        steps = torch.randint(STEPS, (len(real),), device=device)
        noisy = of_image[steps].view(-1, 1, 1, 1) * real + of_noise[steps].view(-1, 1, 1, 1) * noise
        with autocast:
            predicted = network(noisy, steps.float() + 1)
        loss = (predicted.float() - noise).square().mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            keep = 0.5 ** (data.batch_size / HALF_LIFE)
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
    synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    """Alternate the two sides and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ddpm_small", help="of configs/model, with the target noise")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("overrides", nargs="*", help="key=value changes of the config")
    arguments = parser.parse_args()
    quieten()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = construct({**compose_config([])["data"], "batch_size": arguments.batch_size}, DigitsDataModule)
    images = arguments.iterations * arguments.batch_size
    rows = []
    for round_number in range(arguments.rounds):
        sides = [time_lightning, time_hand_written]
        if round_number % 2:
            sides.reverse()
        seconds = {side: side(arguments, data, device) for side in sides}
        rows.append((images / seconds[time_lightning], images / seconds[time_hand_written]))
    ours, plain = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [one / other for one, other in rows]
    print(
        f"{arguments.model}, {device.type} {arguments.precision}{' compiled' if arguments.compile else ''}, "
        f"{arguments.batch_size} images: lightning_gen {ours:.4g} images/s, hand-written {plain:.4g} images/s, ratio "
        f"{statistics.median(ratios):.3f} (rounds: {', '.join(f'{ratio:.3f}' for ratio in ratios)})",
        flush=True,
    )


if __name__ == "__main__":
    main()
