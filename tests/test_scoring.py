from __future__ import annotations

import json
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors.random_convolution import RandomExtractor
from lightning_gen.metrics.statistics_files import read_statistics
from tests.conftest import run_command


def save_images(folder: Path, images: np.ndarray, suffix: str = "png", **options: Any) -> Path:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:04d}.{suffix}", **options)
    return folder


def digits(first: int, last: int) -> np.ndarray:
    return np.kron(load_digits().images[first:last] * 15.9, np.ones((4, 4))).astype(np.uint8)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of 120 digits of 32x32 each."""
    return save_images(tmp_path / "first", digits(0, 120)), save_images(tmp_path / "second", digits(120, 240))


def call(*arguments: object) -> dict[str, Any]:
    """What a command prints as JSON; mistakes are raised as they are."""
    result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_two_folders_are_compared(sides: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = sides
    names = "frechet_distance,inception_score,kernel_distance,recall"
    found = call("compare", first, second, "--extractor", "digits", "--metrics", names)
    assert [score["name"] for score in found["scores"]] == [
        *("fd_digits", "class_score_digits", "kd_digits", "recall_digits"),
    ]
    assert found["fd_digits"] == found["scores"][0]["value"] > 0
    protocol = found["scores"][0]["protocol"]
    assert protocol["num_samples"] == 120
    assert protocol["samples"] == {"formats": ["PNG"]}
    assert protocol["reference"].items() >= {"dataset": "second", "split": "all", "size": 120}.items()
    same = call("compare", first, first, "--extractor", "digits", "--metrics", "fd_digits,coverage")
    assert same["fd_digits"] == pytest.approx(0, abs=1e-6)
    assert same["coverage_digits"] == 1


def test_folder_and_archives_give_the_same_scores(sides: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = sides
    with zipfile.ZipFile(tmp_path / "first.zip", "w") as archive:
        for file in first.iterdir():
            archive.write(file, f"images/{file.name}")
    with tarfile.open(tmp_path / "second.tar.gz", "w:gz") as tar:
        tar.add(second, "second")
    options = ("--extractor", "digits", "--metrics", "fd_digits")
    folders = call("compare", first, second, *options)["scores"]
    assert call("compare", tmp_path / "first.zip", tmp_path / "second.tar.gz", *options)["scores"] == folders


def test_a_folder_is_scored_against_a_set_by_the_sets_protocol(sides: tuple[Path, Path]) -> None:
    (score, *others) = call("evaluate", sides[0], "--against", "digits", "-n", 100)["scores"]
    assert score["name"] == "fd_digits"
    assert score["protocol"]["num_samples"] == 100
    assert score["protocol"]["reference"].items() >= {"dataset": "digits", "split": "test", "size": 360}.items()
    assert [each["name"] for each in others] == ["class_score_digits", "recall_digits", "coverage_digits"]


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_statistics_stand_in_for_images(sides: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    first, second = sides
    file = tmp_path / f"second.{suffix}"
    call("statistics", second, "-o", file, "--extractor", "digits")
    options = ("--extractor", "digits", "--metrics", "fd_digits")
    (by_file,) = call("evaluate", first, "--against", file, *options)["scores"]
    (by_images,) = call("compare", first, second, *options)["scores"]
    assert by_file["value"] == pytest.approx(by_images["value"], rel=1e-9)
    assert by_file["protocol_hash"] != by_images["protocol_hash"]
    with pytest.raises(UserError, match="only statistics are known"):
        call("evaluate", first, "--against", file, "--extractor", "digits", "--metrics", "recall")


def test_files_of_other_tools_are_read_and_ours_by_them(sides: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = sides
    for name, folder in (("first", first), ("second", second)):
        call("statistics", folder, "-o", tmp_path / f"{name}.npz", "--extractor", "digits")
        call("statistics", folder, "-o", tmp_path / f"{name}.pt", "--extractor", "digits")
    # as torch-fidelity and pytorch-fid read them
    theirs = [torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("first", "second")]
    fid = fid_statistics_to_metric(*theirs, verbose=False)[KEY_METRIC_FID]
    assert call("compare", first, second, "--extractor", "digits", "--metrics", "fd_digits")[
        "fd_digits"
    ] == pytest.approx(fid, rel=1e-6)
    with np.load(tmp_path / "first.npz") as arrays:
        np.savez(tmp_path / "plain.npz", mu=arrays["mu"], sigma=arrays["sigma"])
        torch.save({"mu": arrays["mu"], "sigma": arrays["sigma"]}, tmp_path / "plain.pt")
    for plain in ("plain.npz", "plain.pt"):
        statistics = read_statistics(tmp_path / plain)
        assert statistics.n is None
        torch.testing.assert_close(statistics.mean, torch.from_numpy(theirs[0]["mu"]))


@pytest.mark.parametrize("content", ["nothing", "text", "other", "shapes", "nan", "code"])
def test_bad_statistics_are_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.npz"
    if content == "text":
        file.write_text("mu sigma")
    elif content == "other":
        np.savez(file, mean=np.zeros(3))
    elif content == "shapes":
        np.savez(file, mu=np.zeros(3), sigma=np.zeros((2, 2)))
    elif content == "nan":
        np.savez(file, mu=np.full(2, np.nan), sigma=np.eye(2))
    elif content == "code":
        file = tmp_path / "bad.pt"
        torch.save({"mu": Path("x"), "sigma": 1}, file)
    with pytest.raises(UserError, match=r"bad\.(npz|pt)"):
        read_statistics(file)


def test_bad_folders_are_refused_by_name(sides: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = sides
    mixed = save_images(tmp_path / "mixed", digits(0, 5))
    Image.new("L", (48, 32)).save(mixed / "wide.png")
    corrupt = save_images(tmp_path / "corrupt", digits(0, 5))
    (corrupt / "0003.png").write_bytes((corrupt / "0003.png").read_bytes()[:60])
    text = save_images(tmp_path / "text", digits(0, 3))
    (text / "notes.txt").write_text("hello")
    fake = save_images(tmp_path / "fake", digits(0, 3))
    (fake / "0001.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (mixed, r"2 sizes, 5 of 32x32 \(0000\.png, 0001\.png, 0002\.png, \.\.\.\); 1 of 48x32 \(wide\.png\)"),
        (corrupt, r"0003\.png is damaged"),
        (text, r"notes\.txt is not an image"),
        (fake, r"0001\.png is not an image"),
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "none", "No run directory or checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            call("compare", folder, second, "--extractor", "digits", "--metrics", "fd_digits")
    colored = tmp_path / "colored"
    colored.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 50, 90)).save(colored / f"{index}.png")
    for arguments in ((colored, second), (first, colored)):
        with pytest.raises(UserError, match=r"grey images of 32x32 or 28x28, not \(3, 32, 32\)"):
            call("compare", *arguments, "--extractor", "digits", "--metrics", "fd_digits")
    with pytest.raises(UserError, match="no data set, folder or file"):
        call("evaluate", first, "--against", "digit")
    with pytest.raises(UserError, match="--against SET"):
        call("evaluate", first)
    with pytest.raises(UserError, match="holds 120 images"):
        call("compare", first, second, "-n", 121, "--extractor", "digits")
    with pytest.raises(UserError, match="Unknown metric 'fid'"):
        call("compare", first, second, "--extractor", "digits", "--metrics", "fid")


def test_jpeg_is_flagged(tmp_path: Path) -> None:
    lossy = save_images(tmp_path / "lossy", digits(0, 20), "jpg", quality=95)
    plain = save_images(tmp_path / "plain", digits(0, 20))
    arguments = ("--extractor", "random", "--metrics", "frechet_distance")
    command = ["compare", str(lossy), str(plain), *arguments, "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "JPEG" in result.stderr
    scores = [json.loads(result.stdout)["scores"][0], call("compare", plain, plain, *arguments)["scores"][0]]
    assert [score["protocol"]["samples"]["formats"] for score in scores] == [["JPEG"], ["PNG"]]
    assert scores[0]["protocol_hash"] != scores[1]["protocol_hash"]


def test_a_second_evaluation_leaves_the_reference_alone(
    sides: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = RandomExtractor.forward

    def counted(self: RandomExtractor, images: torch.Tensor) -> Any:
        passes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(RandomExtractor, "forward", counted)
    arguments = ("compare", *sides, "--extractor", "random", "--metrics", "frechet_distance,recall,kernel_distance")
    first = call(*arguments)
    assert sum(passes) == 240
    assert call(*arguments) == first
    assert sum(passes) == 360


def test_folders_score_the_same_at_any_number_of_processes(sides: tuple[Path, Path], tmp_path: Path) -> None:
    names = "fd_digits,inception_score,kernel_distance,recall,coverage"
    options = ("--extractor", "digits", "--metrics", names, "metrics.block_size=16")
    alone = call("compare", *sides, *options)
    for processes in (2, 3):
        arguments = [str(argument) for argument in ("compare", *sides, *options, "--nproc", processes, "--json")]
        result = run_command("lightning-gen", *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        together = json.loads(result.stdout)
        for one, other in zip(alone["scores"], together["scores"], strict=True):
            assert other["value"] == pytest.approx(one["value"], rel=1e-9)
            assert other["protocol_hash"] == one["protocol_hash"]


def test_a_mistake_in_one_of_several_processes_is_one_line(sides: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = sides[0] / "0100.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    arguments = [str(argument) for argument in ("compare", *sides, "--extractor", "digits", "--nproc", 2)]
    result = run_command("lightning-gen", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "0100.png is damaged" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_metrics_of_a_run_can_be_named_by_their_scores(train_here: Any, tmp_path: Path) -> None:
    record = train_here("trainer.max_steps=2", "metrics=digits", "metrics.num_samples=90", "run_name=one")
    run = tmp_path / "runs" / record["experiment"] / "one"
    found = call("evaluate", run, "--metrics", "kd_digits,path_length,diversity,fd_digits", "-n", 80)
    assert {"kd_digits", "path_length_digits", "diversity_digits", "fd_digits"} <= found.keys()
    assert found["scores"][0]["protocol"]["num_samples"] == 80
    assert found["path_length_digits"] > 0
    second = save_images(tmp_path / "second", digits(0, 100))
    by_folder = call("evaluate", run, "--against", second, "--metrics", "fd_digits")["scores"][0]
    assert by_folder["protocol"]["reference"]["dataset"] == "second"
    assert by_folder["protocol"]["weights"] == "ema"


MEMORY = """
import resource, sys, torch
from lightning_gen.metrics.evaluator import Drawn, Evaluator
names = ["frechet_distance", "inception_score", "class_kl", "missing_modes", "recall", "kernel_distance", "diversity"]
evaluator = Evaluator(
    {"name": "digits"}, names, int(sys.argv[1]), sys.argv[2], minimum_reference=2, max_features=500, error_bars=True
)
evaluator.set_reference("noise", torch.randint(256, (600, 1, 32, 32), dtype=torch.uint8))
draw = lambda number, rng: Drawn(torch.rand(number, 1, 32, 32, generator=rng) * 2 - 1)
evaluator.evaluate(draw, images_seen=0, weights="raw", sampler={})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    assert resource.RUSAGE_SELF == 0
    peaks = []
    for number in (1_000, 20_000):
        command = [sys.executable, "-c", MEMORY, str(number), str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout.split()[-1]))
    features = 19_000 * 84 * 4 / 1024  # KiB that the features of the others alone would take
    assert peaks[1] - peaks[0] < features / 2, peaks
