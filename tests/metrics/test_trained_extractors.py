from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors import Features, create_extractor
from lightning_gen.metrics.extractors.classifiers import ARCHITECTURES, Classifier
from lightning_gen.metrics.extractors.trained import (
    ClassifierExtractor,
    check_name,
    fit,
    network_size,
    read_record,
    stored_weights,
    write_extractor,
)
from lightning_gen.metrics.extractors.training import accuracy, make_recipe, train_classifier

RECORD = {"architecture": "resnet", "num_classes": 4, "test_accuracy": 0.9, "name": "mine", "image_shape": [3, 8, 8]}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _global_generator() -> Iterator[None]:
    """Training seeds the global generator for its weights."""
    with torch.random.fork_rng(devices=[]):
        yield


def keep(images: Tensor, rng: torch.Generator) -> Tensor:
    """No augmentation."""
    del rng
    return images


def bright_and_dark(number: int = 64, size: int = 8, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Noise around two grey levels, a class each."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(number) % 2
    noise = torch.randint(-40, 40, (number, channels, size, size), generator=rng)
    return (80 + 90 * labels.view(-1, 1, 1, 1) + noise).clamp(0, 255).to(torch.uint8), labels


def write_random(path: Path, **changes: Any) -> Classifier:
    record = {**RECORD, **changes}
    torch.manual_seed(0)
    size = network_size(record["architecture"], record["image_shape"][1])
    network = ARCHITECTURES[record["architecture"]](record["image_shape"][0], record["num_classes"], size).eval()
    write_extractor(path, stored_weights(network), record)
    return network


@pytest.mark.parametrize(
    ("architecture", "channels", "size", "dimension"),
    [("lenet", 1, 32, 84), ("lenet", 3, 32, 84), ("resnet", 1, 8, 192), ("resnet", 3, 16, 192), ("resnet", 3, 64, 192)],
)
def test_networks_end_in_maps_of_4x4_and_in_one_score_a_class(
    architecture: str, channels: int, size: int, dimension: int
) -> None:
    network = ARCHITECTURES[architecture](channels, 7, size)
    sizes = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    features, logits = network(torch.randn(2, channels, size, size))[:2]
    assert (features.shape, logits.shape) == ((2, dimension), (2, 7))
    assert architecture == "lenet" or (sizes[0], sizes[-1]) == (size, 4)


def test_a_file_gives_back_the_network_to_half_precision(tmp_path: Path) -> None:
    network = write_random(tmp_path / "mine.safetensors")
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    features, logits = create_extractor("trained", weights=str(tmp_path / "mine.safetensors"))(images)[:2]
    with torch.no_grad():
        exact = network(images.float() / 127.5 - 1)
    for value, reference in ((features, exact.features), (logits, exact.logits)):
        assert (value - reference).norm() / reference.norm() < 2e-3
    stored = load_file(tmp_path / "mine.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.ndim > 1} == {torch.float16}
    assert {tensor.dtype for tensor in stored.values() if tensor.ndim == 1} == {torch.float32}


def test_equal_weights_and_records_are_equal_bytes(tmp_path: Path) -> None:
    write_random(tmp_path / "a.safetensors")
    write_random(tmp_path / "b.safetensors", **dict(reversed(RECORD.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert read_record(tmp_path / "a.safetensors").items() >= RECORD.items()


def test_a_registered_extractor_is_found_by_name_and_scores_are_called_by_it(tmp_path: Path) -> None:
    write_random(tmp_path / "mine.safetensors")
    by_name = create_extractor("trained", weights="mine", folder=str(tmp_path))
    by_path = create_extractor("trained", weights=str(tmp_path / "mine.safetensors"))
    assert by_name.protocol() == by_path.protocol()
    assert by_name.protocol()["name"] == by_name.name == "mine"
    assert by_name.protocol()["layer"] == "mean_192"
    assert (by_name.num_features, by_name.num_classes) == (192, 4)


@pytest.mark.parametrize(
    ("size", "accepted", "resize"),
    [(8, [8], "none"), (28, [28, 32], "pad_32"), (32, [28, 32], "pad_32"), (128, [128], "bilinear_64")],
)
def test_images_have_the_shape_of_the_training_images(
    tmp_path: Path, size: int, accepted: list[int], resize: str
) -> None:
    write_random(tmp_path / "mine.safetensors", image_shape=[3, size, size])
    extractor = create_extractor("trained", weights=str(tmp_path / "mine.safetensors"))
    assert extractor.protocol()["resize"] == resize
    for side in (8, 16, 28, 32, 64, 128):
        if side in accepted:
            extractor.check_image_shape((3, side, side))
            assert extractor(torch.zeros(1, 3, side, side, dtype=torch.uint8)).features.shape == (1, 192)
            continue
        with pytest.raises(UserError, match=f"'mine' takes RGB images of {max(accepted)}.*use metrics=inception"):
            extractor.check_image_shape((3, side, side))
    with pytest.raises(UserError, match="RGB"):
        extractor.check_image_shape((1, size, size))


def test_images_are_fitted_to_the_network() -> None:
    images = torch.randint(256, (2, 3, 28, 28), dtype=torch.uint8)
    assert fit(images, 28) is images
    padded = fit(images, 32)
    assert torch.equal(padded[:, :, 2:-2, 2:-2], images)
    assert padded.sum() == images.sum()
    # Halving by an antialiased bilinear filter weighs four pixels by 1, 3, 3, 1 over 8 where none is cut off.
    row = torch.tensor([0, 80, 160, 0, 240, 40, 0, 200], dtype=torch.uint8).expand(1, 1, 8, 8)
    assert fit(row, 4)[0, 0, 0, 1:3].tolist() == [(80 + 3 * 160 + 3 * 0 + 240) // 8, (0 + 3 * 240 + 3 * 40 + 0) // 8]
    assert torch.equal(fit(torch.full((1, 1, 128, 128), 77, dtype=torch.uint8), 64), torch.full((1, 1, 64, 64), 77))


def test_networks_see_at_most_64_pixels() -> None:
    sizes = (8, 16, 28, 32, 64, 128)
    assert [network_size("resnet", size) for size in sizes] == [8, 16, 32, 32, 64, 64]
    assert {network_size("lenet", size) for size in sizes} == {32}
    for size in (4, 12, 33, 100):
        with pytest.raises(UserError, match=r"data\.image_size"):
            network_size("resnet", size)


def test_names_of_other_extractors_and_scores_are_refused(tmp_path: Path) -> None:
    for name in ("inception", "random", "mnist", "clip", "fid", "trained", "My", "a-b", "", "a/b"):
        with pytest.raises(UserError) as error:
            check_name(name)
        assert "\n" not in str(error.value)
    check_name("my_2")
    write_random(tmp_path / "file.safetensors", name="inception")
    with pytest.raises(UserError, match="'inception' belongs to another"):
        create_extractor("trained", weights=str(tmp_path / "file.safetensors"))


def test_files_that_are_no_extractors_are_refused(tmp_path: Path) -> None:
    write_random(tmp_path / "known.safetensors")
    write_extractor(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {"test_accuracy": 1, "name": "other"})
    write_extractor(tmp_path / "unknown.safetensors", {}, {**RECORD, "architecture": "transformer"})
    write_extractor(tmp_path / "untold.safetensors", {}, {})
    (tmp_path / "text.safetensors").write_text("text")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "known.safetensors").read_bytes()[:-10])
    for name in ("other", "unknown", "untold", "text", "cut"):
        with pytest.raises(UserError, match=f"{name}.safetensors.*set metrics.extractor.weights") as error:
            create_extractor("trained", weights=name, folder=str(tmp_path))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"which has .*known.*lightning-gen extractor train absent"):
        create_extractor("trained", weights="absent", folder=str(tmp_path))


@pytest.mark.parametrize("architecture", ["lenet", "resnet"])
def test_training_tells_classes_apart(architecture: str, tmp_path: Path) -> None:
    images, labels = bright_and_dark(size=network_size(architecture, 8))
    recipe = make_recipe(architecture, len(images), epochs=20)
    network = train_classifier(images, labels, 2, recipe, keep, tmp_path / "state", CPU)
    assert accuracy(network, images, labels) == 1.0


def test_the_loss_falls_to_the_entropy_of_smoothed_labels(tmp_path: Path) -> None:
    images, labels = bright_and_dark(size=32)
    recipe = make_recipe("lenet", len(images), epochs=30)
    losses: list[float] = []
    train_classifier(images, labels, 2, recipe, keep, tmp_path / "state", CPU, progress=lambda _, x: losses.append(x))
    # Of two classes one has 1 - s / 2, the other s / 2.
    share = recipe.label_smoothing / 2
    entropy = -(1 - share) * math.log(1 - share) - share * math.log(share)
    assert losses[0] > 0.6
    assert losses[-1] == pytest.approx(entropy, rel=0.05)


def test_accuracy_is_the_share_of_right_answers() -> None:
    class Brightness(Classifier):
        def forward(self, images: Tensor) -> Any:
            level = images.mean((1, 2, 3))
            return Features(level[:, None], torch.stack([-level, level], 1))

    images, labels = bright_and_dark(600)
    assert accuracy(Brightness(), images, labels) == 1.0
    labels[:150] = 1 - labels[:150]
    assert accuracy(Brightness(), images, labels) == 0.75


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    images, labels = bright_and_dark()

    def jitter(batch: Tensor, rng: torch.Generator) -> Tensor:
        return batch + torch.randn(batch.shape, generator=rng) / 10

    def run(checkpoint: Path, stop: int | None = None) -> dict[str, Tensor]:
        def progress(epoch: int, loss: float) -> None:
            epochs.append(epoch)
            if epoch == stop:
                raise KeyboardInterrupt

        return train_classifier(images, labels, 2, recipe, jitter, checkpoint, CPU, progress=progress).state_dict()

    recipe = make_recipe("resnet", len(images), epochs=4)
    epochs: list[int] = []
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop=2)
    torch.rand(7)
    resumed = run(tmp_path / "stopped")
    assert epochs == [1, 2, 3, 4, 1, 2, 3, 4]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    images, labels = bright_and_dark()
    checkpoint = tmp_path / "state"

    def run(digest: str = "a", **options: Any) -> None:
        train_classifier(
            images, labels, 2, make_recipe("lenet", len(images), **options), keep, checkpoint, CPU, digest=digest
        )

    images = fit(images, 32)
    run(epochs=1)
    for options, changed in (({"epochs": 2}, "epochs"), ({"epochs": 1, "seed": 1}, "seed")):
        with pytest.raises(UserError, match=f"another {changed}: repeat that, or delete {checkpoint}"):
            run(**options)
    with pytest.raises(UserError, match="another digest"):
        run(digest="b", epochs=1)
    checkpoint.write_bytes(b"text")
    with pytest.raises(UserError, match=f"delete {checkpoint}"):
        run(epochs=1)


def test_the_rate_rises_for_a_fifth_and_falls_to_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def spy(self: torch.optim.SGD, *arguments: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        assert self.param_groups[1]["weight_decay"] == 0
        assert all(parameter.ndim == 1 for parameter in self.param_groups[1]["params"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    images, labels = bright_and_dark()
    recipe = make_recipe("resnet", len(images), epochs=5)
    train_classifier(images, labels, 2, recipe, keep, tmp_path / "state", CPU)
    assert len(rates) == 20
    # Of the middle of each update: 1/8, 3/8, 5/8, 7/8 of the peak, then down by 1/16 each.
    assert rates[:4] == pytest.approx([0.0125 * share / 8 for share in (1, 3, 5, 7)])
    assert rates[4:] == pytest.approx([0.0125 * (31 - 2 * index) / 32 for index in range(16)])


def test_small_sets_get_enough_updates() -> None:
    assert make_recipe("lenet", 60000).epochs == 12
    assert make_recipe("resnet", 50000).epochs == 16
    assert make_recipe("lenet", 1437).epochs == math.ceil(1500 / 32)
    batches = [make_recipe("resnet", number).batch_size for number in (10, 100, 3200, 50000)]
    assert batches == [10, 16, 100, 256]
    assert make_recipe("resnet", 100, epochs=3).epochs == 3
    for options, message in (
        ({"architecture": "vgg"}, "--architecture must be one of lenet, resnet"),
        ({"architecture": "lenet", "epochs": 0}, "--epochs"),
        ({"architecture": "lenet", "precision": "8"}, "--precision"),
    ):
        with pytest.raises(UserError, match=message):
            make_recipe(num_images=100, **options)


def test_records_of_the_first_files_are_completed() -> None:
    extractor = create_extractor("digits")
    assert isinstance(extractor, ClassifierExtractor)
    assert extractor.record["name"] == "digits"
    assert extractor.record["image_shape"] == [1, 32, 32]
    assert json.dumps(extractor.record)
