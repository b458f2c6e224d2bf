"""What the scripts behind docs/results.md share: running experiments, reading their records, rewriting a section."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
IMAGES = ROOT / "docs" / "images"


def run_experiments(runs: Iterable[Sequence[str]], output_dir: Path, jobs: int) -> None:
    """``train.py`` with each of the overrides, ``jobs`` at a time, which share the cores between them.

    Finished runs are not run again and stopped ones go on, so a script may be stopped and called again.

    Raises:
        subprocess.CalledProcessError: a run failed.
    """
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} if jobs > 1 else None
    command = [sys.executable, "train.py", "resume=auto", "logger=none", f"paths.output_dir={output_dir}"]

    def run(overrides: Sequence[str]) -> None:
        subprocess.run([*command, *overrides], cwd=ROOT, check=True, env=environment)

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(run, overrides) for overrides in runs]:
            done.result()


def completed_records(experiment: str, seeds: Sequence[int], output_dir: Path) -> dict[int, dict[str, Any]]:
    """Records of the completed runs ``experiment/seedN``, by seed."""
    files = {seed: output_dir / experiment / f"seed{seed}" / "result.json" for seed in seeds}
    found = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items() if file.is_file()}
    return {seed: record for seed, record in found.items() if record["status"] == "completed"}


def mean_and_spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    """``mean ± sample standard deviation``; the mean alone of one value, nothing of none."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{unit}{spread}"


def machine(records: Iterable[dict[str, Any]]) -> str:
    """What the runs ran on, for the line below a table."""
    parts = set()
    for record in records:
        hardware = record["hardware"]
        if hardware["device"] == "cpu":
            place = f"{hardware['threads']} of {hardware['cpu_count']} CPU cores ({platform.machine()}) a run"
        else:
            place = f"{hardware['processes']} x {hardware['device']}"
        parts.add(f"{place}, torch {record['versions']['torch']}")
    return "; ".join(sorted(parts))


def sample_sheet(experiments: Mapping[str, str], seed: int, output_dir: Path, name: str) -> Path | None:
    """The newest samples of experiments (title -> name) side by side, as docs/images/NAME.png; None without any."""
    tiles = []
    for title, experiment in experiments.items():
        grids = sorted((output_dir / experiment / f"seed{seed}" / "samples").glob("*[0-9].png"))
        if grids:
            tiles.append((title, Image.open(grids[-1])))
    if not tiles:
        return None
    width, height = max(tile.width for _, tile in tiles), max(tile.height for _, tile in tiles)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    grey = all(tile.mode == "L" for _, tile in tiles)
    canvas = Image.new("L" if grey else "RGB", (columns * (width + 12), rows * (height + 30)), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (title, tile) in enumerate(tiles):
        left, top = index % columns * (width + 12), index // columns * (height + 30)
        draw.text((left + 4, top + 4), title, fill="black", font_size=18)
        canvas.paste(tile, (left, top + 26))
    path = IMAGES / f"{name}.png"
    canvas.thumbnail((1400, 1400), Image.Resampling.LANCZOS)
    canvas.save(path, optimize=True)
    return path


def rewrite_section(name: str, lines: Sequence[str], page: Path = RESULTS) -> None:
    """Put lines between the markers ``<!-- name begin -->`` and ``<!-- name end -->`` of a page, and print them."""
    begin, end = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    text = page.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    page.write_text("\n".join([before + begin, *lines, end]) + after, encoding="utf-8")
    print("\n".join(lines))
