from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_gen.data import ImageDataModule, ImageSet, PairBatch
from lightning_gen.data.loaders import OrderedLoader
from lightning_gen.data.sets.huggingface import HuggingFaceDataModule
from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.data.sets.lsun import LSUNDataModule
from lightning_gen.data.sets.paired import PairedDataModule
from lightning_gen.data.sets.unpaired import UnpairedFoldersDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from tests.data.image_files import (
    encode,
    noise,
    plain,
    write_lmdb,
    write_lsun,
    write_parquet,
    write_plain,
    write_png,
    write_side_by_side,
)

Found = list[tuple[int, int]]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Options of every data module here: small images, decoded in this process."""
    return {"cache_dir": str(tmp_path / "cache"), "image_size": 8, "num_workers": 0, "batch_size": 4}


def write_levels(folder: Path, *levels: int, suffix: str = "png") -> Path:
    """Images of one grey level each, named by it."""
    for level in levels:
        write_plain(folder / f"{level:03}.{suffix}", level)
    return folder


def levels(images: Tensor) -> list[int]:
    """The grey level of each image."""
    return images[:, 0, 4, 4].tolist()


def found(images: ImageSet) -> Found:
    """Grey level and label of each image."""
    assert images.labels is not None
    assert images.labels.dtype == torch.int64
    return list(zip(levels(images.images), images.labels.tolist(), strict=True))


def folder_of(path: Path, **options: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule("unused", str(path), **options)


def png(level: int) -> bytes:
    return encode(plain(level), "PNG")


def planes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def test_class_folders_are_labels_in_the_order_of_their_names(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "dog", 40, 30)
    write_levels(tmp_path / "set" / "cat", 20)
    write_levels(tmp_path / "set" / "Eel", 10)
    for labels in ("auto", "folders"):
        data = folder_of(tmp_path / "set", labels=labels, **options)
        assert data.class_names == ["Eel", "cat", "dog"]
        assert data.num_classes == 3
        assert found(data.reference_set("train")) == [(10, 0), (20, 1), (30, 2), (40, 2)]
        assert data.label_law == [0.25, 0.25, 0.5]
    assert data.name == "set"
    assert data.image_shape == data.split("train").image_shape == (3, 8, 8)


def test_classes_hold_images_at_any_depth(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "a" / "deep" / "deeper", 20)
    write_levels(tmp_path / "set" / "a", 10)
    write_levels(tmp_path / "set" / "b", 30)
    assert sorted(found(folder_of(tmp_path / "set", **options).reference_set("train"))) == [(10, 0), (20, 0), (30, 1)]


@pytest.mark.parametrize("labels", ["auto", "none"])
def test_a_flat_folder_has_no_classes(tmp_path: Path, options: dict[str, Any], labels: str) -> None:
    data = folder_of(write_levels(tmp_path / "set", 30, 10, 20), labels=labels, **options)
    reference = data.reference_set("train")
    assert levels(reference.images) == [10, 20, 30]
    assert reference.labels is None
    assert (list(data.class_names), data.num_classes, data.label_law) == ([], 0, None)


def test_without_labels_images_at_any_depth_are_one_set(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set", 10)
    write_levels(tmp_path / "set" / "a", 20)
    write_levels(tmp_path / "set" / "b" / "c", 30)
    data = folder_of(tmp_path / "set", labels="none", **options)
    reference = data.reference_set("train")
    assert sorted(levels(reference.images)) == [10, 20, 30]
    assert reference.labels is None
    assert data.num_classes == 0


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folders_of_splits(tmp_path: Path, options: dict[str, Any], held_out: str) -> None:
    for name, level in (("train/a", 10), ("train/b", 20), (f"{held_out}/a", 30), (f"{held_out}/b", 40)):
        write_levels(tmp_path / "set" / name, level, level + 1)
    data = folder_of(tmp_path / "set", **options)
    assert data.class_names == ["a", "b"]
    assert found(data.reference_set("train")) == [(10, 0), (11, 0), (20, 1), (21, 1)]
    assert found(data.reference_set("test")) == [(30, 0), (31, 0), (40, 1), (41, 1)]


def test_test_goes_before_val(tmp_path: Path, options: dict[str, Any]) -> None:
    for number, name in enumerate(("train", "val", "test")):
        write_levels(tmp_path / "set" / name, number)
    data = folder_of(tmp_path / "set", **options)
    assert levels(data.reference_set("train").images) == [0]
    assert levels(data.reference_set("test").images) == [2]
    with pytest.raises(UserError, match=r"set data\.validation_share"):
        data.split("val")


def test_splits_without_classes(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "train", 10, 20)
    write_levels(tmp_path / "set" / "test", 30)
    data = folder_of(tmp_path / "set", **options)
    assert (levels(data.reference_set("train").images), levels(data.reference_set("test").images)) == ([10, 20], [30])
    assert data.num_classes == 0


def test_a_share_of_the_images_is_drawn_for_testing(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "a", *range(10))
    write_levels(tmp_path / "set" / "b", *range(10, 20))
    data = folder_of(tmp_path / "set", test_share=0.25, **options)
    train, test = found(data.reference_set("train")), found(data.reference_set("test"))
    assert (len(train), len(test)) == (15, 5)
    assert sorted(train + test) == [(level, level // 10) for level in range(20)]
    assert train == sorted(train)
    assert test == sorted(test)
    same = folder_of(tmp_path / "set", test_share=0.25, seed=5, **options)
    assert found(same.reference_set("test")) == test
    other = folder_of(tmp_path / "set", test_share=0.25, split_seed=5, **options)
    assert found(other.reference_set("test")) != test


def test_a_share_is_drawn_where_there_is_a_folder_for_training_only(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "train", *range(8))
    data = folder_of(tmp_path / "set", test_share=0.25, **options)
    train, test = levels(data.reference_set("train").images), levels(data.reference_set("test").images)
    assert len(test) == 2
    assert sorted(train + test) == list(range(8))


def test_a_folder_for_testing_goes_before_a_share(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "train", 10, 20)
    write_levels(tmp_path / "set" / "test", 30)
    data = folder_of(tmp_path / "set", test_share=0.5, **options)
    assert (levels(data.reference_set("train").images), levels(data.reference_set("test").images)) == ([10, 20], [30])


def test_validation_images_of_a_folder_leave_its_training_set(tmp_path: Path, options: dict[str, Any]) -> None:
    data = folder_of(write_levels(tmp_path / "set", *range(10)), validation_share=0.3, **options)
    val, train = levels(data.reference_set("val").images), levels(data.reference_set("train").images)
    assert len(val) == 3
    assert sorted(val + train) == list(range(10))


def test_a_folder_may_hold_many_formats_and_sizes(tmp_path: Path, options: dict[str, Any]) -> None:
    suffixes = ["png", "PNG", "jpg", "JPEG", "webp", "bmp", "tif", "gif", "ppm"]
    for number, suffix in enumerate(suffixes):
        write_plain(tmp_path / "set" / f"{number}.{suffix}", 20 * number, height=8 + number, width=20 - number)
    images = folder_of(tmp_path / "set", **options).reference_set("train").images
    assert images.shape == (9, 3, 8, 8)
    wanted = torch.arange(9)[:, None, None, None] * 20
    assert (images.int() - wanted).abs().max() <= 3


def test_grey_images_are_given_where_asked_for(tmp_path: Path, options: dict[str, Any]) -> None:
    write_png(tmp_path / "set" / "red.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    data = folder_of(tmp_path / "set", channels=1, **options)
    assert data.image_shape == (1, 8, 8)
    assert data.reference_set("train").images.unique().tolist() == [76]


def test_images_larger_than_wanted_are_cut_from_the_middle(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = noise(8, 14)
    write_png(tmp_path / "set" / "1.png", pixels)
    assert torch.equal(
        folder_of(tmp_path / "set", **options).reference_set("train").images[0], planes(pixels)[:, :, 3:11]
    )


def test_random_crops_differ_by_epoch_repeat_by_seed_and_spare_the_test_split(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    for name in ("train", "test"):
        write_png(tmp_path / "set" / name / "1.png", noise(8, 40))
    data = folder_of(tmp_path / "set", crop="random", **options)
    first = torch.tensor([0])
    crops = [data.split("train").batch(first, epoch).images for epoch in range(6)]
    assert len({crop.numpy().tobytes() for crop in crops}) > 1
    again = folder_of(tmp_path / "set", crop="random", **options).split("train")
    assert all(torch.equal(again.batch(first, epoch).images, crop) for epoch, crop in enumerate(crops))
    assert torch.equal(data.reference_set("test").images[0], planes(noise(8, 40))[:, :, 16:24])


def test_decoded_images_are_kept_and_made_anew_when_a_file_changes(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = write_levels(tmp_path / "set", 10, 20)
    assert levels(folder_of(folder, **options).reference_set("train").images) == [10, 20]
    (kept,) = (tmp_path / "cache" / "decoded").glob("*/images.bin")
    written = kept.stat().st_mtime_ns
    assert levels(folder_of(folder, **options).reference_set("train").images) == [10, 20]
    assert kept.stat().st_mtime_ns == written
    write_plain(folder / "020.png", 99)
    assert levels(folder_of(folder, **options).reference_set("train").images) == [10, 99]


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_training_batches_have_images_with_their_labels(
    tmp_path: Path, options: dict[str, Any], residency: str
) -> None:
    write_levels(tmp_path / "set" / "a", *range(6))
    write_levels(tmp_path / "set" / "b", *range(100, 106))
    data = folder_of(tmp_path / "set", residency=residency, **options)
    seen: Found = []
    for (batch,) in data.train_dataloader():
        assert batch.images.dtype == torch.uint8
        seen += found(ImageSet(batch.images, batch.labels))
    assert sorted(seen) == [(level, int(level >= 100)) for level in (*range(6), *range(100, 106))]


def test_lsun_has_a_label_for_each_class(tmp_path: Path, options: dict[str, Any]) -> None:
    write_lsun(tmp_path / "lsun", "tower", [png(10), png(20), png(30)], [png(40)])
    jpeg, webp = encode(plain(60), "JPEG"), encode(plain(70), "WEBP", lossless=True)
    write_lsun(tmp_path / "lsun", "bridge", [jpeg, webp], [png(80), png(90)])
    data = LSUNDataModule(str(tmp_path), ["tower", "bridge"], **options)
    assert data.class_names == ["tower", "bridge"]
    assert data.name == "lsun_tower_bridge"
    assert found(data.reference_set("train")) == [(10, 0), (20, 0), (30, 0), (60, 1), (70, 1)]
    assert found(data.reference_set("test")) == [(40, 0), (80, 1), (90, 1)]
    assert data.label_law == [0.6, 0.4]


def test_the_order_of_lsun_classes_is_that_of_the_labels(tmp_path: Path, options: dict[str, Any]) -> None:
    write_lsun(tmp_path / "lsun", "tower", [png(10)])
    write_lsun(tmp_path / "lsun", "bridge", [png(20)])
    data = LSUNDataModule(str(tmp_path), ["bridge", "tower"], **options)
    assert found(data.reference_set("train")) == [(20, 0), (10, 1)]


def test_lsun_objects(tmp_path: Path, options: dict[str, Any]) -> None:
    write_lmdb(tmp_path / "lsun" / "cat", [png(10), png(20)])
    data = LSUNDataModule(str(tmp_path), ["cat"], **options)
    assert found(data.reference_set("train")) == [(10, 0), (20, 0)]
    with pytest.raises(UserError, match="cat_val_lmdb"):
        data.split("test")


def test_nothing_is_written_beside_lsun_files(tmp_path: Path, options: dict[str, Any]) -> None:
    write_lsun(tmp_path / "lsun", "tower", [png(10)])
    place = tmp_path / "lsun" / "tower_train_lmdb"
    before = (place / "data.mdb").read_bytes()
    LSUNDataModule(str(tmp_path), ["tower"], **options).reference_set("train")
    assert [path.name for path in place.iterdir()] == ["data.mdb"]
    assert (place / "data.mdb").read_bytes() == before


def test_workers_read_lsun_too(tmp_path: Path, options: dict[str, Any]) -> None:
    write_lsun(tmp_path / "lsun", "tower", [png(level) for level in range(12)])
    data = LSUNDataModule(str(tmp_path), ["tower"], **{**options, "num_workers": 2})
    source = data.split("train")
    # Read here first: the workers inherit an open database.
    assert levels(source.read(torch.tensor([3])).images) == [3]
    loader = OrderedLoader(source, 4, num_workers=2)
    assert [level for (batch,) in loader for level in levels(batch.images)] == list(range(12))
    assert levels(source.read(torch.tensor([5])).images) == [5]


def test_two_data_modules_may_read_the_same_lsun_files(tmp_path: Path, options: dict[str, Any]) -> None:
    write_lsun(tmp_path / "lsun", "tower", [png(10), png(20)])
    modules = [LSUNDataModule(str(tmp_path), ["tower"], **options) for _ in range(2)]
    assert [levels(data.reference_set("train").images) for data in modules] == [[10, 20], [10, 20]]


Pictures = dict[str, list[tuple[np.ndarray, np.ndarray]]]


def pictures(height: int = 8, width: int = 8) -> Pictures:
    """Two pairs for training and one for testing, all different."""
    made = [noise(height, width, seed=number) for number in range(6)]
    return {"train": [(made[0], made[1]), (made[2], made[3])], "test": [(made[4], made[5])]}


def write_pairs(folder: Path, layout: str, pairs: Pictures, test: str = "test") -> Path:
    for split, images in pairs.items():
        name = test if split == "test" else split
        for number, (a, b) in enumerate(images):
            if layout == "side by side":
                write_side_by_side(folder / name / f"{number}.png", a, b)
                continue
            place_a, place_b = (f"{name}A", f"{name}B") if layout == "trainA" else (f"A/{name}", f"B/{name}")
            write_png(folder / place_a / f"{number}.png", a)
            write_png(folder / place_b / f"{number}.png", b)
    return folder


layouts = pytest.mark.parametrize("layout", ["side by side", "trainA", "A/train"])
directions = pytest.mark.parametrize("direction", ["AtoB", "BtoA"])


@layouts
@directions
@pytest.mark.parametrize("test", ["test", "val"])
def test_pairs_have_exactly_the_pixels_of_their_files(
    tmp_path: Path, options: dict[str, Any], layout: str, direction: str, test: str
) -> None:
    pairs = pictures()
    write_pairs(tmp_path / "set", layout, pairs, test)
    data = PairedDataModule("unused", str(tmp_path / "set"), direction, **options)
    assert data.name == f"set_{direction}"
    assert data.image_shape == data.input_shape == (3, 8, 8)
    data.batch_size = 2
    data.check()
    for split, images in pairs.items():
        inputs, outputs = data.input_set(split).images, data.reference_set(split).images
        assert len(inputs) == len(outputs) == len(images)
        for number, (a, b) in enumerate(images):
            wanted = (a, b) if direction == "AtoB" else (b, a)
            assert torch.equal(inputs[number], planes(wanted[0]))
            assert torch.equal(outputs[number], planes(wanted[1]))


@layouts
@directions
@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_training_batches_are_pairs(
    tmp_path: Path, options: dict[str, Any], layout: str, direction: str, residency: str
) -> None:
    pairs = pictures()
    write_pairs(tmp_path / "set", layout, pairs)
    data = PairedDataModule(
        "unused", str(tmp_path / "set"), direction, **{**options, "residency": residency, "batch_size": 2}
    )
    wanted = {
        tuple(planes(image).numpy().tobytes() for image in (pair if direction == "AtoB" else pair[::-1]))
        for pair in pairs["train"]
    }
    (columns,) = list(data.train_dataloader())
    batch = data.on_after_batch_transfer(columns, 0)
    assert isinstance(batch, PairBatch)
    assert batch.images is batch.images_b
    seen = zip(to_uint8(batch.images_a), to_uint8(batch.images_b), strict=True)
    assert {(a.numpy().tobytes(), b.numpy().tobytes()) for a, b in seen} == wanted


def test_both_images_of_a_pair_are_cut_alike(tmp_path: Path, options: dict[str, Any]) -> None:
    wide = noise(8, 40)
    write_pairs(tmp_path / "set", "trainA", {"train": [(wide, wide)], "test": [(wide, wide)]})
    data = PairedDataModule("unused", str(tmp_path / "set"), crop="random", **options)
    for epoch in range(4):
        (pair,) = data.split("train").batch(torch.tensor([0]), epoch).images
        assert torch.equal(pair[:3], pair[3:])


def test_side_by_side_pairs_are_halved_before_they_are_cut(tmp_path: Path, options: dict[str, Any]) -> None:
    a, b = noise(8, 12, seed=1), noise(8, 12, seed=2)
    write_side_by_side(tmp_path / "set" / "train" / "1.png", a, b)
    data = PairedDataModule("unused", str(tmp_path / "set"), **options)
    assert torch.equal(data.input_set("train").images[0], planes(a)[:, :, 2:10])
    assert torch.equal(data.reference_set("train").images[0], planes(b)[:, :, 2:10])


def test_side_by_side_jpegs_are_close_to_their_halves(tmp_path: Path, options: dict[str, Any]) -> None:
    write_side_by_side(tmp_path / "set" / "train" / "1.jpg", plain(40, 16, 16), plain(200, 16, 16), quality=95)
    data = PairedDataModule("unused", str(tmp_path / "set"), **options)
    assert abs(levels(data.input_set("train").images)[0] - 40) <= 2
    assert abs(levels(data.reference_set("train").images)[0] - 200) <= 2


def test_partners_may_be_of_different_formats(tmp_path: Path, options: dict[str, Any]) -> None:
    write_levels(tmp_path / "set" / "trainA", 10, 20, suffix="bmp")
    for level in (10, 20):
        write_plain(tmp_path / "set" / "trainB" / f"{level:03}.png", level + 100)
    data = PairedDataModule("unused", str(tmp_path / "set"), **options)
    assert levels(data.input_set("train").images) == [10, 20]
    assert levels(data.reference_set("train").images) == [110, 120]


def unpaired(tmp_path: Path, **options: Any) -> UnpairedFoldersDataModule:
    write_levels(tmp_path / "set" / "trainA", 1, 2, 3)
    write_levels(tmp_path / "set" / "trainB", *range(101, 109))
    write_levels(tmp_path / "set" / "testA", 4)
    write_levels(tmp_path / "set" / "testB", 109, 110)
    return UnpairedFoldersDataModule("unused", str(tmp_path / "set"), **options)


def test_unpaired_folders_are_two_domains(tmp_path: Path, options: dict[str, Any]) -> None:
    data = unpaired(tmp_path, **options)
    data.check()
    assert data.name == "set"
    assert data.image_shape == data.input_shape == (3, 8, 8)
    assert levels(data.reference_set("train").images) == list(range(101, 109))
    assert levels(data.input_set("train").images) == [1, 2, 3]
    assert levels(data.reference_set("test").images) == [109, 110]
    assert levels(data.input_set("test").images) == [4]


@pytest.mark.parametrize("residency", ["memory", "stream"])
def test_an_epoch_of_unpaired_folders_is_one_of_the_larger_domain(
    tmp_path: Path, options: dict[str, Any], residency: str
) -> None:
    data = unpaired(tmp_path, **{**options, "residency": residency})
    a, b = [], []
    for columns in data.train_dataloader():
        batch = data.on_after_batch_transfer(columns, 0)
        assert isinstance(batch, PairBatch)
        a += levels(to_uint8(batch.images_a))
        b += levels(to_uint8(batch.images_b))
    assert sorted(b) == list(range(101, 109))
    assert set(a) == {1, 2, 3}
    assert len(a) == 8


def hub(path: Path, **options: Any) -> HuggingFaceDataModule:
    return HuggingFaceDataModule("unused", str(path), **{"image_column": "img", **options})


def test_parquet_files_with_integer_labels(tmp_path: Path, options: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10), png(20), png(30)], [2, 0, 2])
    write_parquet(tmp_path / "set" / "test.parquet", [png(40)], [1])
    data = hub(tmp_path / "set", **options)
    assert data.name == "set"
    assert list(data.class_names) == ["0", "1", "2"]
    assert found(data.reference_set("train")) == [(10, 2), (20, 0), (30, 2)]
    assert found(data.reference_set("test")) == [(40, 1)]


def test_parquet_files_with_string_labels(tmp_path: Path, options: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10), png(20), png(30)], ["eel", "cat", "eel"])
    write_parquet(tmp_path / "set" / "test.parquet", [png(40)], ["eel"])
    data = hub(tmp_path / "set", **options)
    # The test split is asked for first, and still has the training split's numbers.
    assert found(data.reference_set("test")) == [(40, 1)]
    assert list(data.class_names) == ["cat", "eel"]
    assert found(data.reference_set("train")) == [(10, 1), (20, 0), (30, 1)]


def test_class_names_come_from_the_hubs_metadata(tmp_path: Path, options: dict[str, Any]) -> None:
    names = ["plane", "car", "bird"]
    write_parquet(tmp_path / "set" / "train.parquet", [png(10), png(20)], [1, 0], names)
    write_parquet(tmp_path / "set" / "test.parquet", [png(30)], [2], names)
    data = hub(tmp_path / "set", **options)
    assert list(data.class_names) == names
    assert found(data.reference_set("train")) == [(10, 1), (20, 0)]
    assert found(data.reference_set("test")) == [(30, 2)]
    assert data.label_law == [0.5, 0.5, 0.0]


def test_what_the_hubs_own_package_writes_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "eel"])})
    rows = {"img": [{"bytes": png(10), "path": None}, {"bytes": png(20), "path": None}], "label": [1, 0]}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    data = hub(tmp_path / "set", **options)
    assert list(data.class_names) == ["cat", "eel"]
    assert found(data.reference_set("train")) == [(10, 1), (20, 0)]


def test_sharded_parquet_files_are_one_set_in_order(tmp_path: Path, options: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train-00001-of-00002.parquet", [png(30)], [1])
    write_parquet(tmp_path / "set" / "train-00000-of-00002.parquet", [png(10), png(20)], [0, 1])
    write_parquet(tmp_path / "set" / "test-00000-of-00001.parquet", [png(40)], [0])
    data = hub(tmp_path / "set", **options)
    assert found(data.reference_set("train")) == [(10, 0), (20, 1), (30, 1)]
    assert found(data.reference_set("test")) == [(40, 0)]


def test_parquet_files_without_labels(tmp_path: Path, options: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(10), png(20)], [0, 1])
    data = hub(tmp_path / "set", label_column=None, **options)
    assert data.reference_set("train").labels is None
    assert (list(data.class_names), data.num_classes) == ([], 0)


def test_other_names_of_splits_and_workers(tmp_path: Path, options: dict[str, Any]) -> None:
    write_parquet(tmp_path / "set" / "full.parquet", [png(level) for level in range(12)], list(range(12)))
    write_parquet(tmp_path / "set" / "validation.parquet", [png(40)], [0])
    data = hub(tmp_path / "set", train_split="full", test_split="validation", **{**options, "num_workers": 2})
    assert found(data.reference_set("train")) == [(level, level) for level in range(12)]
    assert found(data.reference_set("test")) == [(40, 0)]


def test_equal_content_in_other_places_has_the_same_digest(tmp_path: Path, options: dict[str, Any]) -> None:
    """However images are stored, the set is the same."""
    write_levels(tmp_path / "folder" / "0", 10, 20)
    write_levels(tmp_path / "folder" / "1", 30)
    write_parquet(tmp_path / "parquet" / "train.parquet", [png(10), png(20), png(30)], [0, 0, 1])
    write_lsun(tmp_path / "lsun", "0", [png(10), png(20)])
    write_lsun(tmp_path / "lsun", "1", [png(30)])
    modules: list[ImageDataModule] = [
        folder_of(tmp_path / "folder", **options),
        hub(tmp_path / "parquet", **options),
        LSUNDataModule(str(tmp_path), ["0", "1"], **options),
    ]
    digests = {data.reference_set("train").digest for data in modules}
    assert len(digests) == 1
