"""Runs on image files: streamed, augmented and partly labelled, killed and resumed, on one process and on two."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_gen.models import read_checkpoint
from tests.conftest import ROOT, SMALL, run_command
from tests.end_to_end.test_resume import assert_equal

ITERATIONS = 30
CLASSES = ("left", "right")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for index in range(50):
            pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((60 + index % 3, 40), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{index}.jpg", quality=95)
    return folder


def train(photos: Path, output: Path, *overrides: str, expected: tuple[int, ...] = (0, -signal.SIGKILL)) -> int:
    arguments = [
        *SMALL,
        "data=image_folder",
        f"data.path={photos}",
        "data.image_size=32",
        "data.batch_size=8",
        "data.test_share=0.2",
        "data.labelled_per_class=3",
        "data.augmentation.horizontal_flip=true",
        "data.augmentation.pad_crop=4",
        "data.dequantize=true",
        f"trainer.max_steps={ITERATIONS}",
        "metrics.num_samples=32",
        "callbacks.checkpoint.every_n_iterations=4",
        "run_name=run",
        f"paths.output_dir={output}",
        *overrides,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = run_command("train.py", *arguments, cwd=output, env=environment, start_new_session=True)
    assert result.returncode in expected, result.stderr
    assert result.returncode not in (75, 130) or "Traceback" not in result.stderr, result.stderr
    return result.returncode


STREAMED = ("data.residency=stream", "data.crop=random", "data.num_workers=2")


def test_a_streamed_run_killed_and_resumed_ends_with_the_same_bits(photos: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert train(photos, whole, *STREAMED) == 0
    kill = ("+callbacks.kill._target_=tests.spies.KillAt", "+callbacks.kill.iteration=18")
    assert train(photos, broken, *STREAMED, *kill) == -signal.SIGKILL
    # The number of workers is a matter of the machine: it may differ, and the bits may not.
    assert train(photos, broken, *STREAMED[:2], "data.num_workers=1", "resume=auto") == 0
    expected, resumed = (
        read_checkpoint(output / "tiny" / "run" / "checkpoints" / "last.ckpt") for output in (whole, broken)
    )
    for part in ("state_dict", "optimizer_states", "generative_model", "global_step"):
        assert_equal(expected[part], resumed[part], part)
    assert resumed["generative_model"]["iteration"] == ITERATIONS
    assert labelled(whole) == labelled(broken)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_to_the_whole_process_group_spares_the_workers(
    photos: Path, tmp_path: Path, name: str, status: int
) -> None:
    spy = {"_target_": "tests.spies.SignalAt", "iteration": 10, "signal": name, "whole_group": "true"}
    options = [f"+callbacks.spy.{key}={value}" for key, value in spy.items()]
    assert train(photos, tmp_path, *STREAMED, *options, expected=(status,)) == status
    last = read_checkpoint(tmp_path / "tiny" / "run" / "checkpoints" / "last.ckpt")
    assert last["generative_model"]["iteration"] == 11


def test_where_images_come_from_does_not_change_a_run(photos: Path, tmp_path: Path) -> None:
    states = []
    for residency in ("stream", "memory"):
        output = tmp_path / residency
        output.mkdir()
        assert train(photos, output, f"data.residency={residency}", "trainer.max_steps=12") == 0
        states.append(read_checkpoint(output / "tiny" / "run" / "checkpoints" / "last.ckpt")["state_dict"])
    assert_equal(*states)


def test_two_processes_augment_differently_and_label_the_same_images(photos: Path, tmp_path: Path) -> None:
    spy = ("+callbacks.spy._target_=tests.spies.RankSpy", f"+callbacks.spy.folder={tmp_path}")
    assert train(photos, tmp_path, *STREAMED, *spy, "trainer=ddp_cpu") == 0
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["parameters"] == second["parameters"]
    assert len(first["images"]) == ITERATIONS * 8
    assert not set(first["images"]) & set(second["images"])
    assert first["labelled"] == second["labelled"] == labelled(tmp_path)


@pytest.mark.parametrize("residency", ["stream", "memory"])
def test_damaged_images_stop_a_run_or_are_reported_and_counted(photos: Path, tmp_path: Path, residency: str) -> None:
    damaged = tmp_path / "photos"
    shutil.copytree(photos, damaged)
    file = damaged / "left" / "7.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    arguments = [
        *(option for option in SMALL if not option.startswith("metrics")),
        "data=image_folder",
        f"data.path={damaged}",
        "data.image_size=32",
        f"data.residency={residency}",
        "metrics=none",
        "trainer.max_steps=8",
        f"paths.output_dir={tmp_path}",
    ]
    strict = run_command("train.py", *arguments, cwd=tmp_path)
    assert strict.returncode == 2
    assert strict.stderr.splitlines()[-1].startswith(f"error: {file} is damaged")
    assert "Traceback" not in strict.stderr
    lenient = run_command("train.py", *arguments, "data.on_error=skip", cwd=tmp_path)
    assert lenient.returncode == 0, lenient.stderr
    lines = lenient.stderr.splitlines()
    assert len([line for line in lines if line.startswith(f"skipped: {file} is damaged")]) == 1
    assert "photos-train: 1 of 100 images were damaged and skipped" in lines


def labelled(output: Path) -> list[int]:
    indices: list[int] = json.loads((output / "tiny" / "run" / "labelled.json").read_text())["indices"]
    assert len(indices) == len(set(indices)) == 3 * len(CLASSES)
    return indices
