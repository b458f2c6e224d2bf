"""The sections "Few labels" of docs/results.md, from runs on MNIST and on digits.

    python benchmarks/few_labels_results.py --data-dir FOLDER [--sections few_labels few_labels_curves ...]
        [--seeds 1 2 3] [--jobs 2] [--output-dir runs/few_labels] [--table-only]

Trains what a section lacks, ``--jobs`` runs at a time, and rewrites it between its markers, with a picture in
docs/images. A seed draws the labels too. Runs that are finished are not run again, so the script may be stopped and
called again; ``--table-only`` writes what is there. The runs are listed in ``few_labels_plan.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from few_labels_plan import (
    ALL,
    CURVE_LABELS,
    CURVE_METHODS,
    DOMAINS,
    FEW,
    FIRST_FIVE,
    GENERATORS,
    METHODS,
    NUM_CLASSES,
    SOURCE_SEED,
    SOURCES,
    TRANSFER_PER_CLASS,
    Runs,
    error_of,
    labels_name,
    samples_file,
    scores_file,
    source_name,
    transfers,
    with_generated,
)
from results_page import IMAGES, ROOT, machine, mean_and_spread, rewrite_section, run_experiments

from lightning_gen.report.line_plot import Curve, draw_curves

Arguments = argparse.Namespace
Records = dict[int, dict[str, Any]]


def records(
    runs: Runs, seeds: Sequence[int], output_dir: Path, name: Callable[[int], str] = "seed{}".format
) -> Records:
    """Records of the completed runs, by seed; ``name`` makes a run's name of its seed."""
    found = {}
    for seed in seeds:
        file = output_dir / runs.folder / name(seed) / "result.json"
        if file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["status"] == "completed":
                found[seed] = record
    return found


def errors_and_seconds(found: Records) -> str:
    """Two cells of a table, empty without runs."""
    errors = [error_of(record) for record in found.values()]
    seconds = [record["train_seconds"] for record in found.values()]
    return f"{mean_and_spread(errors, 2, '%')} | {mean_and_spread(seconds, 0)}"


def train_sources(all_runs: Iterable[Runs], arguments: Arguments) -> None:
    """The runs that others build on, each once."""
    needed = {each.folder: each for runs in all_runs for each in (runs.sources or {}).values()}
    train([(each, source_name(), SOURCE_SEED, ()) for each in needed.values()], arguments)


def train(wanted: Iterable[tuple[Runs, str, int, Sequence[str]]], arguments: Arguments) -> None:
    """Runs (method, run name, seed, further overrides)."""
    place = f"paths.data_dir={arguments.data_dir.resolve()}"
    commands = [runs.command(name, seed, arguments.output_dir, place, *more) for runs, name, seed, more in wanted]
    run_experiments(commands, arguments.output_dir, arguments.jobs)


def train_labels(names: Sequence[str], numbers: Sequence[int], arguments: Arguments) -> None:
    """Methods on MNIST at numbers of labels, for every seed."""
    methods = [METHODS[name] for name in names]
    train_sources(methods, arguments)
    train(
        [
            (runs, labels_name(number, seed), seed, (f"data.labelled_per_class={number // NUM_CLASSES}",))
            for number in numbers
            for seed in arguments.seeds
            for runs in methods
            if number // NUM_CLASSES >= runs.least_per_class
        ],
        arguments,
    )


def labels_records(name: str, number: int, arguments: Arguments) -> Records:
    """Of a method at a number of labels."""
    return records(METHODS[name], arguments.seeds, arguments.output_dir, lambda seed: labels_name(number, seed))


def source_seconds(all_runs: Iterable[Runs], output_dir: Path) -> str:
    """What the runs that others build on took, as a sentence."""
    needed = {each.folder: each for runs in all_runs for each in (runs.sources or {}).values()}
    parts = []
    for each in needed.values():
        for record in records(each, [SOURCE_SEED], output_dir).values():
            parts.append(f"the {each.title} {record['train_seconds']:.0f} s")
    return f" Before, {' and '.join(parts)} of training without labels." if parts else ""


def few_labels(arguments: Arguments) -> list[str]:
    """Every method at 100 labels."""
    if not arguments.table_only:
        train_labels(arguments.methods, [100], arguments)
    found = {name: labels_records(name, 100, arguments) for name in METHODS}
    rows = [
        f"| {METHODS[name].title} | {errors_and_seconds(runs)} | {METHODS[name].published} | "
        f"{', '.join(map(str, runs))} |"
        for name, runs in found.items()
        if runs
    ]
    if not rows:
        return []
    everything = [record for runs in found.values() for record in runs.values()]
    built = source_seconds([METHODS[name] for name, runs in found.items() if runs], arguments.output_dir)
    return [
        "| method | test error | training s | published, in percent | seeds |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        "Errors on the 10,000 test images, mean ± standard deviation over seeds, each with 100 labels of its own. "
        f"{machine(everything)}.{built} {SOURCES}",
    ]


def few_labels_curves(arguments: Arguments) -> list[str]:
    """Some methods at several numbers of labels, as a table and a picture."""
    if not arguments.table_only:
        train_labels(arguments.curve_methods, CURVE_LABELS, arguments)
    rows, curves = [], []
    for name in METHODS:
        found = {number: labels_records(name, number, arguments) for number in CURVE_LABELS}
        errors = {number: [error_of(record) for record in runs.values()] for number, runs in found.items() if runs}
        if not errors:
            continue
        cells = [mean_and_spread(errors.get(number, []), 2, "%") for number in CURVE_LABELS]
        rows.append(f"| {METHODS[name].title} | {' | '.join(cells)} |")
        points = [(float(number), statistics.mean(values)) for number, values in errors.items()]
        spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in errors.values()]
        curves.append(Curve(METHODS[name].title, points, spreads))
    if not curves:
        return []
    picture = IMAGES / "few_labels.png"
    picture.write_bytes(draw_curves(curves, x="labels", y="test error, percent", log_x=True))
    return [
        f"| labels | {' | '.join(f'{number:,}' for number in CURVE_LABELS)} |",
        "| --- |" + " --- |" * len(CURVE_LABELS),
        *rows,
        "",
        f"Seeds {', '.join(map(str, arguments.seeds))}, as far as they are run.",
        "",
        f"![test error by number of labels](images/{picture.name})",
    ]


def grouped(
    groups: Mapping[str, Sequence[Runs]], head: str, arguments: Arguments
) -> tuple[list[str], list[dict[str, Any]]]:
    """A table with a row for each method of each group, empty without runs, and the records that it is of."""
    everything = [runs for group in groups.values() for runs in group]
    if not arguments.table_only:
        train_sources(everything, arguments)
        train([(runs, f"seed{seed}", seed, ()) for runs in everything for seed in arguments.seeds], arguments)
    rows, found = [], []
    for group, methods in groups.items():
        for runs in methods:
            known = records(runs, arguments.seeds, arguments.output_dir)
            found += known.values()
            if known:
                rows.append(f"| {group} | {runs.title} | {errors_and_seconds(known)} | {len(known)} |")
    table = [head, "| --- |" + " --- |" * 4, *rows, ""] if rows else []
    return table, found


def few_labels_transfer(arguments: Arguments) -> list[str]:
    """A body of another run: from scratch, frozen and tuned further."""
    table, found = grouped(transfers(), "| task and body | mode | test error | training s | seeds |", arguments)
    if not table:
        return []
    return [
        *table,
        f"{TRANSFER_PER_CLASS} labels of each class, other ones for each seed. The bodies saw no label, but for "
        f"the {FIRST_FIVE.title}. {machine(found)}.",
    ]


def few_labels_domains(arguments: Arguments) -> list[str]:
    """From one domain to another."""
    table, found = grouped(DOMAINS, "| domains | method | test error on the target | training s | seeds |", arguments)
    if not table:
        return []
    everything = [runs for group in DOMAINS.values() for runs in group]
    return [*table, f"{machine(found)}.{source_seconds(everything, arguments.output_dir)}"]


def call(*command: str) -> str:
    """Standard output of ``lightning-gen``."""
    line = [sys.executable, "-m", "lightning_gen.cli", *command]
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def score_generator(generator: Runs, seed: int, arguments: Arguments) -> None:
    """Samples with labels, and the scores of a generator's run and of as many real images, each once."""
    run = arguments.output_dir / generator.folder / f"seed{seed}"
    samples = samples_file(generator, seed, arguments.output_dir)
    if not samples.is_file():
        call("sample", str(run), "--labelled", "-n", "1437", "--output", str(samples))
    for name, more in ((generator.folder, ()), ("real", ("--real",))):
        file = scores_file(name, seed, arguments.output_dir)
        if not file.is_file():
            metrics = "classification_accuracy_score,class_accuracy"
            scores = call("evaluate", str(run), "metrics=digits", "--metrics", metrics, "--json", *more)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(scores, encoding="utf-8")


def few_labels_generators(arguments: Arguments) -> list[str]:
    """Samples of conditional models as training images."""
    output_dir, seeds = arguments.output_dir, arguments.seeds
    if not arguments.table_only:
        wanted = [*GENERATORS, FEW, ALL]
        train([(runs, f"seed{seed}", seed, ()) for runs in wanted for seed in seeds], arguments)
        for generator in GENERATORS:
            for seed in seeds:
                score_generator(generator, seed, arguments)
        train(
            [
                (with_generated(generator, seed, output_dir, only=only), f"seed{seed}", seed, ())
                for generator in GENERATORS
                for seed in seeds
                for only in (False, True)
            ],
            arguments,
        )
    rows, found = [], []

    def add(title: str, name: str, *classifiers: Runs) -> None:
        files = [scores_file(name, seed, output_dir) for seed in seeds]
        scores = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        cells = [
            mean_and_spread([each[key] for each in scores], 3)
            for key in ("class_accuracy_digits", "classification_accuracy_score")
        ]
        for runs in classifiers:
            known = records(runs, seeds, output_dir)
            found.extend(known.values())
            cells.append(mean_and_spread([error_of(record) for record in known.values()], 2, "%"))
        if any(cells):
            rows.append(f"| {title} | {' | '.join(cells)} |")

    for generator in GENERATORS:
        kinds = [with_generated(generator, seeds[0], output_dir, only=only) for only in (True, False)]
        add(generator.title, generator.folder, *kinds)
    add("real images: all, and 100 alone", "real", ALL, FEW)
    if not rows:
        return []
    return [
        "| training images | label accuracy | classification accuracy score | error, generated alone | "
        "error, with 100 real |",
        "| --- |" + " --- |" * 4,
        *rows,
        "",
        f"Seeds {', '.join(map(str, seeds))}; 1,437 samples, as many as training images. Two columns are of the "
        "samples ([scoring.md](scoring.md#scores)), the errors those of `experiment=classifier_digits` on 360 test "
        "images. M2 was given 100 labels, those of the last column; the other generators were given all."
        + (f" {machine(found)}." if found else ""),
    ]


SECTIONS: dict[str, Callable[[Arguments], list[str]]] = {
    "few_labels": few_labels,
    "few_labels_curves": few_labels_curves,
    "few_labels_transfer": few_labels_transfer,
    "few_labels_domains": few_labels_domains,
    "few_labels_generators": few_labels_generators,
}


def main() -> None:
    """Train what is missing and rewrite the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="of few_labels")
    parser.add_argument("--curve-methods", nargs="+", default=list(CURVE_METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that has MNIST")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    arguments.output_dir = arguments.output_dir.resolve()
    for name in arguments.sections:
        lines = SECTIONS[name](arguments)
        if lines:
            rewrite_section(name, lines)


if __name__ == "__main__":
    main()
