"""The section "Latent diffusion" of docs/results.md: both stages, and what decoding noise gives in their place.

    python benchmarks/latent_diffusion_results.py [--sets digits mnist] [--data-dir FOLDER] [--seeds 0]
        [--output-dir runs/latent_diffusion] [--table-only] [overrides of all runs ...]

Trains ``kl_autoencoder_SET`` and then ``latent_diffusion_SET`` on it for every set and seed, times short runs of the
second stage with and without its cache of latents, and rewrites the table between the markers and the pictures in
docs/images. Samples of the first stage are decoded draws of N(0, I), scored by its own run under the same protocol;
here draws of the normal law that has every channel's own mean and deviation are scored beside them. Finished runs are
not run again, so it may be stopped and called again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from results_page import IMAGES, completed_records, machine, mean_and_spread, rewrite_section, run_experiments

from lightning_gen.evaluation import load_data, load_evaluator, load_trained
from lightning_gen.metrics.evaluator import Drawn
from lightning_gen.models.latent_diffusion import LatentDiffusion

TIMED = ("trainer.max_steps=300", "metrics=none", "callbacks.samples=null", "callbacks.reconstructions=null")
"""Of the runs whose speed is compared."""


def train(data: str, seed: int, output_dir: Path, overrides: Sequence[str]) -> None:
    """Both stages, one after the other, and the timed runs."""
    place = [f"seed={seed}", f"run_name=seed{seed}", *overrides]
    run_experiments([[f"experiment=kl_autoencoder_{data}", *place]], output_dir, 1)
    first = f"model.first_stage={output_dir / f'kl_autoencoder_{data}' / f'seed{seed}'}"
    second = [f"experiment=latent_diffusion_{data}", first, *place]
    run_experiments([second], output_dir, 1)
    for use_cache in ("true", "false"):
        name = f"experiment_name=latent_diffusion_{data}_cache_{use_cache}"
        run_experiments([[*second, *TIMED, name, f"callbacks.latents.use_cache={use_cache}"]], output_dir, 1)


def score(record: Mapping[str, Any]) -> float:
    """The record's Frechet distance."""
    return next(float(each["value"]) for each in record["scores"] if each["name"].startswith("fd_"))


def scaled_noise(run: Path) -> float:
    """The Frechet distance of decoded draws of the normal law with each channel's mean and deviation."""
    trained = load_trained(run, device="cpu")
    model = trained.model
    assert isinstance(model, LatentDiffusion)

    def draw(number: int, rng: torch.Generator) -> Drawn:
        noise = torch.randn(number, *model.first_stage.latent_shape, generator=rng)
        return Drawn(model.first_stage.decode_maps(model.from_standard(noise)))

    evaluator = load_evaluator(trained, load_data(trained))
    with model.evaluation():
        scores = evaluator.evaluate(draw, images_seen=model.images_seen, weights="ema", sampler={"latents": "normal"})
    return next(each.value for each in scores if each.name.startswith("fd_"))


def table(sets: Sequence[str], seeds: Sequence[int], output_dir: Path) -> list[str]:
    """The section."""
    rows, records = [], []
    for data in sets:
        first = completed_records(f"kl_autoencoder_{data}", seeds, output_dir)
        second = completed_records(f"latent_diffusion_{data}", seeds, output_dir)
        seconds = [
            mean_and_spread([record["train_seconds"] for record in each.values()], 0) for each in (first, second)
        ]
        both = sorted(first.keys() & second.keys())
        if not both:
            continue
        records += [*first.values(), *second.values()]
        noise, found = [score(first[seed]) for seed in both], [score(second[seed]) for seed in both]
        scaled = [scaled_noise(output_dir / f"latent_diffusion_{data}" / f"seed{seed}") for seed in both]
        ratios = [one / other for one, other in zip(noise, found, strict=True)]
        speeds = []
        for use_cache in ("true", "false"):
            timed = completed_records(f"latent_diffusion_{data}_cache_{use_cache}", both, output_dir)
            speeds.append([record["images_per_second"] for record in timed.values()])
        gains = [fast / slow for fast, slow in zip(*speeds, strict=True)]
        counts = second[both[0]]["parameters"]
        cells = [
            mean_and_spread(noise, 1),
            mean_and_spread(scaled, 1),
            mean_and_spread(found, 2),
            mean_and_spread(ratios, 1),
            *seconds,
            f"{counts['network']:,}",
            f"{sum(counts.values()):,}",
            mean_and_spread(gains, 2),
        ]
        rows.append(f"| fd_{data} | {' | '.join(cells)} |")
    if not rows:
        raise SystemExit("no run is finished")
    columns = (
        "score",
        "decoded N(0, I)",
        "with each channel's scale",
        "latent diffusion",
        "N(0, I) over it",
        "first stage s",
        "second stage s",
        "its parameters",
        "with the first stage's",
        "cache speed-up",
    )
    return [
        f"| {' | '.join(columns)} |",
        f"|{' --- |' * len(columns)}",
        *rows,
        "",
        f"Seeds {', '.join(map(str, seeds))}. {machine(records)}.",
    ]


def main() -> None:
    """Train what is missing and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["digits", "mnist"], choices=["digits", "mnist", "cifar10"])
    parser.add_argument("--data-dir", type=Path, help="folder that has MNIST or CIFAR-10")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/latent_diffusion"))
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("overrides", nargs="*", help="of the config of all runs")
    arguments = parser.parse_args()
    output_dir = arguments.output_dir.resolve()
    if not arguments.table_only:
        place = [] if arguments.data_dir is None else [f"paths.data_dir={arguments.data_dir.resolve()}"]
        for data in arguments.sets:
            for seed in arguments.seeds:
                train(data, seed, output_dir, [*place, *arguments.overrides])
    lines = table(arguments.sets, arguments.seeds, output_dir)
    for data in arguments.sets:
        for experiment, title in (
            (f"kl_autoencoder_{data}", "decoded N(0, I)"),
            (f"latent_diffusion_{data}", "samples"),
        ):
            pictures = sorted((output_dir / experiment / f"seed{arguments.seeds[0]}" / "samples").glob("*[0-9].png"))
            if pictures:
                shutil.copyfile(pictures[-1], IMAGES / f"{experiment}.png")
                lines += ["", f"{data}, {title}:", "", f"![{data}, {title}](images/{experiment}.png)"]
    rewrite_section("latent_diffusion", lines)


if __name__ == "__main__":
    main()
