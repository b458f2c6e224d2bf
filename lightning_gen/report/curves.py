"""Score curves of runs, from their ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_ENTRIES = 10
"""Entries of a board that are drawn, the best first: more colors cannot be told apart."""

MAX_POINTS = 400
"""Of a curve in a page, evenly chosen from all."""

Curves = Mapping[tuple[str, str], list[tuple[int, float]]]
"""(score name, protocol hash) -> (images seen, value) of each evaluation."""


def read_curves(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """All curves of a run, by score and protocol; lines that are damaged are left out."""
    curves: dict[tuple[str, str], dict[int, float]] = {}
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        for score in _scores(line):
            try:
                key, seen, value = (score["name"], score["protocol_hash"]), score["images_seen"], float(score["value"])
                if isinstance(seen, int) and math.isfinite(value):
                    curves.setdefault(key, {})[seen] = value
            except (KeyError, TypeError, ValueError, OverflowError):
                continue
    return {key: _thinned(sorted(points.items())) for key, points in curves.items()}


def _scores(line: str) -> list[dict[str, Any]]:
    try:
        scores = json.loads(line)["scores"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [score for score in scores if isinstance(score, dict)] if isinstance(scores, list) else []


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= MAX_POINTS:
        return points
    return [points[round(index * (len(points) - 1) / (MAX_POINTS - 1))] for index in range(MAX_POINTS)]
