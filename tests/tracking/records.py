"""Run records for the tests of the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_gen.tracking.record import write_record

HARDWARE = {"device": "cpu", "processes": 1, "nodes": 1, "cpu_count": 8, "threads": 4}


def record(name: str, value: float, protocol: str = "p1", **changes: Any) -> dict[str, Any]:
    """A record with one score; ``score={...}`` changes that, other arguments the record."""
    score = {
        "name": "fid",
        "value": value,
        "std": None,
        "images_seen": 1000,
        "lower_is_better": True,
        "ranked": True,
        "protocol": {"num_samples": 10, "reference": {"dataset": "d", "split": "train", "size": 5}},
        "protocol_hash": protocol,
    }
    base = {"status": "completed", "experiment": "e", "run_name": name, "model": "m", "data": "d", "seed": 0}
    base |= {"images_seen": 1000, "train_seconds": 1.5, "images_per_second": 10.0, "parameters": {"g": 3, "d": 4}}
    return {**base, "scores": [{**score, **changes.pop("score", {})}], **changes}


def seeds(experiment: str, values: list[float], **changes: Any) -> list[dict[str, Any]]:
    """Completed records of one setting, one for each seed."""
    return [
        record(
            f"seed{seed}", value, experiment=experiment, seed=seed, settings_digest=f"digest-of-{experiment}", **changes
        )
        for seed, value in enumerate(values)
    ]


def write(folder: Path, *records: dict[str, Any]) -> None:
    """Write each record where its run would."""
    for item in records:
        path = folder / item["experiment"] / item["run_name"] / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, item)
