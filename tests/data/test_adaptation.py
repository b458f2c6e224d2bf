"""Source and target domains: what is changed, what is held apart, and which labels are handed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_sample_image

from lightning_gen.data import DomainBatch, ImageBatch, ImageSet, PairBatch
from lightning_gen.data.batches import UNLABELLED
from lightning_gen.data.sets.adaptation import AdaptationDataModule
from lightning_gen.data.sets.cifar import CIFAR10DataModule
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.data.textures import coloured, divide, photo_squares, textured
from lightning_gen.errors import UserError
from lightning_gen.images import LUMA, to_uint8
from lightning_gen.seeds import make_rng

SIZE = 16
DIGITS = {"_target_": "lightning_gen.data.sets.digits.DigitsDataModule", "data_dir": "unused", "image_size": SIZE}


class Nameless(DigitsDataModule):
    name = "nameless"
    class_names = ()


def adaptation(domain: Any = "textured", **options: Any) -> AdaptationDataModule:
    source = {**DIGITS, "image_size": options.get("image_size", SIZE)}
    return AdaptationDataModule("unused", source, domain, **{"image_size": SIZE, "batch_size": 32, **options})


def batches(data: AdaptationDataModule, epochs: int = 1) -> list[Any]:
    loader = data.train_dataloader()
    return [data.on_after_batch_transfer(columns, 0) for _ in range(epochs) for columns in loader]


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_a_texture_and_an_image_are_blended_by_their_difference() -> None:
    picture = torch.tensor([[[10, 200], [0, 255]], [[0, 0], [90, 128]], [[255, 1], [2, 3]]], dtype=torch.uint8)[None]
    image = torch.tensor([[[0, 255], [100, 128]]], dtype=torch.uint8)[None]
    by_hand = [[[10, 55], [100, 127]], [[0, 255], [10, 0]], [[255, 254], [98, 125]]]
    assert textured(image, picture, [torch.Generator()]).tolist() == [by_hand]


def test_a_texture_is_a_part_of_a_picture_that_the_generator_chooses() -> None:
    pictures = torch.randint(256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    black = torch.zeros(40, 1, 7, 7, dtype=torch.uint8)
    found = textured(black, pictures, [torch.Generator().manual_seed(seed) for seed in range(40)])
    parts = rows(pictures.unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).contiguous())
    assert rows(found) <= parts
    assert len(rows(found)) > 20
    with pytest.raises(UserError, match=r"pictures of 9x9: set data\.image_size to at most 9"):
        textured(torch.zeros(1, 1, 10, 10, dtype=torch.uint8), pictures, [torch.Generator()])


def test_colours_are_those_of_black_and_white_with_what_is_between_mixed() -> None:
    image = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)[None].expand(50, -1, -1, -1)
    found = coloured(image, [torch.Generator().manual_seed(seed) for seed in range(50)]).double()
    black, mixed, white = found[:, :, 0, 0], found[:, :, 0, 1], found[:, :, 0, 2]
    # 51 is a fifth of 255.
    assert (mixed - (0.8 * black + 0.2 * white)).abs().max() <= 0.5
    contrast = ((white - black) * torch.tensor(LUMA, dtype=torch.float64)).sum(1).abs()
    assert contrast.min() >= 64
    assert len(rows(black)) == 50


def test_photographs_are_cut_into_squares_that_share_no_pixel() -> None:
    squares, photo = photo_squares(), torch.from_numpy(load_sample_image("china.jpg").copy())
    assert squares.shape == (120, 3, 64, 64)
    # 60 squares of a photograph of 427x640: six rows of ten
    assert torch.equal(squares[1, :, :, 0], photo[:64, 64].T)
    assert torch.equal(squares[10, :, 0, :], photo[64, :64].T)


def test_every_picture_is_for_one_split() -> None:
    parts = divide(120, 0)
    assert {split: len(part) for split, part in parts.items()} == {"train": 72, "val": 24, "test": 24}
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(120))
    assert divide(120, 1)["test"].tolist() != parts["test"].tolist()


def test_textures_of_a_split_come_from_its_own_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every picture is of a single level, so that a blended image tells, where the digit is black, which it was.
    levels = torch.arange(100, 220, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64)
    monkeypatch.setattr("lightning_gen.data.sets.adaptation.photo_squares", lambda: levels)
    data = adaptation(validation_share=0.2)
    plain = adaptation("inverted", validation_share=0.2)
    seen = {}
    for split in ("train", "val", "test"):
        digits = 255 - plain.reference_set(split).images
        found = data.reference_set(split).images
        texture = found[:, 0][digits[:, 0] == 0].tolist()
        seen[split] = {level - 100 for level in texture}
        assert seen[split] <= set(divide(120, 0)[split].tolist())
    assert len(seen["train"]) == 72, "all of them are in use"


def test_source_and_target_share_no_image_and_come_in_one_shape() -> None:
    data, inverted = adaptation(validation_share=0.1), adaptation("inverted", validation_share=0.1)
    digits = data.source.reference_set("train").images
    source = data.input_set("train").images
    assert data.image_shape == data.input_shape == source.shape[1:] == data.reference_set("test").images.shape[1:]
    assert torch.equal(source, digits[0::2].expand(-1, 3, -1, -1))
    assert inverted.image_shape == inverted.input_shape == (1, SIZE, SIZE)
    held_out = [255 - inverted.reference_set(split).images for split in ("train", "val")]
    assert rows(torch.cat(held_out)) == rows(digits[1::2])
    assert not rows(held_out[0]) & rows(held_out[1])
    assert not rows(torch.cat(held_out)) & rows(digits[0::2])
    assert [len(data.split(name)) for name in ("train", "val", "test", "train_a", "test_a")] == [646, 72, 180, 719, 180]
    assert (data.name, inverted.name) == ("textured_digits", "inverted_digits")
    assert inverted.canonical("B") is not None
    assert data.canonical("B") is None


@pytest.mark.parametrize("domain", ["coloured", "textured"])
def test_a_change_depends_on_the_image_and_the_split_seed_alone(domain: Any) -> None:
    data = adaptation(domain, seed=1)
    again = adaptation(domain, seed=2, batch_size=7)
    assert data.reference_set("train").digest == again.reference_set("train").digest
    assert data.reference_set("test").digest != adaptation(domain, split_seed=1).reference_set("test").digest
    # What stays in the training set looks the same whatever is held out.
    fewer = adaptation(domain, validation_share=0.2)
    assert rows(fewer.reference_set("train").images) < rows(data.reference_set("train").images)
    first, second = (rows(to_uint8(torch.cat([batch.images_b for batch in part]))) for part in (batches(data),) * 2)
    assert first == second <= rows(data.reference_set("train").images)


def test_the_set_is_the_same_in_every_process() -> None:
    # A digest from another process; colours, whose pixels no other library decodes.
    assert adaptation("coloured", image_size=8).reference_set("test").digest.startswith("0cd4e4addf5b277b")


def test_no_label_of_the_target_reaches_a_batch() -> None:
    data = adaptation("inverted")
    data.check()
    source = data.input_set("train")
    assert source.labels is not None
    labels = {image.numpy().tobytes(): int(label) for image, label in zip(source.images, source.labels, strict=True)}
    for batch in batches(data, epochs=2):
        assert type(batch) is PairBatch
        assert (batch.labels_b == UNLABELLED).all()
        assert batch.labels is batch.labels_b
        found = [labels[image.numpy().tobytes()] for image in to_uint8(batch.images_a)]
        assert batch.labels_a.tolist() == found
        assert batch.images_a.shape == batch.images_b.shape == (32, 1, SIZE, SIZE)
    assert data.labelled_indices is not None
    assert len(data.labelled_indices) == 0
    # The law of the classes, which models may know, is that of the source.
    assert data.label_law == pytest.approx((torch.bincount(source.labels) / 719).tolist())


def test_few_labels_of_the_target_come_beside_it() -> None:
    data = adaptation("inverted", labelled_per_class=3, labelled_batch_size=8, seed=5)
    target, chosen = data.reference_set("train"), data.labelled_indices
    assert target.labels is not None
    assert chosen is not None
    assert torch.bincount(target.labels[chosen]).tolist() == [3] * 10
    kept = {target.images[index].numpy().tobytes(): int(target.labels[index]) for index in chosen}
    for batch in batches(data, epochs=2):
        assert isinstance(batch, DomainBatch)
        assert len(batch.images_a) == len(batch.images_b) == 32
        images = to_uint8(batch.images_b)
        assert batch.labels_b.tolist() == [kept.get(image.numpy().tobytes(), UNLABELLED) for image in images]
        found = [kept[image.numpy().tobytes()] for image in to_uint8(batch.labelled_images)]
        assert batch.labelled_labels.tolist() == found
        assert len(found) == 8


def test_all_labels_of_the_target_are_handed_out_where_all_are_asked_for() -> None:
    data = adaptation("inverted", labelled_per_class=None)
    assert data.labelled_indices is None
    for batch in batches(data):
        assert type(batch) is PairBatch
        assert batch.labels_b.min() >= 0


def test_batches_for_evaluation_are_of_the_target_with_its_labels() -> None:
    data = adaptation("inverted")
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert isinstance(batch, ImageBatch)
    assert batch.labels is not None
    assert batch.labels.min() >= 0


def test_other_images_may_take_the_place_of_the_sources() -> None:
    data = adaptation("inverted")
    images = data.input_set("train")
    data.replace_source(ImageSet(images.images // 2, images.labels))
    assert all(float(batch.images_a.max()) <= 0 for batch in batches(data))
    with pytest.raises(AssertionError):
        data.replace_source(images.first(5))


def test_textures_can_be_cut_from_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(256, (50, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    read: list[str] = []
    monkeypatch.setattr(CIFAR10DataModule, "load", lambda self, split: read.append(split) or ImageSet(pixels))
    data = AdaptationDataModule("unused", {**DIGITS, "image_size": 32}, "textured", "cifar10", image_size=32)
    digits = data.source.reference_set("test").images[1::2]
    parts = pixels[divide(50, 0)["test"]].short()
    which = int(torch.randint(len(parts), (), generator=make_rng("textured", 0, "test", 0)))
    assert torch.equal(data.reference_set("test").images[0].short(), (parts[which] - digits[0].short()).abs())
    assert len(data.split("train"))
    assert read == ["train"], "its test images are left alone, and the others read once"
    assert data.name == "cifar10_textured_digits", "other images than those of the photographs' textures"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "blurred"}, "data.domain must be one of inverted, coloured, textured, not 'blurred'"),
        ({"textures": "bark"}, "data.textures must be one of sample_images, cifar10, not 'bark'"),
        ({"labelled_per_class": -1}, "data.labelled_per_class must be at least 0, not -1"),
        ({"source": {**DIGITS, "_target_": "tests.data.test_adaptation.Nameless"}}, "has no classes to adapt"),
        (
            {"domain": "coloured", "source": {**DIGITS, "_target_": "lightning_gen.data.sets.cifar.CIFAR10DataModule"}},
            "cifar10 is not grey and cannot be coloured: set data.domain",
        ),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdaptationDataModule("unused", **{"source": DIGITS, "image_size": SIZE, **options})


def test_too_few_images_of_a_class_are_refused() -> None:
    with pytest.raises(UserError, match=r"less than data\.labelled_per_class"):
        adaptation("inverted", labelled_per_class=1000).check()
