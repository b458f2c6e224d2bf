"""The section "Diffusion" of docs/results.md: diffusion models beside GANs, steps and guidance against quality.

    python benchmarks/diffusion_results.py digits [--parts models steps guidance] [--seeds 0] [--jobs 2]
    python benchmarks/diffusion_results.py mnist --data-dir FOLDER [the same]

Of a data set, ``models`` trains the diffusion experiments, then GANs for as long as the slowest of them took; ``steps``
and ``guidance`` train what they need of them, and score samples by other numbers of evaluations of the network, and by
other guidance scales. Each rewrites its own section and pictures. Finished runs and scores are not made again, so it
may be stopped and called again; ``--table-only`` writes what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results_page import (
    IMAGES,
    completed_records,
    machine,
    mean_and_spread,
    rewrite_section,
    run_experiments,
    sample_sheet,
)

from lightning_gen.report.line_plot import Curve, draw_curves

GUIDED = "guided_diffusion"
DIFFUSION = ("ddpm", "edm", "flow_matching", "ot_cfm", GUIDED)
GANS = {"dcgan": None, "cdcgan": GUIDED}
"""GAN -> the model beside which alone it is trained: a GAN with labels is compared with diffusion with labels."""

GAN_SPEED = {"digits": 20.0, "mnist": 6.0}
"""Iterations of these GANs in a second on one core, from which follows how many take as long as diffusion."""

EVALUATIONS = (5, 10, 20, 50, 1000)
MOST = {"ddpm": 1000}
"""Sampler -> most evaluations; 50 for others, to save time."""

SAMPLERS = {
    "ddpm": ("ddpm", "ddim", "dpm_solver_pp_2m"),
    "edm": ("euler", "heun"),
    "flow_matching": ("euler",),
}
"""Model -> samplers whose steps are varied."""

NUM_SAMPLES = {"digits": 1437, "mnist": 2500}
"""Scored of every model."""

SCALES = (0.0, 1.0, 1.5, 2.0, 4.0)
CURVE_SAMPLES = 400
SCORES = ("fd", "recall", "coverage", "class_accuracy")
PARTS = ("models", "steps", "guidance")


@dataclass
class Place:
    """Where runs go and how they are run.

    Attributes:
        options: overrides of all runs.
        output_dir: where the runs are.
        jobs: runs at a time, and processes of an evaluation.
    """

    options: list[str]
    output_dir: Path
    jobs: int


def trained(models: Iterable[str], data: str, seeds: Sequence[int], options: Sequence[str], place: Place) -> None:
    """Train ``MODEL_DATA`` for every model and seed."""
    runs = []
    for seed in seeds:
        for name in (f"{model}_{data}" for model in models):
            run = [f"experiment={name}", f"experiment_name={name}", f"seed={seed}", f"run_name=seed{seed}"]
            runs.append([*run, f"metrics.num_samples={NUM_SAMPLES[data]}", *options, *place.options])
    run_experiments(runs, place.output_dir, place.jobs)


def train_all(data: str, models: Sequence[str], seeds: Sequence[int], place: Place) -> None:
    """Diffusion models, then GANs for as long."""
    trained(models, data, seeds, [], place)
    records = [
        found for model in models for found in completed_records(f"{model}_{data}", seeds, place.output_dir).values()
    ]
    seconds = max(record["train_seconds"] for record in records)
    gans = [gan for gan, beside in GANS.items() if beside is None or beside in models]
    trained(gans, data, seeds, [f"trainer.max_steps={round(seconds * GAN_SPEED[data], -2):.0f}"], place)


def sampler_steps(sampler: str, evaluations: int) -> int:
    """The steps that take so many evaluations of the network, or one less."""
    return (evaluations + 1) // 2 if sampler == "heun" else evaluations


def vary_steps(data: str, models: Sequence[str], seed: int, place: Place) -> None:
    """Score samples by other steps, and keep the scores in the runs' records."""
    chosen = [each for each in SAMPLERS if each in models]
    trained(chosen, data, [seed], [], place)
    for model in chosen:
        run = place.output_dir / f"{model}_{data}" / f"seed{seed}"
        for sampler in SAMPLERS[model]:
            for evaluations in EVALUATIONS:
                most = MOST.get(sampler, 50)
                if evaluations <= most and curve_score(run, data, sampler, evaluations) is None:
                    steps = str(sampler_steps(sampler, evaluations))
                    choice = ["--sampler", sampler, "--steps", steps, "--metrics", "frechet_distance"]
                    evaluate(run, place, *choice)


def vary_guidance(data: str, seed: int, place: Place) -> None:
    """Score samples by other guidance scales, and keep the scores in the run's record."""
    trained([GUIDED], data, [seed], [], place)
    run = place.output_dir / f"{GUIDED}_{data}" / f"seed{seed}"
    missing = [str(scale) for scale in SCALES if not guidance_scores(run, data, scale)]
    if missing:
        names = ["--metrics", "frechet_distance,recall,class_accuracy"]
        evaluate(run, place, "--guidance-scale", ",".join(missing), *names)


def evaluate(run: Path, place: Place, *options: str) -> None:
    """``lightning-gen evaluate``."""
    command = [sys.executable, "-m", "lightning_gen.cli", "evaluate", str(run), "--device", "cpu", "--record"]
    subprocess.run([*command, "-n", str(CURVE_SAMPLES), "--nproc", str(place.jobs), *options], check=True)


def scores_of(run: Path) -> list[Mapping[str, Any]]:
    """All scores of a run's record, none of a run that is not there."""
    file = run / "result.json"
    scores: list[Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["scores"] if file.is_file() else []
    return scores


def curve_score(run: Path, data: str, sampler: str, evaluations: int) -> float | None:
    """The Frechet distance by a sampler's default options in so many evaluations."""
    for score in scores_of(run):
        protocol = score["protocol"]
        settings = protocol.get("sampler", {})
        at = (settings.get("sampler"), settings.get("steps"), protocol.get("num_samples"))
        if score["name"] == f"fd_{data}" and at == (sampler, sampler_steps(sampler, evaluations), CURVE_SAMPLES):
            return float(score["value"])
    return None


def guidance_scores(run: Path, data: str, scale: float) -> dict[str, float]:
    """Scores by name of one guidance scale."""
    found = {}
    for score in scores_of(run):
        protocol = score["protocol"]
        at = (protocol.get("sampler", {}).get("guidance_scale"), protocol.get("num_samples"))
        if at == (scale, CURVE_SAMPLES):
            found[kind(score["name"], data)] = float(score["value"])
    return found


def kind(name: str, data: str) -> str:
    """A score's name without its extractor."""
    return name.removesuffix(f"_{data}")


def own_scores(record: Mapping[str, Any], data: str) -> dict[str, float]:
    """The scores that the run itself made: the first of each name."""
    found: dict[str, float] = {}
    for score in record["scores"]:
        found.setdefault(kind(score["name"], data), float(score["value"]))
    return found


def model_table(data: str, seeds: Sequence[int], output_dir: Path) -> list[str]:
    """Every model, best first."""
    rows = []
    records: list[dict[str, Any]] = []
    for model in (*DIFFUSION, *GANS):
        found = list(completed_records(f"{model}_{data}", seeds, output_dir).values())
        if not found:
            continue
        records += found
        scores = [own_scores(record, data) for record in found]
        cells = []
        for name in SCORES:
            values = [each[name] for each in scores if name in each]
            cells.append(mean_and_spread(values, 2 if name == "fd" else 3))
        first = found[0]
        settings = next(
            each["protocol"].get("sampler", {}) for each in first["scores"] if "sampler" in each["protocol"]
        )
        evaluations = settings.get("evaluations", "adaptive") if "sampler" in settings else 1
        bits = mean_and_spread([each["bits_per_dim"] for each in scores if "bits_per_dim" in each], 2)
        seconds = mean_and_spread([record["train_seconds"] for record in found], 0)
        parameters = sum(first["parameters"].values())
        row = (
            f"| {model} | {' | '.join(cells)} | {bits} | {evaluations} | {first['images_seen']:,} | "
            f"{first['iterations']:,} | {seconds} | {parameters:,} |"
        )
        rows.append((statistics.mean(each["fd"] for each in scores), row))
    if not rows:
        raise SystemExit("no run is finished")
    return [
        f"| model | fd_{data} | recall | coverage | label accuracy | bits/dim, bound | evaluations | images seen | "
        "iterations | training s | parameters |",
        "|" + " --- |" * 11,
        *(row for _, row in sorted(rows)),
        "",
        f"Seed {', '.join(map(str, seeds))}, {NUM_SAMPLES[data]:,} samples. {machine(records)}.",
    ]


def steps_curve(data: str, seed: int, output_dir: Path) -> list[str]:
    """Steps against quality, as a table and a picture."""
    drawn: list[Curve] = []
    rows = []
    for model, samplers in SAMPLERS.items():
        run = output_dir / f"{model}_{data}" / f"seed{seed}"
        for sampler in samplers:
            values = [curve_score(run, data, sampler, evaluations) for evaluations in EVALUATIONS]
            if any(value is not None for value in values):
                cells = ["" if value is None else f"{value:.1f}" for value in values]
                rows.append(f"| {model}, {sampler} | {' | '.join(cells)} |")
                points = zip(EVALUATIONS, values, strict=True)
                drawn.append(Curve(f"{model}, {sampler}", [(x, y) for x, y in points if y is not None]))
    if not rows:
        raise SystemExit("no steps are scored")
    path = IMAGES / f"diffusion_steps_{data}.png"
    picture = draw_curves(drawn, x="evaluations of the network", y=f"fd_{data}", log_x=True, log_y=True)
    path.write_bytes(picture)
    return [
        f"| evaluations of the network | {' | '.join(map(str, EVALUATIONS))} |",
        "| --- |" + " --- |" * len(EVALUATIONS),
        *rows,
        "",
        f"fd_{data} of {CURVE_SAMPLES:,} samples, seed {seed}; Heun takes an odd number of evaluations, one less than "
        "an even one named.",
        "",
        f"![steps against quality](images/{path.name})",
    ]


def guidance_curve(data: str, seed: int, output_dir: Path) -> list[str]:
    """Guidance against quality, as a table."""
    found = {scale: guidance_scores(output_dir / f"{GUIDED}_{data}" / f"seed{seed}", data, scale) for scale in SCALES}
    if not all(found.values()):
        raise SystemExit("no guidance scale is scored")
    lines = [
        f"| guidance scale | {' | '.join(f'{scale:g}' for scale in SCALES)} |",
        "| --- |" + " --- |" * len(SCALES),
    ]
    for name, digits in (("fd", 1), ("recall", 3), ("class_accuracy", 3)):
        values = [found[scale].get(name, math.nan) for scale in SCALES]
        lines.append(f"| {name} | {' | '.join(f'{value:.{digits}f}' for value in values)} |")
    record = completed_records(f"{GUIDED}_{data}", [seed], output_dir)[seed]
    return [
        *lines,
        "",
        f"Of {CURVE_SAMPLES:,} samples, seed {seed}: 0 takes no labels, 1 is the conditional model itself. "
        f"{record['iterations']:,} iterations in {record['train_seconds']:.0f} s. {machine([record])}.",
    ]


def names(models: Iterable[str], data: str) -> dict[str, str]:
    """Title -> experiment."""
    return {model: f"{model}_{data}" for model in models}


def main() -> None:
    """Run, and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--models", nargs="+", default=list(DIFFUSION), choices=DIFFUSION)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/diffusion"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, processes of an evaluation")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    data, output_dir = arguments.data, arguments.output_dir.resolve()
    place = [] if arguments.data_dir is None else [f"paths.data_dir={arguments.data_dir.resolve()}"]
    where = Place(place, output_dir, arguments.jobs)
    first, run = arguments.seeds[0], not arguments.table_only
    if "models" in arguments.parts:
        if run:
            train_all(data, arguments.models, arguments.seeds, where)
        lines = model_table(data, arguments.seeds, output_dir)
        sheet = sample_sheet(names((*DIFFUSION, *GANS), data), first, output_dir, f"diffusion_{data}")
        if sheet is not None:
            lines += ["", f"![samples of every model](images/{sheet.name})"]
        rewrite_section(f"diffusion_{data}", lines)
    if "steps" in arguments.parts:
        if run:
            vary_steps(data, arguments.models, first, where)
        rewrite_section(f"diffusion_{data}_steps", steps_curve(data, first, output_dir))
    if "guidance" in arguments.parts:
        if run:
            vary_guidance(data, first, where)
        rewrite_section(f"diffusion_{data}_guidance", guidance_curve(data, first, output_dir))


if __name__ == "__main__":
    main()
