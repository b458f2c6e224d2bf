"""The section "Explicit density" of docs/results.md: likelihoods and samples of autoencoders, VAEs and pixel models.

    python benchmarks/density_results.py --data-dir FOLDER [--seeds 0] [--label-seeds 1 2 3]
        [--output-dir runs/density] [--table-only]

Trains the MNIST experiments of `RUNS` for every seed, and for every label seed, which draws the labels too, M2 and its
classifier on the labelled images alone, ``--jobs`` at a time. Rewrites the tables between the markers and the picture
in docs/images. Runs that are finished are not run again, so it may be stopped and called again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results_page import completed_records, machine, mean_and_spread, rewrite_section, run_experiments, sample_sheet

RUNS = {
    "pixelcnn_mnist": "PixelCNN",
    "gated_pixelcnn_mnist": "Gated PixelCNN",
    "pixel_rnn_row_mnist": "PixelRNN, Row LSTM",
    "vae_mnist": "VAE",
    "beta_vae_mnist": "beta-VAE, beta = 4",
    "cvae_mnist": "conditional VAE",
    "autoencoder_mnist": "autoencoder, a mixture on its codes",
    "vq_prior_mnist": "VQ-VAE, a Gated PixelCNN on its maps",
}
PUBLISHED = {
    "pixelcnn_mnist": "81.30 (a), 81.45 (b)",
    "gated_pixelcnn_mnist": "81.50 (b)",
    "pixel_rnn_row_mnist": "80.54 (a)",
    "vae_mnist": "86.77 (b), 89.78 (c)",
}
SOURCES = (
    "(a) van den Oord et al. 2016, [Pixel recurrent neural networks](https://arxiv.org/abs/1601.06759), table 4, on "
    "images binarized once and for all; the Diagonal BiLSTM has 79.20. (b) The reproductions of "
    "[pytorch-generative](https://github.com/EugenHotaj/pytorch-generative), binarized anew each time. (c) That of "
    "[pythae](https://github.com/clementchadebec/benchmark_VAE), of 200 importance samples."
)

FIRST_STAGE = {"vq_prior_mnist": "vqvae_mnist"}
"""Experiment -> the one whose run is its first stage."""

LABELS = {"m2_mnist": "M2", "m2_mnist_supervised": "the classifier alone"}


def overrides(experiment: str, seed: int, data_dir: Path, output_dir: Path) -> list[str]:
    """The run of an experiment and a seed."""
    name = experiment.removesuffix("_supervised")
    alone = ["model.supervised_only=true"] if name != experiment else []
    place = [f"seed={seed}", f"run_name=seed{seed}", f"paths.data_dir={data_dir.resolve()}"]
    first = FIRST_STAGE.get(name)
    stage = [f"model.first_stage={output_dir / first / f'seed{seed}'}"] if first else []
    return [f"experiment={name}", f"experiment_name={experiment}", *place, *alone, *stage]


def values(record: Mapping[str, Any]) -> dict[str, float]:
    """The last value of every score of a record; likelihoods only of black and white images, which alone compare."""
    return {
        score["name"]: score["value"]
        for score in record["scores"]
        if score["protocol"]["metric"].get("law", {"name": "bernoulli"})["name"] == "bernoulli"
    }


def table(seeds: Sequence[int], draws: Sequence[int], output_dir: Path) -> list[str]:
    """The section."""
    rows, records = [], []
    columns = {"nll": 2, "fd_mnist": 1, "reconstruction_error": 4, "active_units": 0}
    for experiment, title in RUNS.items():
        found = completed_records(experiment, seeds, output_dir)
        if not found:
            continue
        records += found.values()
        scores = [values(record) for record in found.values()]
        cells = [mean_and_spread([each[name] for each in scores if name in each], at) for name, at in columns.items()]
        seconds = mean_and_spread([record["train_seconds"] for record in found.values()], 0)
        passes = next(iter(found.values()))["images_seen"] / 60_000
        parameters = sum(next(iter(found.values()))["parameters"].values())
        rows.append(
            f"| {title} | {' | '.join(cells)} | {PUBLISHED.get(experiment, '')} | {parameters:,} | {passes:.1f} | "
            f"{seconds} |"
        )
    if not rows:
        raise SystemExit("no run is finished")
    lines = [
        "| model | nats | fd_mnist | squared error | active units | published nats | parameters | passes | seconds |",
        "| --- |" + " --- |" * 8,
        *rows,
        "",
        f"Seed {', '.join(map(str, seeds))}. {machine(records)}. {SOURCES}",
    ]
    errors = {title: completed_records(experiment, draws, output_dir) for experiment, title in LABELS.items()}
    if all(errors.values()):
        lines += [
            "",
            f"| MNIST with 100 labels, {len(draws)} draws of them | test error | training s |",
            "| --- | --- | --- |",
            *(
                f"| {title} | {mean_and_spread([values(record)['test_error'] for record in found.values()], 2, '%')} | "
                f"{mean_and_spread([record['train_seconds'] for record in found.values()], 0)} |"
                for title, found in errors.items()
            ),
        ]
    return lines


def main() -> None:
    """Train what is missing and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder that has MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--label-seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--experiments", nargs="+", default=[*RUNS, *LABELS])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/density"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    output_dir = arguments.output_dir.resolve()
    if not arguments.table_only:
        if arguments.data_dir is None:
            parser.error("--data-dir is needed to train")
        stages = [FIRST_STAGE[name] for name in arguments.experiments if name in FIRST_STAGE]
        for names in (stages, arguments.experiments):
            runs = [
                overrides(name, seed, arguments.data_dir, output_dir)
                for name in names
                for seed in (arguments.label_seeds if name in LABELS else arguments.seeds)
            ]
            run_experiments(runs, output_dir, arguments.jobs)
    lines = table(arguments.seeds, arguments.label_seeds, output_dir)
    sheet = sample_sheet({title: name for name, title in RUNS.items()}, arguments.seeds[0], output_dir, "density_mnist")
    if sheet is not None:
        lines += ["", f"![samples of every model](images/{sheet.name})"]
    rewrite_section("density", lines)


if __name__ == "__main__":
    main()
