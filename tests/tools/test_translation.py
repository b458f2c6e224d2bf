"""Translating files: every kind of image, any size, and nothing written that is not whole or was not asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.tools.translation import output_names, padded_size, plan, printable, translate_image
from tests.conftest import ROOT, command_line
from tests.models.translator import Translator


class Slow(Translator):
    """Takes its time."""

    def translate(self, images: Tensor, direction: str = "AtoB", *, generator: torch.Generator) -> Tensor:
        time.sleep(0.1)
        return super().translate(images, direction, generator=generator)


def save_checkpoint(path: Path, model: Translator | None = None) -> Path:
    """A checkpoint of a model that translates RGB images to themselves."""
    model = model or Translator((3, 16, 16), (3, 16, 16))
    state: dict[str, Any] = {
        "hyper_parameters": dict(model.hparams),
        "state_dict": model.state_dict(),
        "config": {"metrics": None},
    }
    model.on_save_checkpoint(state)
    torch.save(state, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "identity.ckpt")


def translate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["translate", *map(str, arguments)], catch_exceptions=False)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_images_of_any_size_come_back_pixel_for_pixel(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with spaces"
    (folder / "sub folder" / "über").mkdir(parents=True)
    images = {
        "1x1.png": noise(1, 1),
        "5000x30.png": noise(5000, 30),
        "17x31.bmp": noise(17, 31),
        "sub folder/größer 画像.png": noise(40, 40),
        "sub folder/über/a b.tif": noise(3, 8),
        "UPPER.PNG": noise(4, 4),
    }
    for name, image in images.items():
        image.save(folder / name)
    result = translate(checkpoint, "--input", folder, "--output", tmp_path / "out" / "deep", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "output": str(tmp_path / "out" / "deep"),
        "direction": "AtoB",
        "seed": 0,
        "num_images": 6,
        "translated": 6,
        "failed": [],
        "interrupted": False,
    }
    written = sorted(path for path in (tmp_path / "out" / "deep").rglob("*") if path.is_file())
    assert written == sorted((tmp_path / "out" / "deep" / name).with_suffix(".png") for name in images)
    for name, image in images.items():
        found = (tmp_path / "out" / "deep" / name).with_suffix(".png")
        assert (pixels(found) == np.asarray(image)).all(), name
        assert Image.open(found).format == "PNG"


def test_grey_alpha_palette_and_16_bit_images_are_translated(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    grey = noise(9, 7, "L")
    grey.save(folder / "grey.png")
    alpha = noise(9, 7, "RGBA")
    alpha.save(folder / "alpha.png")
    palette = noise(9, 7).convert("P")
    palette.save(folder / "palette.gif")
    deep = np.random.default_rng(1).integers(65536, size=(7, 9)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    assert translate(checkpoint, "-i", folder, "-o", out).exit_code == 0
    assert (pixels(out / "grey.png") == np.asarray(grey)[..., None]).all()
    assert pixels(out / "grey.png").shape == (7, 9, 3)
    color, cover = (np.asarray(alpha)[..., part].astype(float) for part in (slice(3), slice(3, 4)))
    on_white = (color * cover + 255 * (255 - cover)) / 255
    assert np.abs(pixels(out / "alpha.png") - on_white).max() <= 1
    assert (pixels(out / "palette.png") == np.asarray(palette.convert("RGB"))).all()
    assert (pixels(out / "deep.png") == np.rint(deep / 257)[..., None]).all()


def test_colour_is_turned_grey_for_a_model_of_grey_images_and_the_other_way(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "grey.ckpt", Translator((3, 16, 16), (1, 16, 16)))
    image = noise(9, 7)
    image.save(tmp_path / "in.png")
    assert translate(checkpoint, "-i", tmp_path / "in.png", "-o", tmp_path / "there").exit_code == 0
    found = pixels(tmp_path / "there" / "in.png")
    assert found.shape == (7, 9, 3)
    assert np.abs(found - np.asarray(image.convert("L")).astype(int)[..., None]).max() <= 1
    back = translate(checkpoint, "-i", tmp_path / "in.png", "-o", tmp_path / "back", "--direction", "BtoA")
    assert back.exit_code == 0
    assert np.abs(pixels(tmp_path / "back" / "in.png") - np.asarray(image).mean(2)).max() <= 1


def test_a_corrupt_file_is_one_line_and_the_others_are_done(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "d"):
        noise(8, 8).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:80])
    (folder / "c.jpg").write_text("no image")
    noise(8, 8).save(folder / "e.gif", save_all=True, append_images=[noise(8, 8, "L").convert("RGB")])
    (folder / "notes.txt").write_text("no image, and says so")
    (folder / "f.png").mkdir()
    result = translate(checkpoint, "-i", folder, "-o", out, "--json")
    assert result.exit_code == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "d.png"]
    lines = result.stderr.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "skipped: b.png is damaged",
        "skipped: c.jpg is not an image",
        "skipped: e.gif has 2 frames, not one",
        "2 of 5 images translated",
    ]
    found = json.loads(result.stdout)
    assert (found["num_images"], found["translated"]) == (5, 2)
    assert [failure["name"] for failure in found["failed"]] == ["b.png", "c.jpg", "e.gif"]
    assert "data.on_error" not in result.stderr


def test_files_of_one_stem_keep_their_whole_names() -> None:
    def names(*given: str) -> list[str]:
        return [str(path) for path in output_names([Path(name) for name in given])]

    assert names("a.jpg", "b/a.png", "c.PNG") == ["a.png", "b/a.png", "c.png"]
    assert names("a.jpg", "a.png", "b.png") == ["a.jpg.png", "a.png.png", "b.png"]
    # The whole name of one is the stem of another, whose whole name is the stem of a third.
    assert names("a.jpg", "a.png", "a.jpg.bmp") == ["a.jpg.png", "a.png.png", "a.jpg.bmp.png"]
    several = ["a.jpg", "a.png", "a.jpg.bmp", "a.jpg.bmp.tif", "a.png.gif", "d/a.jpg"]
    assert len(set(names(*several))) == 6


def test_results_that_exist_are_refused_before_anything_is_done(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png", "sub/d.png", "sub/e.png"):
        noise(8, 8).save(folder / name)
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "d.png").write_text("mine")
    for target in (out, folder / ".." / "out"):
        with pytest.raises(UserError, match=r"1 of 5 results exist \(.*sub/d\.png\).*--overwrite"):
            translate(checkpoint, "-i", folder, "-o", target)
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["d.png"]
    assert (out / "sub" / "d.png").read_text() == "mine"
    assert translate(checkpoint, "-i", folder, "-o", out, "--overwrite").exit_code == 0
    assert (pixels(out / "sub" / "d.png") == np.asarray(noise(8, 8))).all()
    with pytest.raises(UserError, match=r"5 of 5 results exist \(.*a\.png, .*b\.png, .*c\.png, \.\.\.\)"):
        translate(checkpoint, "-i", folder, "-o", out)


def test_the_images_themselves_are_never_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for source, output in ((tmp_path / "a.png", tmp_path), (tmp_path, tmp_path)):
        with pytest.raises(UserError, match=r"a\.png is one of the images to translate"):
            translate(checkpoint, "-i", source, "-o", output, "--overwrite")
    assert (tmp_path / "a.png").read_bytes() == before


def test_results_below_the_input_are_not_translated_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    (tmp_path / ".hidden").mkdir()
    noise(8, 8).save(tmp_path / ".hidden" / "b.png")
    monkeypatch.chdir(tmp_path)
    for source, output in (
        (".", "out/x"),
        (tmp_path, "out/x"),
        (".", tmp_path / "out" / "x"),
        ("../" + tmp_path.name, "out/x"),
    ):
        assert translate(checkpoint, "-i", source, "-o", output, "--overwrite").exit_code == 0
        files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
        assert files == [".hidden/b.png", "a.png", "out/x/a.png"]


def test_mistakes_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    forward = save_checkpoint(tmp_path / "forward.ckpt", Translator((3, 16, 16), (3, 16, 16), directions=["AtoB"]))
    good = {"run": checkpoint, "-i": tmp_path / "a.png", "-o": tmp_path / "out"}
    for changed, message in (
        ({"-i": tmp_path / "none"}, "none: no such folder or file"),
        ({"-i": tmp_path / "empty"}, "holds no images"),
        ({"-o": tmp_path / "file"}, "is a file: name a folder"),
        ({"-o": tmp_path / "file" / "x"}, "Cannot write"),
        ({"--direction": "AtoC"}, "set --direction to AtoB or BtoA"),
        ({"run": forward, "--direction": "BtoA"}, "set --direction to AtoB"),
        ({"run": tmp_path / "none.ckpt"}, "No run directory or checkpoint"),
    ):
        arguments = {**good, **changed}
        run = arguments.pop("run")
        with pytest.raises(UserError) as caught:
            translate(run, *(part for pair in arguments.items() for part in pair))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_translate_is_refused(train_here: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    record = train_here("trainer.max_steps=1", "run_name=one")
    noise(8, 8).save(tmp_path / "a.png")
    run = tmp_path / "runs" / record["experiment"] / "one"
    with pytest.raises(UserError, match="GAN does not translate images"):
        translate(run, "-i", tmp_path / "a.png", "-o", tmp_path / "out")


def test_borders_are_repeated_and_cut_off() -> None:
    seen: list[Tensor] = []

    class Watched(Translator):
        def translate(self, images: Tensor, direction: str = "AtoB", *, generator: torch.Generator) -> Tensor:
            seen.append(images)
            return super().translate(images, direction, generator=generator)

    model = Watched((3, 16, 16), (3, 16, 16), size_multiple=4)
    image = torch.from_numpy(np.array(noise(10, 3))).permute(2, 0, 1)
    with model.evaluation():
        found = translate_image(model, image, "AtoB", torch.Generator())
    assert torch.equal(found, image)
    (given,) = seen
    assert given.shape == (1, 3, 8, 12)
    assert (given[..., :3, 10:] == given[..., :3, 9:10]).all()
    assert (given[..., 3:, :] == given[..., 2:3, :]).all()


def test_sizes_are_padded_no_further_than_a_network_needs() -> None:
    # A ResNet of stride 4, a U-Net that halves 256 eight times, one that does so at 512, digits.
    for size, multiple, trained, expected in (
        *((1, 4, 256, 8), (5, 4, 256, 8), (30, 4, 256, 32), (5000, 4, 256, 5000)),
        *((1, 256, 256, 256), (256, 256, 256, 256), (257, 256, 256, 512)),
        *((1, 256, 512, 512), (513, 256, 512, 768)),
        *((20, 32, 32, 32), (1, 1, 32, 2)),
    ):
        assert padded_size(size, multiple, trained) == expected


def test_noise_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    model = Translator((3, 16, 16), (3, 16, 16), noise=0.3)
    checkpoint = save_checkpoint(tmp_path / "noisy.ckpt", model)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        noise(8, 8).save(tmp_path / "in" / f"{name}.png")

    def content(output: str, *options: object) -> dict[str, bytes]:
        assert translate(checkpoint, "-o", tmp_path / output, *options).exit_code == 0
        return {path.name: path.read_bytes() for path in (tmp_path / output).iterdir()}

    both = content("both", "-i", tmp_path / "in")
    assert both["a.png"] != both["b.png"]
    assert content("again", "-i", tmp_path / "in") == both
    assert content("other", "-i", tmp_path / "in", "--seed", 1)["a.png"] != both["a.png"]
    assert content("alone", "-i", tmp_path / "in" / "b.png") == {"b.png": both["b.png"]}


def test_names_that_are_no_text_are_translated(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in (b"\xff.png", b"two\nlines.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            noise(8, 8).save(file, format="PNG")
    (folder / "three\nlines.png").write_text("no image")
    result = translate(checkpoint, "-i", folder, "-o", out)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert sorted(os.listdir(os.fsencode(out))) == [b"two\nlines.png", b"\xff.png"]
    assert [task.name for task in plan(folder, tmp_path / "x", False)] == [
        *("three\N{REPLACEMENT CHARACTER}lines.png", "two\N{REPLACEMENT CHARACTER}lines.png"),
        "\N{REPLACEMENT CHARACTER}.png",
    ]
    assert printable(Path("größer 画像.png")) == "größer 画像.png"


def test_an_image_beyond_memory_is_skipped_and_a_bug_is_not(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for size in (8, 9):
        noise(size, size).save(folder / f"{size}.png")
    message = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"

    def fail(self: Translator, images: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if images.shape[-1] > 8:
            raise RuntimeError(message)
        return images

    monkeypatch.setattr(Translator, "translate", fail)
    result = translate(checkpoint, "-i", folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("skipped: 9.png cannot be translated (DefaultCPUAllocator")
    message = "a mistake of ours"
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        translate(checkpoint, "-i", folder, "-o", tmp_path / "again")


def test_an_interrupt_leaves_whole_files_and_says_how_many(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "slow.ckpt", Slow((3, 16, 16), (3, 16, 16)))
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(300):
        noise(200, 200).save(folder / f"{index:03d}.png")
    command = command_line("lightning-gen", "translate", str(checkpoint), "-i", str(folder), "-o", str(out), "--json")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (out / "002.png").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    written = sorted(path.name for path in out.iterdir())
    assert 3 <= len(written) < 300
    assert written == [f"{index:03d}.png" for index in range(len(written))]
    for name in written:
        assert (pixels(out / name) == np.asarray(noise(200, 200))).all()
    assert stderr == f"interrupted: {len(written)} of 300 images translated\n"
    found = json.loads(stdout)
    assert (found["interrupted"], found["translated"], found["num_images"]) == (True, len(written), 300)
