"""The section "Translation" of docs/results.md: pix2pix, CycleGAN and DiscoGAN on digits and on photographs.

    python benchmarks/translation_results.py [--seeds 0 1 2] [--data-dir FOLDER] [--output-dir runs/translation]

Trains the experiments on digits for every seed and, where ``--data-dir`` has CIFAR-10, a narrow pix2pix from grey to
colour for the first seed, rewrites the tables between the markers and the pictures in docs/images. Runs that are
finished are not run again; ``--table-only`` writes what is there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results_page import IMAGES, completed_records, machine, mean_and_spread, rewrite_section, run_experiments

DIGITS = {
    "pix2pix_edges_digits": "pix2pix, outlines to digits",
    "cyclegan_inverted_digits": "CycleGAN, digits to negatives and back",
    "discogan_inverted_digits": "DiscoGAN, digits to negatives and back",
}
PHOTOGRAPHS = "pix2pix_colorize_cifar10"
NARROW = (
    "trainer=cpu",
    "metrics=cifar10_resnet",
    "metrics.metrics=[frechet_distance,class_accuracy]",
    "metrics.reference_split=test",
    "metrics.num_samples=2000",
    "callbacks.samples.every_n_images=null",
    "model.generator.base_channels=24",
    "model.generator.depth=3",
    "model.generator.dropout_blocks=0",
    "model.generator_optimizer.lr=1e-3",
    # Stronger ones win at once, and the generator answers them with a chequered pattern.
    "model.discriminator.base_channels=16",
    "model.discriminator.num_layers=1",
    "model.discriminator_optimizer.lr=1e-4",
    "trainer.max_steps=2400",
)
"""What makes the photographs' experiment one of minutes on two CPU cores: a shallow U-Net and patches of 16 pixels."""

SCORES = {
    "fd": ("fd_digits", 1),
    "fd back": ("fd_digits_BtoA", 1),
    "accuracy": ("class_accuracy_digits", 3),
    "accuracy back": ("class_accuracy_digits_BtoA", 3),
    "L1": ("l1", 3),
    "L1 of copying": ("copy_l1", 3),
    "PSNR": ("psnr", 1),
    "SSIM": ("ssim", 3),
    "cycle L1, A": ("cycle_l1_A", 3),
    "cycle L1, B": ("cycle_l1_B", 3),
}
"""Columns of the digits' table: the score, and its digits."""


def values(record: Mapping[str, Any]) -> dict[str, float]:
    """The record's scores by name."""
    return {score["name"]: score["value"] for score in record["scores"]}


def digits_table(seeds: Sequence[int], output_dir: Path) -> list[str]:
    """One row for each experiment on digits."""
    rows, records = [], []
    for experiment, title in DIGITS.items():
        found = completed_records(experiment, seeds, output_dir)
        records += found.values()
        scores = [values(record) for record in found.values()]
        cells = [
            mean_and_spread([each[name] for each in scores if name in each], digits) for name, digits in SCORES.values()
        ]
        seconds = mean_and_spread([record["train_seconds"] for record in found.values()], 0)
        rows.append(f"| {title} | {len(found)} | {' | '.join(cells)} | {seconds} |")
    if not records:
        raise SystemExit("no run is finished")
    return [
        f"| model | seeds | {' | '.join(SCORES)} | training s |",
        f"| --- | --- |{' --- |' * len(SCORES)} --- |",
        *rows,
        "",
        f"Of translated test images; *accuracy* is the share in the input's class by the set's classifier, *back* the "
        f"direction from B to A. Seeds {', '.join(map(str, seeds))}. {machine(records)}.",
    ]


def photographs_table(seed: int, output_dir: Path) -> list[str]:
    """The scores of colourized photographs."""
    found = completed_records(PHOTOGRAPHS, [seed], output_dir)
    if not found:
        return []
    (record,) = found.values()
    scores = values(record)
    names = ["fd_cifar10", "class_accuracy_cifar10", "l1", "copy_l1", "psnr", "ssim"]
    parameters = ", ".join(f"{count:,} parameters of the {name}" for name, count in record["parameters"].items())
    return [
        "",
        f"| CIFAR-10, grey to colour | {' | '.join(names)} | training s |",
        f"| --- |{' --- |' * len(names)} --- |",
        f"| pix2pix, {record['images_seen'] / 50_000:.1f} passes | "
        f"{' | '.join(f'{scores[name]:.3f}' for name in names)} | {record['train_seconds']:.0f} |",
        "",
        f"The first 2,000 test images, against the 10,000 colour images of the test set in `fd_cifar10`; {parameters}; "
        f"seed {seed}. {machine([record])}.",
    ]


def main() -> None:
    """Train what is missing and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data-dir", type=Path, help="folder that has CIFAR-10")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/translation"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    output_dir = arguments.output_dir.resolve()
    seeds = arguments.seeds
    if not arguments.table_only:
        runs = [
            [f"experiment={experiment}", f"seed={seed}", f"run_name=seed{seed}"]
            for seed in seeds
            for experiment in DIGITS
        ]
        run_experiments(runs, output_dir, arguments.jobs)
        if arguments.data_dir is not None:
            colours = [f"experiment={PHOTOGRAPHS}", f"seed={seeds[0]}", f"run_name=seed{seeds[0]}", *NARROW]
            run_experiments([[*colours, f"paths.data_dir={arguments.data_dir.resolve()}"]], output_dir, 1)
    rewrite_section("translation", [*digits_table(seeds, output_dir), *photographs_table(seeds[0], output_dir)])
    for experiment in (*DIGITS, PHOTOGRAPHS):
        pictures = sorted((output_dir / experiment / f"seed{seeds[0]}" / "samples").glob("*[0-9].png"))
        if pictures:
            shutil.copyfile(pictures[-1], IMAGES / f"translation_{experiment}.png")


if __name__ == "__main__":
    main()
