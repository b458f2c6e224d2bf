"""The tables of GANs in docs/results.md: every experiment of a data set at one budget of training time.

    python benchmarks/gan_results.py digits [--seeds 0 1 2]
    python benchmarks/gan_results.py mnist --data-dir FOLDER [--seeds 0]
    python benchmarks/gan_results.py cifar10 --data-dir FOLDER      # needs a GPU

Runs ``train.py experiment=MODEL_DATA`` for every model and seed, ``--jobs`` at a time, and rewrites the data set's
section and its picture of samples. Runs that are finished are not run again, so it may be stopped and called again;
``--table-only`` writes what is there.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_page import (
    ROOT,
    completed_records,
    machine,
    mean_and_spread,
    rewrite_section,
    run_experiments,
    sample_sheet,
)

from lightning_gen.configuration import compose_config
from lightning_gen.models.gan import GAN

EXPERIMENTS = ROOT / "configs" / "experiment"
SCORES = ("fd", "recall", "coverage", "missing_modes", "class_accuracy")


def models(data: str) -> list[str]:
    """Every GAN with an experiment on ``data`` that draws images as its purpose."""
    names = sorted(path.stem for path in EXPERIMENTS.glob(f"[!_]*_{data}.yaml"))
    classes = {name: compose_config([f"experiment={name}"])["model"]["_target_"] for name in names}
    gan = f"{GAN.__module__}.{GAN.__qualname__}"
    return [name.removesuffix(f"_{data}") for name in names if classes[name] == gan]


def overrides(model: str, data: str, seed: int, data_dir: Path | None) -> list[str]:
    """The run of a model and a seed."""
    name = f"{model}_{data}"
    run = [f"experiment={name}", f"experiment_name={name}", f"seed={seed}", f"run_name=seed{seed}"]
    return [*run, f"paths.data_dir={data_dir.resolve()}"] if data_dir else run


def row(model: str, data: str, runs: Sequence[dict[str, Any]]) -> str:
    """A line of the table."""
    if not runs:
        return f"| {model} | not run |" + " |" * 9
    cells = []
    for name in SCORES:
        values = [score["value"] for run in runs for score in run["scores"] if _kind(score["name"], data) == name]
        cells.append(mean_and_spread(values, 2 if name == "fd" else 1 if name == "missing_modes" else 3))
    mean = {key: statistics.mean(run[key] for run in runs) for key in ("train_seconds", "images_per_second")}
    run = runs[0]
    parameters = sum(run["parameters"].values())
    return (
        f"| {model} | {' | '.join(cells)} | {run['images_seen']:,} | {run['iterations']:,} "
        f"| {mean['train_seconds']:.0f} | {mean['images_per_second']:.0f} | {parameters:,} |"
    )


def _kind(name: str, data: str) -> str:
    return "fd" if name == "fid" else name.removesuffix(f"_{data}").removesuffix("_inception")


def table(data: str, seeds: Sequence[int], output_dir: Path) -> list[str]:
    """The table, best first, and a line on its protocol."""
    names = models(data)
    runs = {name: list(completed_records(f"{name}_{data}", seeds, output_dir).values()) for name in names}
    order = sorted(runs, key=lambda model: statistics.mean(_fds(runs[model])) if runs[model] else math.inf)
    hashes = {run["scores"][0]["protocol_hash"] for group in runs.values() for run in group}
    several = f"Seeds {', '.join(map(str, seeds))}: mean ± standard deviation"
    shown_seeds = several if len(seeds) > 1 else f"Seed {seeds[0]}"
    distance = "fid" if data == "cifar10" else f"fd_{data}"
    lines = [
        f"| model | {distance} | recall | coverage | missing classes | label accuracy | images seen | iterations | "
        "training s | images/s | parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(model, data, runs[model]) for model in order),
    ]
    if not hashes:
        return lines
    return [
        *lines,
        "",
        f"{shown_seeds}. {machine(run for group in runs.values() for run in group)}. "
        f"Protocols of fd_{data}, by label law: {', '.join(f'`{value}`' for value in sorted(hashes))}.",
    ]


def _fds(runs: Sequence[dict[str, Any]]) -> list[float]:
    return [run["scores"][0]["value"] for run in runs]


def main() -> None:
    """Run, and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist", "cifar10"))
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/results"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    data, output_dir = arguments.data, arguments.output_dir.resolve()
    seeds = arguments.seeds or ([0, 1, 2] if data == "digits" else [0])
    if not arguments.table_only:
        chosen = [(seed, model) for seed in seeds for model in arguments.models or models(data)]
        runs = [overrides(model, data, seed, arguments.data_dir) for seed, model in chosen]
        run_experiments(runs, output_dir, arguments.jobs)
    lines = table(data, seeds, output_dir)
    found = {model: f"{model}_{data}" for model in models(data)}
    shown = sample_sheet(found, seeds[0], output_dir, f"gan_{data}")
    if shown is not None:
        lines += ["", f"![samples of every model](images/{shown.name})"]
    rewrite_section(f"gan_{data}", lines)


if __name__ == "__main__":
    main()
