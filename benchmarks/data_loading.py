"""Images a second of the in-memory loader against torchvision's MNIST with a DataLoader of two workers.

    python benchmarks/data_loading.py [--data-dir FOLDER] [--rounds 5]

Without MNIST in the folder, files of the same format and size are made of random pixels. Both sides yield float images
in [-1, 1] and labels in batches of 64, shuffled, and alternate in one process; workers are started before the clock.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from lightning_gen.data import InMemoryLoader
from lightning_gen.data.sets.mnist import MNISTDataModule
from lightning_gen.images import to_float

BATCH_SIZE = 64


def make_files(folder: Path) -> None:
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


def time_epoch(batches: Iterable[object], convert: bool) -> float:
    """Seconds to go through an epoch, from the first batch on."""
    iterator = iter(batches)
    next(iterator)
    started = time.perf_counter()
    for batch in iterator:
        if convert:
            to_float(batch.images)  # type: ignore[attr-defined]
    return time.perf_counter() - started


def main() -> None:
    """Alternate the two sides and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.data_dir is None:
            make_files(folder)
        else:
            (folder / "MNIST").mkdir()
            (folder / "MNIST" / "raw").mkdir()
            for file in (arguments.data_dir / "MNIST" / "raw").iterdir():
                (folder / "MNIST" / "raw" / file.name).symlink_to(file.resolve())
        scale = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
        peer_set = MNIST(folder, train=True, transform=scale, download=arguments.data_dir is not None)
        ours = InMemoryLoader(MNISTDataModule(str(folder), image_size=28).split("train"), BATCH_SIZE, seed=0)
        rows = []
        for _ in range(arguments.rounds):
            peer = DataLoader(peer_set, BATCH_SIZE, shuffle=True, num_workers=2, drop_last=True)
            images = (len(ours) - 1) * BATCH_SIZE
            rows.append((images / time_epoch(ours, convert=True), images / time_epoch(peer, convert=False)))
    mine, theirs = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(one / other for one, other in rows)
    print(
        f"MNIST, batch {BATCH_SIZE}: in-memory loader {mine:,.0f} images/s, torchvision + DataLoader(2 workers) "
        f"{theirs:,.0f} images/s, ratio {ratio:.0f} (rounds: {', '.join(f'{a / b:.0f}' for a, b in rows)})"
    )


if __name__ == "__main__":
    main()
