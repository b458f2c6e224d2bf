"""The tables of GANs in docs/results.md: every experiment of a data set at one budget of training time.

    python benchmarks/gan_results.py digits [--seeds 0 1 2]
    python benchmarks/gan_results.py mnist --data-dir FOLDER [--seeds 0]
    python benchmarks/gan_results.py cifar10 --data-dir FOLDER      # needs a GPU

Runs ``train.py experiment=MODEL_DATA`` for every model and seed, one after the other, and rewrites the data set's
section and its picture of samples. Runs that are finished are not run again, so it may be stopped and called again;
``--table-only`` writes what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
IMAGES = ROOT / "docs" / "images"
EXPERIMENTS = ROOT / "configs" / "experiment"
SCORES = ("fd", "recall", "coverage", "missing_modes", "class_accuracy")


def models(data: str) -> list[str]:
    """Every model with an experiment on ``data`` that draws images as its purpose."""
    names = sorted(path.stem.removesuffix(f"_{data}") for path in EXPERIMENTS.glob(f"*_{data}.yaml"))
    return [name for name in names if not name.startswith("_") and name != "sgan"]


def train(model: str, data: str, seed: int, output_dir: Path, overrides: Sequence[str]) -> None:
    """One run, unless it is finished; gone on with if it was stopped."""
    command = [sys.executable, "train.py", f"experiment={model}_{data}", f"seed={seed}", f"run_name=seed{seed}"]
    places = [f"experiment_name={model}_{data}", f"paths.output_dir={output_dir}"]
    subprocess.run([*command, "resume=auto", "logger=none", *places, *overrides], cwd=ROOT, check=True)


def records(model: str, data: str, seeds: Sequence[int], output_dir: Path) -> list[dict[str, Any]]:
    """The records of the finished runs."""
    files = [output_dir / f"{model}_{data}" / f"seed{seed}" / "result.json" for seed in seeds]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return [record for record in found if record["status"] == "completed"]


def row(model: str, data: str, runs: Sequence[dict[str, Any]]) -> str:
    """A line of the table."""
    if not runs:
        return f"| {model} | not run |" + " |" * 8
    cells = []
    for name in SCORES:
        values = [score["value"] for run in runs for score in run["scores"] if _kind(score["name"], data) == name]
        cells.append(_mean_and_spread(values, 2 if name == "fd" else 0 if name == "missing_modes" else 3))
    mean = {key: statistics.mean(run[key] for run in runs) for key in ("train_seconds", "images_per_second")}
    run = runs[0]
    parameters = sum(run["parameters"].values())
    return (
        f"| {model} | {' | '.join(cells)} | {run['images_seen']:,} | {run['iterations']:,} "
        f"| {mean['train_seconds']:.0f} | {mean['images_per_second']:.0f} | {parameters:,} |"
    )


def _kind(name: str, data: str) -> str:
    return "fd" if name == "fid" else name.removesuffix(f"_{data}").removesuffix("_inception")


def _mean_and_spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(data: str, seeds: Sequence[int], output_dir: Path) -> list[str]:
    """The table, best first, and a line on its protocol."""
    runs = {model: records(model, data, seeds, output_dir) for model in models(data)}
    order = sorted(runs, key=lambda model: statistics.mean(_fds(runs[model])) if runs[model] else math.inf)
    hashes = {run["scores"][0]["protocol_hash"] for group in runs.values() for run in group}
    hardware = {f"{run['hardware'].get('device')}" for group in runs.values() for run in group}
    return [
        f"| model | fd_{data} | recall | coverage | missing classes | label accuracy | images seen | iterations | "
        "training s | images/s | parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(model, data, runs[model]) for model in order),
        "",
        f"Seeds {', '.join(map(str, seeds))}; mean and standard deviation over them where there are several. "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), {', '.join(sorted(hardware))}, torch {torch.__version__}. "
        f"Protocols of fd_{data}, by label law: {', '.join(f'`{value}`' for value in sorted(hashes))}.",
    ]


def _fds(runs: Sequence[dict[str, Any]]) -> list[float]:
    return [run["scores"][0]["value"] for run in runs]


def picture(data: str, seed: int, output_dir: Path) -> Path | None:
    """Samples of every model side by side."""
    tiles = []
    for model in models(data):
        grids = sorted((output_dir / f"{model}_{data}" / f"seed{seed}" / "samples").glob("*.png"))
        if grids:
            tiles.append((model, Image.open(grids[-1]).convert("RGB")))
    if not tiles:
        return None
    width, height = max(tile.width for _, tile in tiles), max(tile.height for _, tile in tiles)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    canvas = Image.new("RGB", (columns * (width + 12), rows * (height + 30)), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (model, tile) in enumerate(tiles):
        left, top = index % columns * (width + 12), index // columns * (height + 30)
        draw.text((left + 4, top + 4), model, fill="black", font_size=18)
        canvas.paste(tile, (left, top + 26))
    path = IMAGES / f"gan_{data}.png"
    canvas.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
    canvas.save(path, optimize=True)
    return path


def main() -> None:
    """Run, and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist", "cifar10"))
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/results"))
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    data, output_dir = arguments.data, arguments.output_dir.resolve()
    seeds = arguments.seeds or ([0, 1, 2] if data == "digits" else [0])
    if not arguments.table_only:
        overrides = [f"paths.data_dir={arguments.data_dir.resolve()}"] if arguments.data_dir else []
        for seed in seeds:
            for model in arguments.models or models(data):
                train(model, data, seed, output_dir, overrides)
    lines = table(data, seeds, output_dir)
    shown = picture(data, seeds[0], output_dir)
    if shown is not None:
        lines += ["", f"![samples of every model](images/{shown.name})"]
    begin, end = f"<!-- gan_{data} begin -->", f"<!-- gan_{data} end -->"
    text = RESULTS.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    RESULTS.write_text("\n".join([before + begin, *lines, end]) + after, encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
