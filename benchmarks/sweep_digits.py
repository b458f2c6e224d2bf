"""A local sweep that is killed on its way and still beats the default: the section "Sweeps" of docs/results.md.

    python benchmarks/sweep_digits.py [--trials 12] [--iterations 200] [--output-dir runs/sweep_digits]

Runs ``sweeps/dcgan_digits.yaml`` with two workers and three seeds a trial. After a quarter of the runs the driver and
one worker get SIGKILL, and the same command is given again. Checks that every run completed once and that no trial went
on with other parameters, and compares the best trial with the default at the same number of iterations, on the seeds of
the search and on others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_page import ROOT, machine, mean_and_spread, rewrite_section, run_experiments

FILE = "sweeps/dcgan_digits.yaml"
SEARCHED_SEEDS = (0, 1, 2)
FRESH_SEEDS = (10, 11, 12)


def options(iterations: int) -> list[str]:
    """What every run is given."""
    return [
        f"trainer.max_steps={iterations}",
        "trainer=cpu",
        "logger=none",
        "callbacks.samples=null",
        "callbacks.interpolation=null",
        "metrics.metrics=[frechet_distance]",
    ]


def start(storage: Path, output_dir: Path, trials: int, iterations: int) -> subprocess.Popen[str]:
    """The driver."""
    command = [sys.executable, "-m", "lightning_gen.cli", "sweep", FILE, "--storage", str(storage), "--workers", "2"]
    command += [
        "--seeds",
        ",".join(map(str, SEARCHED_SEEDS)),
        "--trials",
        str(trials),
        "--output-dir",
        str(output_dir),
        "--json",
        "--",
        *options(iterations),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def completed(output_dir: Path) -> list[Path]:
    """Runs whose record says that they completed."""
    records = output_dir.glob("*/*/result.json")
    return [file.parent for file in records if json.loads(file.read_text(encoding="utf-8"))["status"] == "completed"]


def kill_in_the_middle(driver: subprocess.Popen[str], storage: Path, output_dir: Path, after: int) -> None:
    """SIGKILL to the driver and one worker, when so many runs have completed and another is on its way."""
    while len(completed(output_dir)) < after or not under_way(storage):
        if driver.poll() is not None:
            raise SystemExit("the sweep ended before it could be killed")
        time.sleep(0.2)
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(driver.pid)], capture_output=True, text=True, check=True)
    worker = int(listed.stdout.split()[0])
    os.kill(driver.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    driver.communicate()


def under_way(storage: Path) -> int:
    """Trials whose newest run shows some iterations, and not yet the last ones."""
    logs = [log.read_text(encoding="utf-8", errors="replace") for log in (storage / "trials").glob("*.log")]
    return sum(2 <= text.rpartition("$ ")[2].count("\niteration ") <= 7 for text in logs)


def starts(storage: Path) -> dict[int, list[str]]:
    """The commands that were started for each trial, by the trials' logs."""
    found = {}
    for log in sorted((storage / "trials").glob("*.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        found[int(log.stem)] = [line[2:] for line in lines if line.startswith("$ ")]
    return found


def scores_by_seed(name: str, overrides: list[str], output_dir: Path, seeds: Sequence[int]) -> list[float]:
    """fd_digits of the same setting with each of the seeds."""
    run_experiments([[*overrides, f"seed={seed}", f"run_name={name}-seed{seed}"] for seed in seeds], output_dir, jobs=2)
    files = [next(output_dir.glob(f"*/{name}-seed{seed}/result.json")) for seed in seeds]
    return [json.loads(file.read_text(encoding="utf-8"))["scores"][0]["value"] for file in files]


def main() -> None:
    """Run, check, and rewrite the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--output-dir", type=Path, default=Path("runs/sweep_digits"))
    arguments = parser.parse_args()
    output_dir = arguments.output_dir.resolve()
    storage, searched = output_dir / "storage", output_dir / "searched"
    if storage.exists():
        raise SystemExit(f"{storage} exists: remove it or name another --output-dir")
    begin = time.monotonic()
    driver = start(storage, searched, arguments.trials, arguments.iterations)
    every = arguments.trials * len(SEARCHED_SEEDS)
    kill_in_the_middle(driver, storage, searched, every // 4)
    begun = sum(map(bool, starts(storage).values()))
    driver = start(storage, searched, arguments.trials, arguments.iterations)
    output, _ = driver.communicate()
    if driver.returncode:
        raise SystemExit(f"the sweep ended with status {driver.returncode}")
    minutes = (time.monotonic() - begin) / 60
    summary: dict[str, Any] = json.loads(output)

    runs = Counter(run.name for run in completed(searched))
    named = Counter(Path(run).name for trial in summary["trials"] for run in trial["runs"].values())
    assert len(summary["trials"]) == summary["counts"]["completed"] == arguments.trials
    assert runs == named
    assert len(runs) == sum(runs.values()) == every
    commands = starts(storage)
    assert all(len({parameters(line) for line in lines}) == 1 for lines in commands.values()), "other parameters"
    resumed = sum(count - 1 for lines in commands.values() for count in Counter(lines).values())
    print(f"{every} runs completed once each; taken up again after the kill: {resumed}")
    assert resumed, "the kill met no run"

    best = summary["trials"][summary["best"]]
    chosen = [f"{name}={value}" for name, value in best["values"].items()]
    compared = output_dir / "compared"
    usual = ["experiment=dcgan_digits", *options(arguments.iterations)]
    usual = ["experiment=dcgan_digits", *options(arguments.iterations)]
    default = scores_by_seed("default", usual, compared, (*SEARCHED_SEEDS, *FRESH_SEEDS))
    default, default_fresh = default[: len(SEARCHED_SEEDS)], default[len(SEARCHED_SEEDS) :]
    found = [json.loads((Path(run) / "result.json").read_text(encoding="utf-8")) for run in best["runs"].values()]
    found_fresh = scores_by_seed("best", [*chosen, *options(arguments.iterations)], compared, FRESH_SEEDS)
    shown = [re.sub(r"^model\.", "", pair) for pair in chosen if not pair.startswith("experiment=")]
    rewrite_section(
        "sweep_digits",
        [
            f"| setting | fd_digits, seeds {_list(SEARCHED_SEEDS)}, of the search | seeds {_list(FRESH_SEEDS)} |",
            "| --- | --- | --- |",
            f"| default | {mean_and_spread(default, 1)} | {mean_and_spread(default_fresh, 1)} |",
            f"| best of {arguments.trials} trials: {', '.join(_short(pair) for pair in shown)} | "
            f"{mean_and_spread([record['scores'][0]['value'] for record in found], 1)} | "
            f"{mean_and_spread(found_fresh, 1)} |",
            "",
            f"{arguments.iterations} iterations each. The search took {minutes:.1f} minutes with two workers; its "
            f"trials had {min(_scores(summary)):.1f} to {max(_scores(summary)):.1f}. When {begun} "
            f"trials had been begun, the driver and a worker were killed; started again, the sweep took {resumed} "
            f"of their runs up where they were, and all {every} completed once each. {machine(found)}.",
        ],
    )
    ratio = statistics.mean(found_fresh) / statistics.mean(default_fresh)
    print(f"best / default on fresh seeds: {ratio:.3f}")
    if best["score"] >= statistics.mean(default):
        raise SystemExit("the best trial does not beat the default")


def parameters(command: str) -> str:
    """A command without what tells the runs of a trial from each other."""
    return " ".join(word for word in command.split() if not word.startswith(("seed=", "run_name=")))


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _scores(summary: dict[str, Any]) -> list[float]:
    return [trial["score"] for trial in summary["trials"]]


def _short(pair: str) -> str:
    name, _, value = pair.partition("=")
    try:
        return f"`{name}={float(value):.3g}`"
    except ValueError:
        return f"`{pair}`"


if __name__ == "__main__":
    main()
