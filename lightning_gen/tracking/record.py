"""The run record ``result.json``: everything a leaderboard needs of a run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lightning_gen.errors import UserError, first_line
from lightning_gen.files import canonical_json, write_text
from lightning_gen.tracking.record_fields import check_fields

SCHEMA = 1
STATUSES = ("completed", "interrupted", "failed")
PACKAGES = ("lightning-gen", "torch", "pytorch-lightning", "torchmetrics", "torchvision", "numpy")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a run record, whole or not at all."""
    write_text(path, json.dumps(with_schema(record), indent=1) + "\n")


def with_schema(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run record with the number of its schema."""
    return {"schema": SCHEMA, **record}


def read_record(path: Path) -> dict[str, Any]:
    """A run record.

    Raises:
        UserError: it cannot be read, or is not a record of this schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return parse_record(text, str(path))


def parse_record(text: str, name: str) -> dict[str, Any]:
    """The run record in a JSON text.

    Args:
        text: the JSON.
        name: where it comes from, for messages.

    Raises:
        UserError: it is not whole, not of this schema, or a field has another type than it must have.
    """
    try:
        record = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair could never be printed
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} cannot be read: {first_line(error)}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("status") not in STATUSES:
        raise UserError(f"{name} is not a run record of schema {SCHEMA}")
    check_fields(record, name)
    return record


def format_score(score: Mapping[str, Any], digits: int = 4) -> str:
    """``value``, or ``value ± std``, of a recorded score for a person to read."""
    spread = "" if score["std"] is None else f" ± {score['std']:.2g}"
    return f"{score['value']:.{digits}g}{spread}"


def config_digest(config: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of a config."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:16]


@cache
def git_commit(folder: Path) -> str | None:
    """The commit that ``folder`` is checked out at, with ``-dirty`` where files differ from it; None outside git."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware(device: str, devices: int, nodes: int, threads: int) -> dict[str, Any]:
    """What the run ran on.

    Args:
        device: name of the accelerator, or ``cpu``.
        devices: processes over all nodes.
        nodes: machines.
        threads: cores that each process computes with.
    """
    return {
        "device": device,
        "processes": devices,
        "nodes": nodes,
        "cpu_count": os.cpu_count(),
        "threads": threads,
    }
