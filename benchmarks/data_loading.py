"""Images a second of every way into training, against torchvision with a DataLoader and against bare decoding.

    python benchmarks/data_loading.py [--data-dir FOLDER] [--rounds 5] [--images 4000]

1. Sets in memory: MNIST and CIFAR-10 against torchvision's classes with a DataLoader of two workers; both yield
   shuffled float images in [-1, 1] and labels in batches of 64.
2. JPEG files: the streaming loader with two workers (read, decode, cut, resize, batch) against two processes that read
   and decode the same files and do nothing else, by Pillow and by torchvision.
3. The same files from the decoded cache, against the streaming loader.

The sides alternate in each round and their order turns; ratios are medians over rounds. Without ``--data-dir`` the sets
of 1 are random pixels in the same number and size. The files of 2 are cuts of the two photographs that ship with
scikit-learn. Peak memory is that of a fresh process going through one epoch.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import pickle
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10, MNIST
from torchvision.io import ImageReadMode, decode_jpeg

from lightning_gen.data.loaders import InMemoryLoader, TrainingLoader
from lightning_gen.data.plan import BatchPlan
from lightning_gen.data.sets.cifar import CIFAR10DataModule
from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.data.sets.mnist import MNISTDataModule
from lightning_gen.images import to_float

BATCH_SIZE = 64
WORKERS = 2
PHOTO = (320, 256)
SCALE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])


class LocalCIFAR10(CIFAR10):
    """torchvision's class on files that are not the published ones."""

    def _check_integrity(self) -> bool:
        return True

    def _load_meta(self) -> None:
        pass


def make_mnist(folder: Path) -> None:
    """Idx files of MNIST's size, of random pixels."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60000), ("t10k", 10000)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
            (raw / name).write_bytes(header + array.tobytes())


def make_cifar10(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """The published pickles' layout, of these pixels (N, 3, 32, 32)."""
    target = folder / CIFAR10.base_folder
    target.mkdir(parents=True, exist_ok=True)
    size = len(images) // len(CIFAR10.train_list)
    for number, (name, _) in enumerate(CIFAR10.train_list):
        part = slice(number * size, (number + 1) * size)
        content = {"data": images[part].reshape(-1, 3072), "labels": labels[part].tolist()}
        (target / name).write_bytes(pickle.dumps(content))


def make_photos(folder: Path, number: int) -> None:
    """JPEG files of 320x256, each another cut of a photograph."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(number):
        height = int(rng.integers(200, 427))
        width = int(height * PHOTO[0] / PHOTO[1])
        left, top = int(rng.integers(0, 641 - width)), int(rng.integers(0, 428 - height))
        cut = photos[index % 2].crop((left, top, left + width, top + height)).resize(PHOTO, Image.Resampling.LANCZOS)
        cut.save(folder / f"{index:06d}.jpg", quality=90)


def time_loader(loader: Iterable[Any], warm_up: int, epochs: int = 1, convert: bool = False) -> float:
    """Images a second of whole epochs but their first batches."""
    images, seconds = 0, 0.0
    for _ in range(epochs):
        iterator = iter(loader)
        for _ in range(warm_up):
            next(iterator)
        started = time.perf_counter()
        for batch in iterator:
            if convert:
                to_float(batch[0].images)
            images += BATCH_SIZE
        seconds += time.perf_counter() - started
    if isinstance(loader, TrainingLoader):
        # Workers that read ahead would disturb what is timed next.
        loader.close()
    return images / seconds


def pillow(content: bytes) -> object:
    """The bare decoder of Pillow."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def torchvision_jpeg(content: bytes) -> object:
    """The bare decoder of torchvision."""
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)


def decode_files(files: list[Path], decode: Callable[[bytes], object], start: Any, seconds: Any) -> None:
    """What one of the bare decoding processes does."""
    torch.set_num_threads(1)
    decode(files[0].read_bytes())
    start.wait()
    started = time.perf_counter()
    for file in files:
        decode(file.read_bytes())
    seconds.put(time.perf_counter() - started)


def time_decoding(folder: Path, decode: Callable[[bytes], object]) -> float:
    """Images a second of two processes that share the files, the start of the processes not counted."""
    files = sorted(folder.iterdir())
    start, seconds = multiprocessing.Barrier(WORKERS), multiprocessing.SimpleQueue()
    processes = [
        multiprocessing.Process(target=decode_files, args=(files[part::WORKERS], decode, start, seconds))
        for part in range(WORKERS)
    ]
    for process in processes:
        process.start()
    longest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return len(files) / longest


def photos_loader(folder: Path, image_size: int, residency: str) -> TrainingLoader:
    """Batches of the JPEG files, streamed or from the cache beside them."""
    data = ImageFolderDataModule(
        "unused",
        path=str(folder),
        cache_dir=str(folder.parent / "cache"),
        batch_size=BATCH_SIZE,
        image_size=image_size,
        num_workers=WORKERS,
        residency=residency,
    )
    return data.train_dataloader()


def report(name: str, rounds: list[dict[str, float]], ours: str, peer: str) -> None:
    """One line: both speeds and their ratio."""
    ratios = sorted(one[ours] / one[peer] for one in rounds)
    speeds = {side: statistics.median(one[side] for one in rounds) for side in (ours, peer)}
    print(
        f"{name}: {ours} {speeds[ours]:,.0f} images/s, {peer} {speeds[peer]:,.0f} images/s, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def alternate(rounds: int, sides: dict[str, Callable[[], float]]) -> list[dict[str, float]]:
    """Time all sides in turn, the order turning from round to round."""
    results = []
    names = list(sides)
    for number in range(rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        results.append({name: sides[name]() for name in turned})
    return results


def compare_in_memory(folder: Path, rounds: int, real: Path | None) -> None:
    """Part 1."""
    if real is None:
        make_mnist(folder)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (50000, 3, 32, 32), dtype=np.uint8)
        labels = rng.integers(0, 10, 50000)
    else:
        (folder / "MNIST").mkdir()
        (folder / "MNIST" / "raw").symlink_to((real / "MNIST" / "raw").resolve())
        cifar = CIFAR10DataModule(str(real)).split("train")
        images, labels = cifar.images.numpy(), cifar.labels.numpy()  # type: ignore[attr-defined, union-attr]
    make_cifar10(folder, images, labels)
    mnist = MNISTDataModule(str(folder), image_size=28).split("train")
    cifar10 = LocalCIFAR10(folder, transform=SCALE)
    pixels = torch.from_numpy(np.ascontiguousarray(cifar10.data.transpose(0, 3, 1, 2)))
    pairs = (
        ("MNIST", mnist, MNIST(folder, transform=SCALE, download=real is not None)),
        ("CIFAR-10", type(mnist)(pixels, torch.tensor(cifar10.targets)), cifar10),
    )
    for name, ours, theirs in pairs:
        loader = InMemoryLoader([ours], BatchPlan([len(ours)], [BATCH_SIZE], seed=0))  # type: ignore[list-item]
        peer = DataLoader(theirs, BATCH_SIZE, shuffle=True, num_workers=WORKERS, drop_last=True)
        sides = {
            "in-memory loader": partial(time_loader, loader, 1, convert=True),
            f"torchvision + DataLoader({WORKERS})": partial(time_loader, peer, 1),
        }
        report(f"{name}, batch {BATCH_SIZE}", alternate(rounds, sides), *sides)


def compare_files(folder: Path, rounds: int, number: int) -> None:
    """Parts 2 and 3."""
    photos = folder / "photos"
    make_photos(photos, number)
    small, whole = (photos_loader(photos, size, "stream") for size in (64, 256))
    cached = photos_loader(photos, 64, "memory")
    warm_up = 4 * WORKERS
    sides = {
        "streaming to 64x64": partial(time_loader, small, warm_up),
        "streaming to 256x256": partial(time_loader, whole, warm_up),
        "cached 64x64": partial(time_loader, cached, 1, epochs=20),
        "bare Pillow": partial(time_decoding, photos, pillow),
        "bare torchvision": partial(time_decoding, photos, torchvision_jpeg),
    }
    results = alternate(rounds, sides)
    name = f"JPEG {PHOTO[0]}x{PHOTO[1]}, {WORKERS} processes"
    for ours in ("streaming to 64x64", "streaming to 256x256"):
        for peer in ("bare Pillow", "bare torchvision"):
            report(name, results, ours, peer)
    report(name, results, "cached 64x64", "streaming to 64x64")


def memory(pid: str, file: str, *keys: str) -> float:
    """MB that the kernel reports for a process."""
    lines = Path("/proc", pid, file).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in keys) / 1024


def epoch_memory(folder: Path, residency: str, result: Any) -> None:
    """Peak memory of this process before and after an epoch of the JPEG files, and what its workers have besides."""
    before = memory("self", "status", "VmHWM")
    loader = photos_loader(folder, 64, residency)
    for _ in loader:
        pass
    workers = [str(child.pid) for child in multiprocessing.active_children()]
    own = sum(memory(pid, "smaps_rollup", "Private_Dirty") for pid in workers)
    loader.close()
    result.put((before, memory("self", "status", "VmHWM"), own))


def compare_memory(folder: Path) -> None:
    """Peak memory of both ways to the JPEG files."""
    context = multiprocessing.get_context("spawn")
    for residency in ("stream", "memory"):
        result = context.SimpleQueue()
        process = context.Process(target=epoch_memory, args=(folder / "photos", residency, result))
        process.start()
        before, after, workers = result.get()
        process.join()
        print(
            f"peak memory, residency={residency}: {after:,.0f} MB, of which {before:,.0f} MB after the imports; "
            f"{workers:,.0f} MB of the workers' own"
        )


def main() -> None:
    """All three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST/raw and cifar10/*.parquet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4000, help="JPEG files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compare_in_memory(folder, arguments.rounds, arguments.data_dir)
        compare_files(folder, arguments.rounds, arguments.images)
        compare_memory(folder)


if __name__ == "__main__":
    main()
