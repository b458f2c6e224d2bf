"""A program that behaves as ``train.py`` does towards a sweep, without torch: key=value, a run directory, a record.

It keeps a ledger of what was started and finished, takes ``steps`` of ``seconds`` each with a line of metrics after
each one, goes on where it was stopped, and ends as interrupted on SIGTERM. Its score is (x - 3)^2 + y + seed, worse by
10/step - 10/steps before the end. ``mistake``, ``broken``, ``nan`` and ``dies`` name the x with which that happens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

INTERRUPTED = 75


def score(value: float) -> dict[str, Any]:
    return {
        "name": "fd_fake",
        "value": value,
        "std": None,
        "images_seen": 1,
        "lower_is_better": True,
        "ranked": True,
        "protocol": {"metric": "fake"},
        "protocol_hash": "0000",
    }


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    name, seed = options["run_name"], int(options.get("seed", 0))
    ledger = Path(options["ledger"])

    def note(word: str) -> None:
        with ledger.open("a") as file:
            file.write(json.dumps([word, name, os.getpid(), {key: options.get(key) for key in "xyz"}]) + "\n")

    def happens(key: str) -> bool:
        return key in options and options[key] in ("always", options.get("x"))

    if happens("mistake"):
        print("about to fail")
        print("error: model.x cannot be that: use model.x=3", file=sys.stderr)
        raise SystemExit(2)
    if happens("broken"):
        raise RuntimeError("the network blew up")
    run = Path(options["paths.output_dir"]) / "fake" / name
    assert options["resume"] == "auto"
    run.mkdir(parents=True, exist_ok=True)
    note("start")
    lines = run / "metrics.jsonl"
    done = len(lines.read_text().splitlines()) if lines.exists() else 0

    def record(status: str, scores: list[dict[str, Any]]) -> None:
        facts = {"schema": 1, "status": status, "experiment": "fake", "run_name": name, "model": "m", "data": "d"}
        facts |= {
            "seed": seed,
            "scores": scores,
            "images_seen": 1,
            "iterations": done,
            "settings_digest": name.partition("-seed")[0],
        }
        (run / "result.tmp").write_text(json.dumps(facts))
        (run / "result.tmp").replace(run / "result.json")

    def interrupted(number: int, frame: Any) -> None:
        record("interrupted", [])
        note("interrupted")
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGTERM, interrupted)
    value = (float(options.get("x", 3)) - 3) ** 2 + float(options.get("y", 0)) + seed
    steps = int(options.get("steps", 1))
    while done < steps:
        time.sleep(float(options.get("seconds", 0.0)))
        done += 1
        with lines.open("a") as file:
            file.write(json.dumps({"iteration": done, "scores": [score(value + 10 * (1 / done - 1 / steps))]}) + "\n")
    if happens("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    record("completed", [score(float("nan") if happens("nan") else value)])
    note("end")


if __name__ == "__main__":
    main()
