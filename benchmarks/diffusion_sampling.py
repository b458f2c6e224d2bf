"""Images a second of sampling with a diffusion model: ours against the pipelines of `diffusers`.

    python benchmarks/diffusion_sampling.py [--networks cifar10 digits] [--samplers ddim ddpm] [--rounds 7] [--dry-run]

Both sides have the same weights, schedule, time steps and random numbers, and so must give the same images. ``cifar10``
is the network of Ho et al. 2020 with 35.7 million parameters on 3x32x32, ``digits`` a small one on 1x32x32; weights are
random, on which speed does not depend. The sides take turns in one process, so load on the machine that comes and goes
falls on all; every round gives one ratio. ``--compile`` adds both sides with compiled networks. Rewrites a section of
docs/results.md. Needs `pip install 'lightning-gen[benchmark]'`.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results_page import rewrite_section
from lightning_gen.models.diffusion import Diffusion
from lightning_gen.networks.unet import UNet
from tests.networks.diffusers_unet import reference, weights_of

TOLERANCE = 1e-3
"""Between images in [0, 1]."""


class Setting(NamedTuple):
    """A network, and how much is drawn with it.

    Attributes:
        image_shape: (C, H, W).
        network: options of `UNet`.
        images: at once.
        steps: of the sampler.
    """

    image_shape: tuple[int, int, int]
    network: dict[str, Any]
    images: int
    steps: int


SETTINGS = {
    "cifar10": Setting((3, 32, 32), {}, 32, 4),
    "digits": Setting(
        (1, 32, 32), {"channels": 16, "multipliers": (1, 2, 4), "blocks": 1, "attention_sizes": (8,)}, 64, 20
    ),
}
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
CHOICES = {"clip_sample": True, "prediction_type": "epsilon", "timestep_spacing": "trailing"}


def make_model(setting: Setting, sampler: str) -> Diffusion:
    """Ours, with weights of which none is zero."""
    model = Diffusion(
        image_shape=setting.image_shape,
        network={"_target_": "lightning_gen.networks.unet.UNet", **setting.network},
        optimizer={"name": "Adam"},
        schedule={"name": "linear", "num_steps": 1000},
        target={"name": "noise"},
        weight={"name": "simple"},
        times={"name": "uniform"},
        sampler={"name": sampler, "steps": setting.steps},
    )
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.5)
    return model.eval()


def make_pipeline(model: Diffusion, sampler: str) -> Any:
    """The pipeline of `diffusers` with the weights of a model."""
    assert isinstance(model.network, UNet)
    network = reference(model.network)
    with torch.no_grad():
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.5)
    model.network.load_state_dict(weights_of(network))
    # Time steps are numbered from 0 there and from 1 here.
    network.time_proj.register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))
    if sampler == "ddim":
        pipeline: Any = DDIMPipeline(network, DDIMScheduler(**SCHEDULE, **CHOICES, set_alpha_to_one=True))
    else:
        pipeline = DDPMPipeline(network, DDPMScheduler(**SCHEDULE, **CHOICES, variance_type="fixed_small"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


Draw = Callable[[], Tensor]


def make_sides(setting: Setting, sampler: str, compiled: bool) -> dict[str, Draw]:
    """What draws images (N, C, H, W) in [0, 1], always the same ones: ours and theirs, and both compiled."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = make_model(setting, sampler)
    pipeline = make_pipeline(model, sampler)
    model.to(device)
    pipeline.to(device)
    sides = {"ours": draw_ours(model, setting), "theirs": draw_theirs(pipeline, setting, sampler)}
    if compiled:
        model = copy.deepcopy(model)
        model.compile_networks()
        pipeline = copy.deepcopy(pipeline)
        pipeline.unet.compile()
        sides |= {
            "ours, compiled": draw_ours(model, setting),
            "theirs, compiled": draw_theirs(pipeline, setting, sampler),
        }
    return sides


def draw_ours(model: Diffusion, setting: Setting) -> Draw:
    """By a model of ours."""

    def draw() -> Tensor:
        rng = torch.Generator().manual_seed(0)
        with model.evaluation():
            drawn = model.sample(setting.images, generator=rng)
        return (drawn / 2 + 0.5).clamp(0, 1).cpu()

    return draw


def draw_theirs(pipeline: Any, setting: Setting, sampler: str) -> Draw:
    """By a pipeline of `diffusers`."""
    options = {"use_clipped_model_output": True} if sampler == "ddim" else {}

    def draw() -> Tensor:
        drawn = pipeline(
            setting.images,
            generator=torch.Generator().manual_seed(0),
            num_inference_steps=setting.steps,
            output_type="pt",
            **options,
        ).images
        return drawn.cpu()  # type: ignore[no-any-return]

    return draw


def measure(sides: dict[str, Draw], rounds: int) -> dict[str, list[float]]:
    """Seconds of every side in every round, after one that is not counted, and a check that images are equal."""
    drawn = {name: side() for name, side in sides.items()}
    difference = max(float((each - drawn["theirs"]).abs().max()) for each in drawn.values())
    if difference > TOLERANCE or float(drawn["ours"].std()) < 0.05:
        raise SystemExit(f"the sides give other images: they differ by up to {difference:.2g}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> str:
    """The median of the rounds' ratios, and the smallest and the largest."""
    ratios = [one / other for one, other in zip(slow, fast, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Measure, print and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--samplers", nargs="+", choices=("ddim", "ddpm"), default=["ddim", "ddpm"])
    parser.add_argument("--images", type=int, help="at once, in the place of each network's own")
    parser.add_argument("--steps", type=int, help="in the place of each network's own")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="print, and leave docs/results.md as it is")
    options = parser.parse_args()
    torch.manual_seed(0)

    columns = ["network", "sampler"]
    pairs = [("ours", "theirs"), *([("ours, compiled", "theirs, compiled")] if options.compile else [])]
    for ours, theirs in pairs:
        names = (ours.replace("ours", "lightning_gen"), theirs.replace("theirs", "diffusers"))
        columns += [*(f"{name}, images/s" for name in names), "times faster"]
    columns += ["compiled against not"] if options.compile else []
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for network in options.networks:
        setting = SETTINGS[network]
        setting = setting._replace(images=options.images or setting.images, steps=options.steps or setting.steps)
        for sampler in options.samplers:
            seconds = measure(make_sides(setting, sampler, options.compile), options.rounds)
            shape = "x".join(map(str, setting.image_shape))
            cells = [f"{network}, {shape}", f"{sampler}, {setting.steps} steps, {setting.images} images"]
            for ours, theirs in pairs:
                cells += [f"{setting.images / statistics.median(seconds[name]):.3g}" for name in (ours, theirs)]
                cells.append(ratio(seconds[theirs], seconds[ours]))
            cells += [ratio(seconds["theirs"], seconds["ours, compiled"])] if options.compile else []
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    lines += [
        "",
        f"Medians of {options.rounds} rounds (smallest to largest ratio), {place} ({platform.machine()}), torch "
        f"{torch.__version__.split('+')[0]}. The images of all sides are equal within {TOLERANCE:g} of the range.",
    ]
    if options.dry_run:
        print("\n".join(lines))
    else:
        rewrite_section("diffusion_sampling", lines)


if __name__ == "__main__":
    main()
