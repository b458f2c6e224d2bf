"""Seconds that a leaderboard of many runs takes: finding and reading the records, building the boards, and the page.

    python benchmarks/leaderboard.py [--runs 10000]

The runs are made in a temporary folder, each with its record (three scores), its curve of ten evaluations and its empty
folders: five seeds of every setting, four data sets, three of them under two protocols each. The page is without
pictures. The command should stay below five seconds for 10,000 runs (docs/leaderboard.md).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning_gen.files import canonical_json
from lightning_gen.report.board_page import leaderboard_page
from lightning_gen.tracking.leaderboard import build_boards
from lightning_gen.tracking.record import SCHEMA, config_digest
from lightning_gen.tracking.record_files import find_records

SEEDS = 5
SETS = ("digits", "mnist", "cifar10", "celeba")
MODELS = ("gan", "dcgan", "wgan_gp", "sngan", "biggan", "vae", "ddpm", "r3gan")
SCORES = (("fid", True), ("inception_score", False), ("recall_inception", False))


def make_record(setting: int, seed: int, rng: random.Random) -> dict[str, Any]:
    """The record of one run."""
    data, model = SETS[setting % len(SETS)], MODELS[setting // len(SETS) % len(MODELS)]
    labels = None if data == "celeba" or setting % 8 < 4 else {"law": [0.1] * 10}
    scores = []
    for name, lower_is_better in SCORES:
        protocol = {
            "metric": {"name": name},
            "extractor": {"name": "inception", "weights_sha256": "6726825d" * 8, "layer": "pool", "resize": "tf1"},
            "reference": {"dataset": data, "split": "train", "size": 50000, "digest": "0d6f8d2f" * 8},
            "num_samples": 50000,
            "block_size": 64,
            "labels": labels,
            "weights": "ema",
            "sampler": {},
            "seed": 0,
            "scoring_version": 1,
        }
        scores.append(
            {
                "name": name,
                "value": 5 + setting % 97 + rng.random(),
                "std": 0.1 if name == "inception_score" else None,
                "images_seen": 10_000_000,
                "lower_is_better": lower_is_better,
                "ranked": True,
                "protocol": protocol,
                "protocol_hash": config_digest(protocol),
            }
        )
    return {
        "schema": SCHEMA,
        "status": "interrupted" if rng.random() < 0.03 else "completed",
        "experiment": f"{model}_{data}_{setting:04d}",
        "run_name": f"seed{seed}",
        "model": model,
        "data": data,
        "seed": seed,
        "iterations": 100_000,
        "images_seen": 10_000_000,
        "train_seconds": 36_000 * rng.random(),
        "images_per_second": 1000.0,
        "parameters": {"generator": 4_000_000, "discriminator": 3_000_000},
        "scores": scores,
        "config_digest": config_digest({"setting": setting, "seed": seed}),
        "settings_digest": config_digest({"setting": setting}),
        "git_commit": "0" * 40,
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "hardware": {"device": "NVIDIA H100", "processes": 8, "nodes": 1, "cpu_count": 64, "threads": 8},
    }


def make_runs(folder: Path, number: int) -> None:
    """Write the run directories."""
    rng = random.Random(0)
    for index in range(number):
        record = make_record(index // SEEDS, index % SEEDS, rng)
        run = folder / record["experiment"] / record["run_name"]
        for name in ("checkpoints", "samples", "interpolations", "wandb"):
            (run / name).mkdir(parents=True)
        (run / "result.json").write_text(json.dumps(record, indent=1))
        score = record["scores"][0]
        with (run / "metrics.jsonl").open("w") as file:
            for step in range(1, 11):
                point = {**score, "images_seen": step * 1_000_000, "value": score["value"] * 10 / step}
                file.write(canonical_json({"iteration": step, "scores": [point]}) + "\n")


def main() -> None:
    """Print the seconds of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    number = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        make_runs(Path(name), number)
        started = time.perf_counter()
        found, problems = find_records(Path(name))
        read = time.perf_counter()
        boards = build_boards(found)
        built = time.perf_counter()
        page = leaderboard_page(boards, found, pictures=False)
        drawn = time.perf_counter()
    assert len(found) == number, problems[:3]
    entries = sum(len(board.entries) for board in boards)
    print(f"{number:,} runs, {len(boards)} boards, {entries:,} entries, page of {len(page) / 1e6:.1f} MB")
    print(f"find and read {read - started:.2f} s, build {built - read:.2f} s, page {drawn - built:.2f} s")
    print(f"all {drawn - started:.2f} s, {1e6 * (drawn - started) / number:.0f} microseconds a run")


if __name__ == "__main__":
    main()
