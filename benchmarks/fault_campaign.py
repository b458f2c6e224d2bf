"""Kills runs at random moments of every phase, lets them go on, and compares their ends with undisturbed runs.

    python benchmarks/fault_campaign.py [--seed 0] [--runs 4 3]

A tiny DCGAN on image files, with frequent scores, pictures and checkpoints, on one process and on two (`tests/faults.py`
says what runs and what is checked after every kill). Every run is hit once in each of five phases: while the decoded
images are cached, within an iteration, while it is scored, while pictures are drawn, while a checkpoint is written; by
SIGKILL or SIGTERM, on either process, at a random moment of the phase. It rewrites the section "Faults" of
docs/results.md and its picture, and ends with status 1 if anything differs. About seven minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from results_page import IMAGES, ROOT, rewrite_section

sys.path.insert(0, str(ROOT))

from tests.faults import (
    BATCH,
    ITERATIONS,
    PHASES,
    Outcome,
    check_equal_ends,
    check_no_torn_file,
    disturb,
    make_images,
    phase_seconds,
    plan_kills,
    start,
)

PICTURE = IMAGES / "fault_campaign.png"
SECTION = "faults"
COLORS = {
    "cache": (148, 103, 189),
    "training": (31, 119, 180),
    "evaluation": (255, 127, 14),
    "pictures": (188, 143, 42),
    "checkpoint": (214, 39, 40),
    "to the end": (44, 160, 44),
}
LEFT, WIDTH, ROW, GAP, TOP = 150, 860, 15, 12, 66


def main() -> None:
    """Run the campaign and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, nargs=2, default=(4, 3), help="of one process and of two")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        make_images(folder / "images")
        jobs = [
            pool.submit(campaign, folder, processes, options.runs[processes - 1], options.seed) for processes in (1, 2)
        ]
        outcomes = {processes: job.result() for processes, job in zip((1, 2), jobs, strict=True)}
    minutes = (time.monotonic() - begin) / 60
    draw(outcomes, PICTURE)
    rewrite_section(SECTION, report(outcomes, minutes, options.seed))


def campaign(folder: Path, processes: int, runs: int, seed: int) -> list[list[Outcome]]:
    """The outcomes of every start of every run on so many processes.

    Raises:
        AssertionError: a file is torn, a run does not go on, or its end differs from the undisturbed run's.
    """
    images, whole = folder / "images", folder / f"whole{processes}"
    whole.mkdir()
    status, stderr = start(images, whole, processes)
    assert status == 0, stderr
    check_no_torn_file(whole)
    rng = random.Random(f"{seed} {processes}")
    outcomes = []
    for number in range(runs):
        output = folder / f"disturbed{processes}_{number}"
        outcomes.append(disturb(images, output, processes, plan_kills(rng, processes), phase_seconds(whole)))
        check_equal_ends(whole, output)
        for outcome in outcomes[-1]:
            print(f"{processes} process(es), run {number + 1}: {outcome}", file=sys.stderr, flush=True)
    return outcomes


def report(outcomes: dict[int, list[list[Outcome]]], minutes: float, seed: int) -> Sequence[str]:
    """The lines of the section."""
    lines = [
        "| processes | runs | " + " | ".join(PHASES) + " | SIGKILL | SIGTERM | signals sent | equal ends |",
        "| --- " * (len(PHASES) + 6) + "|",
    ]
    for processes, runs in outcomes.items():
        hits = [outcome.kill for run in runs for outcome in run if outcome.kill and outcome.fired_at is not None]
        phases = [str(sum(kill.phase == phase for kill in hits)) for phase in PHASES]
        kinds = [str(sum(kill.signal == name for kill in hits)) for name in ("SIGKILL", "SIGTERM")]
        cells = [str(processes), str(len(runs)), *phases, *kinds, str(len(hits)), f"{len(runs)} of {len(runs)}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{ITERATIONS} iterations of {BATCH} images, scores every 6, pictures every 4 and 8, a checkpoint every 5; seed "
        f"{seed}; {minutes:.1f} minutes on {os.cpu_count()} CPU cores. After every signal all pictures opened, all JSON "
        "parsed, all checkpoints loaded with right checksums and `metrics.jsonl` had whole lines. At the end weights, "
        "average, optimizers, schedules, counters, best checkpoint, `metrics.jsonl`, scores and pictures were equal to "
        "the undisturbed run's to the bit.",
        "",
        f"![one bar for each start of a run, up to the signal that ended it](images/{PICTURE.name})",
    ]
    return lines


def draw(outcomes: dict[int, list[list[Outcome]]], path: Path) -> None:
    """One bar for each start of a run: from the iteration that it went on from to the signal that ended it."""
    rows = sum(len(run) * ROW + GAP for runs in outcomes.values() for run in runs)
    picture = Image.new("RGB", (LEFT + WIDTH + 40, TOP + rows + 36), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    x = LEFT - 40
    for phase, color in COLORS.items():
        pen.rectangle((x, 12, x + 12, 24), fill=color)
        pen.text((x + 18, 10), phase, fill="black", font=font)
        x += 30 + round(pen.textlength(phase, font=font)) + 14
    mark(pen, x + 6, 18, "SIGKILL", (0, 0, 0))
    pen.text((x + 18, 10), "SIGKILL", fill="black", font=font)
    mark(pen, x + 96, 18, "SIGTERM", (0, 0, 0))
    pen.text((x + 108, 10), "SIGTERM, ends after its iteration", fill="black", font=font)
    bottom = TOP + rows
    for iteration in range(0, ITERATIONS + 1, 6):
        at = place(iteration)
        pen.line((at, TOP - 8, at, bottom), fill=(225, 225, 225))
        pen.text((at - 6, bottom + 4), str(iteration), fill="black", font=font)
    pen.text((LEFT + WIDTH // 2 - 30, bottom + 18), "iteration", fill="black", font=font)
    y = TOP
    for processes, runs in outcomes.items():
        for number, run in enumerate(runs, start=1):
            name = f"{processes} process{'es' if processes > 1 else ''}, run {number}"
            pen.text((10, y + len(run) * ROW // 2 - 8), name, fill="black", font=font)
            for outcome in run:
                bar(pen, outcome, y)
                y += ROW
            y += GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def bar(pen: ImageDraw.ImageDraw, outcome: Outcome, y: int) -> None:
    """The bar of one start."""
    hit = outcome.kill is not None and outcome.fired_at is not None
    end = outcome.fired_at if hit and outcome.fired_at is not None else ITERATIONS
    color = COLORS[outcome.kill.phase if hit and outcome.kill else "to the end"]
    middle = y + ROW // 2
    end = max(end, outcome.begin)
    pen.rectangle((place(outcome.begin), middle - 3, max(place(end), place(outcome.begin) + 1), middle + 3), fill=color)
    if hit and outcome.kill is not None:
        mark(pen, place(end) + 7, middle, outcome.kill.signal, color)
        pen.text((place(end) + 15, middle - 7), f"rank {outcome.kill.rank}" if outcome.kill.rank else "", fill=color)


def mark(pen: ImageDraw.ImageDraw, x: int, y: int, signal: str, color: tuple[int, int, int]) -> None:
    """A cross for SIGKILL, a dot for SIGTERM."""
    if signal == "SIGKILL":
        pen.line((x - 4, y - 4, x + 4, y + 4), fill=color, width=2)
        pen.line((x - 4, y + 4, x + 4, y - 4), fill=color, width=2)
    else:
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=color)


def place(iteration: int) -> int:
    """The column of an iteration."""
    return LEFT + round(iteration / ITERATIONS * WIDTH)


if __name__ == "__main__":
    main()
