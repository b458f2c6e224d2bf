"""What an offline W&B run holds, read back from its file."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from lightning_gen.tracking.record import read_record
from lightning_gen.tracking.wandb_account import wandb_key_is_configured

BLOCK = 32768
HEADER = 7


def records(path: Path) -> list[Record]:
    """Records of the ``.wandb`` file of a run that was closed, which may be written a moment later."""
    end = time.monotonic() + 20
    found = list(written_records(path))
    while not any(record.HasField("exit") for record in found):
        assert time.monotonic() < end, f"{path} was not closed"
        time.sleep(0.05)
        found = list(written_records(path))
    return found


def written_records(path: Path) -> Iterator[Record]:
    """Records of a ``.wandb`` file as it is: a 7-byte header, then LevelDB's log format."""
    content, position, parts = path.read_bytes(), HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # the whole record, or its last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def row(record: Record) -> dict[str, Any]:
    """A history row; a picture's fields come one by one under nested keys."""
    values: dict[str, Any] = {}
    for item in record.history.item:
        *outer, last = list(item.nested_key) or [item.key]
        inner = values
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return values


def read_run(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The history rows and the config of the only offline run below a run directory."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    config = {}
    for record in records(file):
        for update in (*record.run.config.update, *record.config.update):
            config[update.key or update.nested_key[0]] = json.loads(update.value_json)
    return history(file), config


def history(file: Path) -> list[dict[str, Any]]:
    """The rows of one offline file."""
    return [row(record) for record in records(file) if record.HasField("history")]


def summary(run: Path) -> dict[str, Any]:
    """The values that the only offline run below a run directory set in its summary."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    updates = [update for record in records(file) for update in record.summary.update]
    return {update.key or update.nested_key[0]: json.loads(update.value_json) for update in updates}


def test_an_offline_run_holds_curve_grids_interpolation_and_config(
    train_here: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("W&B asked a question"))
    record = train_here(
        "logger=wandb",
        "trainer.max_steps=30",
        "callbacks.scores.every_n_images=320",
        "callbacks.samples.every_n_images=320",
        "callbacks.losses.every_n_iterations=10",
        "callbacks.throughput.every_n_iterations=10",
        "seed=7",
    )
    run = tmp_path / "runs" / record["experiment"] / record["run_name"]
    rows, config = read_run(run)

    curve = [(row["images_seen"], row["score/fd_random"]) for row in rows if "score/fd_random" in row]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert curve == [(line["images_seen"], line["scores"][0]["value"]) for line in lines]
    assert [images for images, _ in curve] == [320, 640, 960]

    for key, count, folder in (("samples", 3, "samples"), ("interpolation", 1, "interpolations")):
        pictures = [row[key] for row in rows if key in row]
        assert [picture["_type"] for picture in pictures] == ["image-file"] * count
        media = next(run.glob("wandb/offline-run-*/files")) / pictures[-1]["path"]
        assert media.read_bytes() == (run / folder / "000000960.png").read_bytes()
    assert [row["interpolation_gif"]["_type"] for row in rows if "interpolation_gif" in row] == ["video-file"]

    losses = [row for row in rows if "train/generator_loss" in row]
    assert [row["images_seen"] for row in losses] == [320, 640, 960]
    speed = [row["speed/images_per_second"] for row in rows if "speed/images_per_second" in row]
    assert len(speed) == 3
    assert all(value > 0 for value in speed)
    assert all("images_seen" in row for row in rows)
    assert json.loads(summary(run)["record"]) == read_record(run / "result.json")
    assert config["seed"] == 7
    assert config["model"]["latent_dim"] == 8
    assert config["metrics"]["extractor"]["name"] == "random"


def test_a_run_that_was_stopped_goes_on_as_the_same_wandb_run(
    train_here: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    options = ("logger=wandb", "run_name=run", "resume=auto", "trainer.max_steps=20", "callbacks.interpolation=null")
    options += ("callbacks.losses.every_n_iterations=4", "callbacks.scores.every_n_images=320")
    spy = {"_target_": "tests.spies.SignalAt", "iteration": 11, "signal": "SIGTERM", "times": 1}
    with pytest.raises(SystemExit):
        train_here(*options, *(f"+callbacks.spy.{key}={value}" for key, value in spy.items()))
    train_here(*options)
    found = (tmp_path / "runs" / "tiny" / "run").glob("wandb/offline-run-*/run-*.wandb")
    files = sorted(found, key=lambda file: file.stat().st_mtime)
    assert len(files) == 2
    ids = [record.run.run_id for file in files for record in records(file) if record.HasField("run")]
    assert len(ids) >= 2
    assert len(set(ids)) == 1
    first, second = ([row["images_seen"] for row in history(file) if "train/generator_loss" in row] for file in files)
    assert (first, second) == ([128, 256, 384], [512, 640])
    curve = [row["images_seen"] for file in files for row in history(file) if "score/fd_random" in row]
    assert curve == [320, 640]


def test_a_key_is_found_where_wandb_login_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wandb_key_is_configured()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_key_is_configured()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not wandb_key_is_configured()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_key_is_configured()
