"""Runs of models that translate: killed and resumed, and refused where data and model do not go together."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_gen.configuration import compose_config
from lightning_gen.errors import UserError
from lightning_gen.models import read_checkpoint
from lightning_gen.training import build_parts, train
from tests.conftest import ROOT, run_command
from tests.end_to_end.test_resume import assert_equal
from tests.models.tiny import TINY, TRANSLATING

ITERATIONS = 40
COLORIZE_PHOTOS = [
    "data=colorize",
    "data@data.source=image_folder",
    "data.source.path=FOLDER/photos",
    "paths.cache_dir=FOLDER/cache",
]


def run(output: Path, model: str, *overrides: str) -> int:
    arguments = [
        f"model={model}",
        *TINY[model],
        "experiment_name=tiny",
        "run_name=run",
        "metrics=none",
        "logger=none",
        "trainer=cpu",
        f"trainer.max_steps={ITERATIONS}",
        "callbacks.checkpoint.every_n_iterations=6",
        f"paths.output_dir={output}",
        *overrides,
    ]
    result = run_command("train.py", *arguments, cwd=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode


def state(output: Path) -> dict[str, Any]:
    return read_checkpoint(output / "tiny" / "run" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("model", TRANSLATING)
def test_killed_and_resumed_equals_never_killed(model: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert run(whole, model) == 0
    kill = random.Random(os.urandom(8)).randrange(7, ITERATIONS)
    options = ["+callbacks.kill._target_=tests.spies.KillAt", f"+callbacks.kill.iteration={kill}"]
    assert run(killed, model, *options) == -signal.SIGKILL
    assert run(killed, model, "resume=auto") == 0
    expected, resumed = state(whole), state(killed)
    parts = ["state_dict", "optimizer_states", "lr_schedulers", "generative_model", "global_step"]
    for part in [*parts, *(["replay_pools"] if model == "cyclegan" else [])]:
        assert_equal(expected[part], resumed[part], f"{part} of a run killed at {kill}")
    assert any(name.startswith("average.") for name in expected["state_dict"])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model=pix2pix", "data=digits"], "translates from one domain to another, and the data set has one"),
        (["model=cyclegan_small", "data=digits"], "the data set has one: set data=paired"),
        (["model=discogan_small", "data=digits"], "the data set has one"),
        (["model=pix2pix_small", "data=inverted"], "learns from pairs, and this data set's images are not paired"),
        (["model=pix2pix", "data=edges", "data.image_size=16"], r"num_layers=3 needs images of at least 24 pixels"),
        (["model=pix2pix", "data=edges", "data.image_size=28"], r"28x28 cannot be: set data\.image_size to a power"),
        (["model=cyclegan_small", "data=inverted", "data.image_size=30"], "a multiple of 4 pixels, at least 8, not 30"),
        (["model=discogan_small", "data=inverted", "data.image_size=24"], "a power-of-two size from 16, not 24x24"),
        (
            ["model=cyclegan", *COLORIZE_PHOTOS],
            r"model\.identity_weight=0\.5 compares images of 1 channels with such of 3: set it to 0",
        ),
        (
            ["model=discogan_small", "data=inverted", "model.generator.bottleneck_channels=8", "data.batch_size=1"],
            r"set data\.batch_size=2 or more",
        ),
        (["model=pix2pix_small", "data=edges", "model.generator_optimizer.schedule.total_iters=0"], "total_iters must"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    overrides: list[str], reason: str, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(32):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(photos / f"{number}.png")
    options = [override.replace("FOLDER", str(tmp_path)) for override in overrides]
    config = compose_config(["metrics=none", "logger=none", "trainer=cpu", *options])
    with pytest.raises(UserError, match=reason) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not Path(os.environ["LIGHTNING_GEN_OUTPUT_DIR"]).exists()


@pytest.mark.parametrize(
    ("experiment", "path", "layout", "iterations"),
    [
        ("pix2pix_facades", "facades", ("train", "test"), 200 * 400),
        ("pix2pix_maps", "maps", ("train", "val"), 200 * 1096),
        ("cyclegan_horse2zebra", "horse2zebra", ("trainA", "trainB", "testA", "testB"), 200 * 1334),
        ("discogan_edges2shoes", "edges2shoes", ("train", "val"), 60_000),
    ],
)
def test_experiments_read_the_published_folders(
    experiment: str, path: str, layout: tuple[str, ...], iterations: int, tmp_path: Path
) -> None:
    size = (64, 64) if path == "horse2zebra" else (128, 64)
    batch = 2 if path == "edges2shoes" else 1
    for folder in layout:
        (tmp_path / path / folder).mkdir(parents=True)
        for number in range(2 * batch):
            Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / path / folder / f"{number}.jpg")
    tiny = ["model.generator.base_channels=2", "model.discriminator.base_channels=2"]
    config = compose_config(
        [f"experiment={experiment}", f"paths.data_dir={tmp_path}", "metrics=none", f"data.batch_size={batch}", *tiny]
    )
    parts = build_parts(config)
    assert parts.model.domain_shapes["A"] == (3, *[64 if path == "edges2shoes" else 256] * 2)  # type: ignore[index, union-attr, operator]
    assert config["trainer"]["max_steps"] == iterations
    assert config["ema"] is None
    if path != "edges2shoes":
        assert config["data"]["augmentation"] == {"horizontal_flip": True, "pad_crop": 0, "resize_crop": 286}
