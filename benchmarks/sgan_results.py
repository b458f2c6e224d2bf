"""The table of SGAN on MNIST in docs/results.md: test errors with 100 labels, over draws of the labels.

    python benchmarks/sgan_results.py --data-dir FOLDER [--seeds 0 1 2] [--output-dir runs/results]

Trains ``experiment=sgan_mnist`` for every seed, which draws the labels, the weights and the order of images, and the
same classifier on the same labelled images alone (``model.supervised_only=true``) for as many steps, ``--jobs`` runs at
a time, and rewrites the section between the markers. Runs that are finished are not run again, so it may be stopped and
called again; ``--table-only`` writes what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_page import completed_records, machine, mean_and_spread, rewrite_section, run_experiments

VARIANTS = {"sgan_mnist": (), "sgan_mnist_supervised": ("model.supervised_only=true",)}


def overrides(variant: str, seed: int, data_dir: Path) -> list[str]:
    """The run of a variant and a seed."""
    run = ["experiment=sgan_mnist", f"experiment_name={variant}", f"seed={seed}", f"run_name=seed{seed}"]
    # Errors alone: what the generator draws is no part of the claim, and the baseline's is never trained.
    quiet = ["metrics=none", "callbacks.samples=null", "callbacks.interpolation=null"]
    return [*run, f"paths.data_dir={data_dir.resolve()}", *quiet, *VARIANTS[variant]]


def test_error(record: dict[str, Any]) -> float:
    """The last error in percent."""
    (score,) = (score for score in record["scores"] if score["name"] == "test_error")
    value: float = score["value"]
    return value


def trend(seeds: Sequence[int], output_dir: Path, points: int = 6) -> list[str]:
    """The mean error over the seeds as training goes on, at about as many points."""
    errors: dict[int, list[float]] = {}
    for seed in seeds:
        lines = (output_dir / "sgan_mnist" / f"seed{seed}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for line in map(json.loads, lines):
            errors.setdefault(line["images_seen"], []).append(test_error(line))
    known = sorted(images for images, values in errors.items() if len(values) == len(seeds))
    shown = sorted({*known[:: -(-len(known) // points)], known[-1]})
    return [
        f"| passes over the training images | {' | '.join(f'{images / 60_000:.1f}' for images in shown)} |",
        f"| --- |{' --- |' * len(shown)}",
        f"| mean error of SGAN | {' | '.join(f'{statistics.mean(errors[images]):.2f}%' for images in shown)} |",
    ]


def table(seeds: Sequence[int], output_dir: Path) -> list[str]:
    """The section."""
    sgan, supervised = (completed_records(variant, seeds, output_dir) for variant in VARIANTS)
    both = [seed for seed in seeds if seed in sgan and seed in supervised]
    if not both:
        raise SystemExit("no seed has both of its runs finished")
    rows = [
        f"| {seed} | {test_error(sgan[seed]):.2f}% | {test_error(supervised[seed]):.2f}% "
        f"| {sgan[seed]['train_seconds']:.0f} | {supervised[seed]['train_seconds']:.0f} |"
        for seed in both
    ]
    errors = [mean_and_spread([test_error(runs[seed]) for seed in both], 2, "%") for runs in (sgan, supervised)]
    record = sgan[both[0]]
    protocol = next(score["protocol"] for score in record["scores"] if score["name"] == "test_error")
    discriminator, generator = (record["parameters"][name] for name in ("discriminator", "generator"))
    hardware = machine(runs[seed] for runs in (sgan, supervised) for seed in both)
    return [
        "| seed | SGAN | the classifier alone | SGAN, training s | alone, training s |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        f"| mean | {errors[0]} | {errors[1]} | | |",
        "",
        *trend(both, output_dir),
        "",
        f"Errors on the {protocol['reference']['size']:,} test images with {protocol['labels']['number']} labels, "
        f"other ones for each seed, by the averaged weights; {record['iterations']:,} iterations, "
        f"{record['images_seen'] / 60_000:.1f} passes over the 60,000 training images; {discriminator:,} "
        f"parameters of the classifier, {generator:,} of the generator. {hardware}. Published "
        "(Salimans et al. 2016, table 1): 93 ± 6.5 wrong of 10,000, or 0.93%, over ten seeds; the published code makes "
        "300 passes in 180,000 iterations, 15 times as many as these runs, by networks of twice the width.",
    ]


def main() -> None:
    """Run, and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/results"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    output_dir = arguments.output_dir.resolve()
    if not arguments.table_only:
        chosen = [(variant, seed) for seed in arguments.seeds for variant in VARIANTS]
        runs = [overrides(variant, seed, arguments.data_dir) for variant, seed in chosen]
        run_experiments(runs, output_dir, arguments.jobs)
    rewrite_section("sgan_mnist", table(arguments.seeds, output_dir))


if __name__ == "__main__":
    main()
