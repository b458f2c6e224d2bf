import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lightning_gen.data.decoded_cache as decoded_cache
from lightning_gen.data import ImageSet
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.errors import UserError
from tests.conftest import fork, forked


def make_folder(folder: Path, number: int = 130, size: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:04d}.png")
    return pixels


def module(tmp_path: Path, **options: Any) -> ImageFolderDataModule:
    defaults: dict[str, Any] = {"image_size": 8, "num_workers": 2, "batch_size": 4}
    options = defaults | {"path": str(tmp_path / "photos"), "cache_dir": str(tmp_path / "cache")} | options
    return ImageFolderDataModule("unused", **options)


def decode(tmp_path: Path, **options: Any) -> ImageSet:
    return module(tmp_path, **options).reference_set("train")


def places(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache" / "decoded").iterdir() if not path.name.endswith(".lock"))


def test_the_cache_holds_the_pixels_in_order(tmp_path: Path) -> None:
    pixels = make_folder(tmp_path / "photos")
    images = decode(tmp_path)
    assert np.array_equal(images.images.permute(0, 2, 3, 1).numpy(), pixels)
    streamed = module(tmp_path).split("train")
    assert torch.equal(streamed.read(torch.arange(len(pixels))).images, images.images)


def test_the_second_time_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "photos")
    first = decode(tmp_path)
    monkeypatch.setattr(EncodedSet, "image", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(decode(tmp_path, num_workers=0).images, first.images)


def test_other_content_another_place(tmp_path: Path) -> None:
    pixels = make_folder(tmp_path / "photos")
    first = decode(tmp_path)
    file = tmp_path / "photos" / "0007.png"
    times = os.stat(file)
    Image.fromarray(255 - pixels[7]).save(file)
    # Neither the time nor the name tells that the file was changed.
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = decode(tmp_path)
    assert torch.equal(second.images[7], 255 - first.images[7])
    assert torch.equal(second.images[8:], first.images[8:])
    decode(tmp_path, center_crop=4)
    assert len(places(tmp_path)) == 3
    (tmp_path / "photos").rename(tmp_path / "moved")
    decode(tmp_path, path=str(tmp_path / "moved"))
    assert len(places(tmp_path)) == 3


def test_writing_to_the_mapped_images_changes_no_file(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    images = decode(tmp_path).images
    before = images.clone()
    images.zero_()
    assert torch.equal(decode(tmp_path).images, before)


def decode_and_report(tmp_path: Path, queue: Any) -> None:
    queue.put(decode(tmp_path, num_workers=0).digest)


def test_many_processes_decode_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    queue = fork.Queue()
    processes = [forked(decode_and_report, tmp_path, queue) for _ in range(3)]
    digests = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {decode(tmp_path).digest}
    assert len(places(tmp_path)) == 1


def decode_slowly(tmp_path: Path) -> None:
    whole = EncodedSet.image

    def slow(self: EncodedSet, index: int, epoch: int) -> Any:
        time.sleep(0.02)
        return whole(self, index, epoch)

    EncodedSet.image = slow  # type: ignore[method-assign]
    decode(tmp_path, num_workers=0)


def test_a_process_killed_midway_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    pixels = make_folder(tmp_path / "photos")
    process = forked(decode_slowly, tmp_path)
    deadline = time.time() + 60
    while not list(tmp_path.glob("cache/decoded/.*.unfinished/images.bin")) and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (leftover,) = places(tmp_path)
    assert leftover.name.endswith(".unfinished")
    images = decode(tmp_path)
    assert np.array_equal(images.images.permute(0, 2, 3, 1).numpy(), pixels)
    (place,) = places(tmp_path)
    assert not place.name.startswith(".")


@pytest.mark.parametrize("damage", ["truncate", "facts", "missing"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    make_folder(tmp_path / "photos")
    before = decode(tmp_path).digest
    (place,) = places(tmp_path)
    if damage == "truncate":
        os.truncate(place / "images.bin", 1000)
    elif damage == "facts":
        (place / "facts.json").write_text("{")
    else:
        (place / "images.bin").unlink()
    assert decode(tmp_path).digest == before


def test_too_little_room_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "photos")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"GB free.*paths\.cache_dir.*residency=stream") as caught:
        decode(tmp_path)
    assert "\n" not in str(caught.value)
    assert places(tmp_path) == []


def decode_with_small_files(tmp_path: Path, queue: Any) -> None:
    # Files may not grow beyond this, so writing fails as it does on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        decode(tmp_path, num_workers=0)
        queue.put("no error")
    except UserError as error:
        queue.put(str(error))


def test_a_disk_that_fills_up_gives_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    queue = fork.Queue()
    process = forked(decode_with_small_files, tmp_path, queue)
    message = queue.get(timeout=60)
    process.join()
    assert "cannot write the decoded images" in message
    assert "paths.cache_dir" in message
    assert "\n" not in message
    assert places(tmp_path) == []
    assert len(decode(tmp_path)) == 130


def test_a_folder_that_cannot_be_written_gives_one_line(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the decoded images.*paths\.cache_dir"):
        decode(tmp_path, cache_dir=str(tmp_path / "file" / "cache"))


def test_random_crops_are_not_cached(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    data = module(tmp_path, crop="random", residency="memory")
    with pytest.raises(UserError, match=r"data\.residency=stream"):
        data.train_dataloader()


def test_what_is_scored_against_is_cut_from_the_middle_whatever_is_trained_on(tmp_path: Path) -> None:
    stripes = np.repeat(np.arange(24, dtype=np.uint8)[None, :, None] * 10, 8, axis=0)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.repeat(stripes, 3, axis=2)).save(tmp_path / "photos" / "stripes.png")
    data = module(tmp_path, crop="random", batch_size=1)
    expected = torch.arange(8, 16, dtype=torch.uint8) * 10
    assert torch.equal(data.reference_set("train").images[0, 0, 0], expected)
    ((ordered,),) = data.ordered_batches("train")
    assert torch.equal(ordered.images[0, 0, 0], expected)
    source = data.split("train")
    lefts = {int(source.batch(torch.tensor([0]), epoch).images[0, 0, 0, 0]) for epoch in range(40)}
    assert len(lefts) > 8


def test_residency_follows_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "photos")
    assert type(module(tmp_path).train_dataloader()).__name__ == "InMemoryLoader"
    assert type(module(tmp_path, crop="random").train_dataloader()).__name__ == "StreamingLoader"
    monkeypatch.setattr("lightning_gen.data.residency._memory", lambda: 4 * 130 * 8 * 8 * 3 - 1)
    assert type(module(tmp_path).train_dataloader()).__name__ == "StreamingLoader"
    assert type(module(tmp_path, residency="memory").train_dataloader()).__name__ == "InMemoryLoader"


def test_a_part_of_a_split_is_decoded_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    assert len(module(tmp_path).reference_set("train", 10)) == 10
    (place,) = places(tmp_path)
    assert json.loads((place / "facts.json").read_text())["shape"] == [10, 3, 8, 8]
