"""Scores and grids of models that translate: the same while training, by command, and at any number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed
from typer.testing import CliRunner

from lightning_gen.callbacks.translated import TranslationScoring
from lightning_gen.cli import app
from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.data.sets.derived import ColorizeDataModule, EdgesDataModule, InvertedDataModule
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.data.sets.paired import PairedDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import grey, to_float, to_uint8
from lightning_gen.metrics.base import Score
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.training import train
from tests.conftest import forked
from tests.metrics.test_lpips import files as files
from tests.models.translator import TARGET, Translator

DIGITS = {"_target_": "lightning_gen.data.sets.digits.DigitsDataModule", "data_dir": "unused"}
COLOURS = {"_target_": "tests.callbacks.test_translation.Colours", "data_dir": "unused"}
METRICS = ("frechet_distance", "class_accuracy")


class Colours(DigitsDataModule):
    """Digits in one of three colours, that of their class modulo three."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.image_channels = 3

    def load(self, split: str) -> Any:
        digits = super().load(split)
        chosen = torch.eye(3, dtype=torch.uint8)[digits.labels % 3]
        return type(digits)(digits.images * chosen[:, :, None, None], digits.labels)


def make_evaluator(cache: Path, *metrics: str, **options: Any) -> Evaluator:
    """Of digits, with blocks that leave a rest."""
    defaults = {"num_samples": 101, "block_size": 16, "reference_split": "test", "minimum_reference": 2}
    return Evaluator({"name": "digits"}, metrics or METRICS, cache_dir=cache, **{**defaults, **options})


def measure(data: ImageDataModule, evaluator: Evaluator, model: Any = None, **options: Any) -> list[Score]:
    shapes = {"image_shape": data.image_shape, "input_shape": getattr(data, "input_shape", data.image_shape)}
    model = model or Translator(noise=0.1, **shapes)
    scoring = TranslationScoring(evaluator, data, model, lpips=False)
    scoring.prepare(torch.device("cpu"))
    with model.evaluation():
        return scoring.measure(model, **options)


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.name: score for score in scores}


def test_scores_of_the_identity_are_those_of_the_inputs(tmp_path: Path) -> None:
    data = EdgesDataModule("unused", DIGITS)
    model = Translator(data.image_shape, data.input_shape)
    scores = measure(data, make_evaluator(tmp_path), model)
    names = ["fd_digits", "class_accuracy_digits", "l1", "psnr", "ssim", "copy_l1"]
    back = [f"{name}_BtoA" for name in names]
    assert [score.name for score in scores] == [*names, *back, "cycle_l1_A", "cycle_l1_B"]
    found = by_name(scores)
    edges, digits = data.input_set("test", 101), data.reference_set("test", 101)
    difference = (to_float(edges.images) - to_float(digits.images)).abs()
    assert found["l1"].value == pytest.approx(float(difference.double().mean()), rel=1e-9)
    assert found["l1"].value == found["copy_l1"].value == pytest.approx(found["l1_BtoA"].value, rel=1e-12)
    assert found["cycle_l1_A"].value == found["cycle_l1_B"].value == 0
    assert digits.labels is not None
    for name, images in (("class_accuracy_digits", edges), ("class_accuracy_digits_BtoA", digits)):
        logits = create_extractor("digits")(images.images).logits
        assert logits is not None
        assert found[name].value == pytest.approx(float((logits.argmax(1) == digits.labels).double().mean()))
    assert found["class_accuracy_digits_BtoA"].value > 0.98 > 0.9 > found["class_accuracy_digits"].value
    assert found["psnr"].value == pytest.approx(found["psnr_BtoA"].value)
    assert [score.name for score in scores if not score.ranked] == ["copy_l1", "copy_l1_BtoA"]
    assert {score.name for score in scores if not score.lower_is_better} == {
        name + suffix for name in ("class_accuracy_digits", "psnr", "ssim") for suffix in ("", "_BtoA")
    }


def test_the_reference_is_the_target_domain(tmp_path: Path) -> None:
    data = EdgesDataModule("unused", DIGITS)
    everything = {"num_samples": 1000, "num_reference": None}
    model = Translator(data.image_shape, data.input_shape)
    # Digits are translated to themselves and compared with edges, and the other way.
    there, back = (
        by_name(measure(data, make_evaluator(tmp_path, "frechet_distance", **everything), model))[name]
        for name in ("fd_digits", "fd_digits_BtoA")
    )
    assert there.value == pytest.approx(back.value, rel=1e-6), "the distance is symmetric"
    assert there.protocol["num_samples"] == 360, "no more than there are"
    digests = [score.protocol["reference"]["digest"] for score in (there, back)]
    assert digests[0] != digests[1]
    trained = by_name(measure(data, make_evaluator(tmp_path, "frechet_distance", reference_split="train"), model))
    assert trained["fd_digits"].protocol["reference"]["split"] == "train"
    assert trained["fd_digits"].protocol["translation"]["inputs"]["split"] == "test"


def test_negatives_are_inverted_back_for_the_extractor(tmp_path: Path) -> None:
    data = InvertedDataModule("unused", DIGITS)
    model = Translator(data.image_shape, data.input_shape)
    torch.nn.init.constant_(model.a_to_b.weight, -1.0)
    found = by_name(measure(data, make_evaluator(tmp_path), model))
    # The one direction inverts, the other does nothing and leaves negatives, which the classifier does not know.
    assert found["class_accuracy_digits"].value > 0.98
    assert found["class_accuracy_digits_BtoA"].value < 0.6
    seen = [found[name].protocol["translation"]["seen_as"] for name in ("fd_digits", "fd_digits_BtoA")]
    assert seen == [{"form": "negative", "channels": 1}, {"form": None, "channels": 1}]
    assert not {"l1", "psnr", "ssim", "copy_l1"} & found.keys(), "nothing is paired"
    # A -> -A -> -A: twice the brightness of every pixel.
    inputs = to_float(data.input_set("test", 101).images)
    assert found["cycle_l1_A"].value == pytest.approx(float((2 * inputs).abs().double().mean()), rel=1e-9)
    assert found["cycle_l1_A"].protocol["reference"] == found["cycle_l1_A"].protocol["translation"]["inputs"]


def test_domains_of_other_channels_are_shown_with_those_of_the_target(tmp_path: Path) -> None:
    data = ColorizeDataModule("unused", COLOURS)
    model = Translator(data.image_shape, data.input_shape, noise=0.1)
    evaluator = Evaluator({"name": "random"}, ["frechet_distance"], num_samples=90, cache_dir=tmp_path)
    found = by_name(measure(data, evaluator, model))
    assert found["fd_random_BtoA"].protocol["translation"]["seen_as"] == {"form": None, "channels": 3}
    colours = to_float(data.reference_set("test", 90).images)
    inputs = to_float(to_uint8(grey(colours)))
    assert found["copy_l1"].value == pytest.approx(float((inputs - colours).abs().double().mean()), rel=1e-9)
    assert found["copy_l1_BtoA"].value == pytest.approx(float((grey(colours) - inputs).abs().double().mean()), rel=1e-6)


def test_protocols_tell_directions_inputs_noise_and_weights(tmp_path: Path) -> None:
    data = EdgesDataModule("unused", DIGITS)
    first = measure(data, make_evaluator(tmp_path))
    assert len({score.protocol_hash for score in first}) == len(first)
    assert first == measure(data, make_evaluator(tmp_path))
    inputs = data.input_set("test", 101)
    described = {"dataset": "edges_digits", "split": "test", "size": 101, "digest": inputs.digest}
    assert by_name(first)["l1"].protocol["translation"] == {"direction": "AtoB", "inputs": described}
    targets = data.reference_set("test", 101)
    assert by_name(first)["l1"].protocol["reference"] == {**described, "digest": targets.digest}
    quiet = by_name(measure(data, make_evaluator(tmp_path), Translator(data.image_shape, data.input_shape)))
    other_seed = by_name(measure(data, make_evaluator(tmp_path, seed=1)))
    for score in first:
        same = "copy" in score.name
        assert (quiet[score.name].protocol_hash == score.protocol_hash) == same
        assert (other_seed[score.name].protocol_hash == score.protocol_hash) == same
    assert other_seed["l1"].value != by_name(first)["l1"].value


def test_a_model_of_one_direction_has_no_cycle(tmp_path: Path) -> None:
    data = EdgesDataModule("unused", DIGITS)
    model = Translator(data.image_shape, data.input_shape, directions=["AtoB"])
    names = [score.name for score in measure(data, make_evaluator(tmp_path), model)]
    assert names == ["fd_digits", "class_accuracy_digits", "l1", "psnr", "ssim", "copy_l1"]


def test_partners_stay_together_where_damaged_pairs_are_skipped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        for index in range(12):
            left = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
            both = np.concatenate([left, 255 - left], axis=1)
            Image.fromarray(both).save(tmp_path / "pairs" / split / f"{index:02d}.png")
    (tmp_path / "pairs" / "test" / "03.png").write_text("no image")
    data = PairedDataModule(
        "unused", str(tmp_path / "pairs"), on_error="skip", image_size=16, cache_dir=str(tmp_path), batch_size=4
    )
    model = Translator(data.image_shape, data.input_shape, directions=["AtoB"])
    torch.nn.init.constant_(model.a_to_b.weight, 0.0)
    with torch.no_grad():
        model.a_to_b.weight -= torch.eye(3)[:, :, None, None]
    evaluator = Evaluator({"name": "random"}, ["frechet_distance"], 8, tmp_path, "test", minimum_reference=2)
    found = by_name(measure(data, evaluator, model))
    assert found["l1"].value == pytest.approx(0, abs=1e-6), "every image is its partner's negative"
    assert found["ssim"].value == pytest.approx(1)
    assert found["l1"].protocol["num_samples"] == found["fd_random"].protocol["num_samples"] == 7


def _measure_rank(folder: Path, rank: int, world_size: int) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous{world_size}", rank=rank, world_size=world_size
    )
    torch.manual_seed(0)
    for data in (EdgesDataModule("unused", DIGITS), InvertedDataModule("unused", DIGITS)):
        scores = measure(data, make_evaluator(folder), rank=rank, world_size=world_size)
        plain = json.dumps([score.to_json() for score in scores])
        (folder / f"{data.name}-{world_size}-{rank}.json").write_text(plain)
    distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_scores_are_equal_at_any_number_of_processes(tmp_path: Path, world_size: int) -> None:
    processes = [forked(_measure_rank, tmp_path, rank, world_size) for rank in range(world_size)]
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    for data in (EdgesDataModule("unused", DIGITS), InvertedDataModule("unused", DIGITS)):
        alone = [score.to_json() for score in measure(data, make_evaluator(tmp_path))]
        for rank in range(world_size):
            together = json.loads((tmp_path / f"{data.name}-{world_size}-{rank}.json").read_text())
            for one, other in zip(alone, together, strict=True):
                assert other["value"] == pytest.approx(one["value"], rel=1e-9), one["name"]
                assert other["std"] == (None if one["std"] is None else pytest.approx(one["std"], rel=1e-6))
                assert {**other, "value": 0, "std": 0} == {**one, "value": 0, "std": 0}


def test_what_does_not_fit_is_said_before_anything_is_translated(tmp_path: Path) -> None:
    edges = EdgesDataModule("unused", DIGITS)
    for data, model, metrics, message in (
        (DigitsDataModule("unused"), Translator((1, 32, 32), (1, 32, 32)), {}, "digits has one domain"),
        (edges, Translator((3, 32, 32), (1, 32, 32)), {}, "3 channels in domain B, but edges_digits has 1"),
        (edges, Translator((1, 32, 32), (1, 32, 32), size_multiple=64), {}, "multiples of 64"),
        (edges, None, {"minimum_reference": 400}, "360 reference images are too few"),
    ):
        with pytest.raises(UserError, match=message):
            measure(data, make_evaluator(tmp_path, **metrics), model)
    with pytest.raises(UserError, match="needs a model with latents"):
        measure(edges, make_evaluator(tmp_path, "path_length"))


TINY = (
    "logger=none",
    "trainer=cpu",
    "trainer.max_steps=4",
    "experiment_name=tiny",
    "callbacks=translation",
    "metrics.num_samples=101",
    "metrics.minimum_reference=2",
    "metrics.metrics=[frechet_distance,class_accuracy]",
    "data.batch_size=16",
)


@pytest.fixture
def train_translator(tmp_path: Path) -> Callable[..., Path]:
    """Trains and gives the run directory."""

    def run(*overrides: str, **model: Any) -> Path:
        config = compose_config([*TINY, *overrides])
        assert train({**config, "model": {"_target_": TARGET, **model}}) is not None
        return tmp_path / "runs" / "tiny" / str(config["run_name"])

    return run


def test_a_run_records_its_scores_and_evaluate_repeats_them(
    train_translator: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_translator("data=edges", "run_name=one", "callbacks.scores.every_n_images=32", noise=0.1)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [line["images_seen"] for line in lines] == [32, 64]
    record = json.loads((run / "result.json").read_text())
    assert record["scores"] == lines[-1]["scores"]
    assert record["scores"][0]["name"] == "fd_digits"
    values = [{score["name"]: score["value"] for score in line["scores"]} for line in lines]
    assert values[1]["l1"] != values[0]["l1"]
    assert values[1]["copy_l1"] == values[0]["copy_l1"]
    best = min(lines, key=lambda line: line["scores"][0]["value"])["iteration"]
    kept = (run / "checkpoints" / f"iteration_{best:08d}.ckpt").read_bytes()
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == kept, "the evaluator's first score is the main one"

    result = CliRunner().invoke(app, ["evaluate", str(run), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["scores"] == record["scores"]

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setenv("LIGHTNING_GEN_WEIGHTS_DIR", str(run))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(UserError, match="LPIPS weights are not at"):
        CliRunner().invoke(app, ["evaluate", str(run), "callbacks.scores.lpips=true"], catch_exceptions=False)
    with pytest.raises(UserError, match="leave --against out"):
        CliRunner().invoke(app, ["evaluate", str(run), "--against", "digits"], catch_exceptions=False)


def test_lpips_stands_beside_the_others_where_its_weights_are(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = create_extractor("lpips", size=32, weights=str(files[0]), backbone=str(files[1]))
    asked: list[Any] = []

    def load(image_size: int, wanted: bool | None) -> Any:
        asked.append((image_size, wanted))
        return extractor

    monkeypatch.setattr("lightning_gen.callbacks.translated.load_lpips", load)
    data = EdgesDataModule("unused", DIGITS)
    few = make_evaluator(tmp_path, "frechet_distance", num_samples=6)
    found = by_name(measure(data, few, Translator(data.image_shape, data.input_shape)))
    assert asked == [(32, False)]
    inputs, targets = data.input_set("test", 6).images, data.reference_set("test", 6).images
    with torch.no_grad():
        expected = (extractor(inputs).features - extractor(targets).features).square().sum(1).mean()
    assert found["lpips"].value == pytest.approx(float(expected), rel=1e-4)
    assert found["lpips"].protocol["extractor"] == extractor.protocol()
    assert not found["lpips"].ranked
    # Nothing is paired, so nothing is loaded.
    measure(InvertedDataModule("unused", DIGITS), few)
    assert len(asked) == 1


def test_grids_have_a_row_of_each_test_image(train_translator: Callable[..., Path], tmp_path: Path) -> None:
    options = ("callbacks.samples.num_samples=4", "callbacks.samples.columns=2", "callbacks.samples.every_n_images=32")
    run = train_translator("data=edges", "run_name=paired", *options)
    names = sorted(path.name for path in (run / "samples").iterdir())
    assert names == ["000000032.png", "000000032_BtoA.png", "000000064.png", "000000064_BtoA.png"]
    data = EdgesDataModule("unused", DIGITS)
    edges, digits = (data.domain_set(domain, "test", 4).images[:, 0].numpy() for domain in "AB")
    for name, inputs, targets in ((names[2], edges, digits), (names[3], digits, edges)):
        # Two rows of two examples, each of four images of 32 pixels in lines of one or two pixels; twice the size.
        picture = np.asarray(Image.open(run / "samples" / name))[::2, ::2]
        assert picture.shape == (2 * 36, 2 * (4 * 34 + 2))
        last = picture[36:, 4 * 34 + 2 :]
        images = [last[2:-2, 2 + 34 * column : 34 + 34 * column] for column in range(4)]
        assert (images[0] == inputs[3]).all()
        assert (images[2] == targets[3]).all()
        for made in (images[1], images[3]):
            assert (made != inputs[3]).any()
            assert (made != targets[3]).any()
    later, earlier = (np.asarray(Image.open(run / "samples" / name))[::2, ::2] for name in (names[2], names[0]))
    assert (later[2:34, 2:34] == earlier[2:34, 2:34]).all(), "the same images"
    assert (later[2:34, 36:68] != earlier[2:34, 36:68]).any(), "another model"


def test_grids_of_an_unpaired_set_show_the_way_back_and_mixed_colours(
    train_translator: Callable[..., Path], tmp_path: Path
) -> None:
    few = ("callbacks.samples.num_samples=2", "callbacks.samples.columns=1", "callbacks.scores=null")
    run = train_translator("data=inverted", "run_name=unpaired", *few)
    assert np.asarray(Image.open(run / "samples" / "000000064.png")).shape == (2 * 2 * 36, 2 * (3 * 34 + 2))
    one = train_translator("data=inverted", "run_name=forward", *few, directions=["AtoB"])
    assert [path.name for path in (one / "samples").iterdir()] == ["000000064.png"]
    assert np.asarray(Image.open(one / "samples" / "000000064.png")).shape == (2 * 2 * 36, 2 * (2 * 34 + 2))
    source = ("data.source._target_=tests.callbacks.test_translation.Colours", "metrics=random")
    mixed = train_translator("data=colorize", "data@data.source=digits", "run_name=mixed", *few, *source)
    picture = np.asarray(Image.open(mixed / "samples" / "000000064.png"))[::2, ::2]
    assert picture.shape == (2 * 36, 4 * 34 + 2, 3)
    assert (picture[:36, :35, 0] == picture[:36, :35, 1]).all(), "the input is grey"
    assert (picture[2:34, 70:102, 0] != picture[2:34, 70:102, 1]).any(), "the target is not"


def test_models_and_callbacks_that_do_not_fit_name_the_remedy(
    train_translator: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="360 reference images are too few"):
        train_translator("data=edges", "metrics.minimum_reference=400")
    assert not (tmp_path / "runs").exists(), "found before anything is written"
    with pytest.raises(UserError, match="Translator is scored by its translations: set callbacks=translation"):
        train_translator("callbacks=default", "data=edges", "run_name=a")
    for key in ("scores", "samples"):
        config = compose_config(["callbacks=translation", "trainer=cpu", "logger=none", f"callbacks.{key}=null"])
        with pytest.raises(UserError, match="GAN does not translate: set callbacks=default"):
            train(config)
    with pytest.raises(UserError, match="num_samples and columns must be at least 1, not 12 and 0"):
        train_translator("data=edges", "run_name=b", "callbacks.samples.columns=0")
