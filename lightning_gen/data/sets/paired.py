"""Pairs of images in files, as pix2pix takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen.data.batches import PairBatch
from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.formats.decoding import decode_image
from lightning_gen.data.formats.records import FileRecords, Records
from lightning_gen.data.image_paths import open_path, set_name
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.loaders import Columns
from lightning_gen.data.pairs import PairDataModule
from lightning_gen.errors import UserError


class TwoFileRecords(Records):
    """Pairs of files; what `read` gives is the first, `read_second` the second.

    Args:
        first: files of domain A.
        second: files of domain B, in the same order.
    """

    def __init__(self, first: Sequence[Path], second: Sequence[Path]) -> None:
        self.first = FileRecords(first)
        self.second = FileRecords(second)

    def __len__(self) -> int:
        return len(self.first)

    def name(self, index: int) -> str:
        """Both paths."""
        return f"{self.first.name(index)} and {self.second.name(index)}"

    def read(self, index: int) -> bytes:
        """Both files, one after the other: what the pair's content is known by."""
        return self.first.read(index) + self.second.read(index)


@dataclass(frozen=True, eq=False)
class PairedSet(EncodedSet):
    """Pairs with their channels stacked, input above output, so that every cut and turn is that of both.

    Attributes:
        direction: ``AtoB``: the left or first image is the input; ``BtoA``: the right or second one.
    """

    direction: Literal["AtoB", "BtoA"] = "AtoB"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(2 C, H, W) of every pair."""
        return 2 * self.channels, self.frame.image_size, self.frame.image_size

    def pixels(self, record: int) -> Tensor:
        """All pixels (2 C, H, W) uint8 of a pair."""
        a, b = self._domains(record)
        return torch.cat([a, b] if self.direction == "AtoB" else [b, a])

    def content(self) -> dict[str, Any]:
        """What the decoded pixels depend on."""
        return {**super().content(), "direction": self.direction}

    def _domains(self, record: int) -> tuple[Tensor, Tensor]:
        records = self.records
        if isinstance(records, TwoFileRecords):
            a, b = (
                decode_image(files.read(record), files.name(record), self.channels)
                for files in (records.first, records.second)
            )
            if a.shape != b.shape:
                raise UserError(
                    f"{records.name(record)} differ in size, {a.shape[2]}x{a.shape[1]} and {b.shape[2]}x{b.shape[1]}: "
                    "replace one, or set data.on_error=skip"
                )
            return a, b
        both = super().pixels(record)
        width = both.shape[2]
        if width % 2:
            raise UserError(
                f"{records.name(record)} is {width} pixels wide, which cannot be halved into A and B: replace it, or "
                "set data.on_error=skip"
            )
        return both[:, :, : width // 2], both[:, :, width // 2 :]


class PairedDataModule(EncodedDataModule, PairDataModule):
    """Pairs of images, of which one is translated to the other.

    Three layouts below ``path`` (a folder, or a zip or tar archive of one) are known, with ``test`` or else ``val`` as
    the split ``test``:

    - ``train/*.jpg``: A and B side by side in one image, as pix2pix (Isola et al. 2017) publishes its sets;
    - ``trainA/*``, ``trainB/*``: two folders, matched by file stem;
    - ``A/train/*``, ``B/train/*``: the same.

    Args:
        data_dir: not used.
        path: of the folder or archive.
        direction: ``AtoB`` or ``BtoA``: which image is the input.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    def __init__(self, data_dir: str, path: str, direction: Literal["AtoB", "BtoA"] = "AtoB", **options: Any) -> None:
        super().__init__(data_dir, **options)
        if direction not in ("AtoB", "BtoA"):
            raise UserError(f"data.direction must be AtoB or BtoA, not {direction!r}")
        self.path = open_path(path, self.cache_dir)
        self.name = f"{set_name(path)}_{direction}"
        self.direction = direction
        self.input_channels = self.image_channels

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(2 C, H, W) of the pairs of `split`."""
        return 2 * self.image_channels, self.image_size, self.image_size

    def load(self, split: str) -> PairedSet:
        """List the pairs of one split."""
        return PairedSet(
            self._records(split),
            self.frame,
            self.image_channels,
            on_error=self.on_error,
            seed=self.seed,
            direction=self.direction,
        )

    def reference_set(self, split: str, number: int | None = None) -> ImageSet:
        """The images of domain B, in order."""
        pairs = super().reference_set(split, number)
        return ImageSet(pairs.images[:, self.input_channels :], pairs.labels)

    def input_set(self, split: str, number: int | None = None) -> ImageSet:
        """The images of domain A, in order."""
        pairs = super().reference_set(split, number)
        return ImageSet(pairs.images[:, : self.input_channels], pairs.labels)

    def assemble(self, columns: Columns) -> PairBatch:
        """Stacked pairs, taken apart."""
        (pairs,) = columns
        a, b = pairs.images[:, : self.input_channels], pairs.images[:, self.input_channels :]
        return PairBatch(a, b, pairs.labels, pairs.labels)

    def _records(self, split: str) -> Records:
        for name in (split, "val") if split == "test" else (split,):
            if (self.path / name).is_dir():
                return FileRecords(self.list_images(self.path / name))
            for a, b in ((f"{name}A", f"{name}B"), (f"A/{name}", f"B/{name}")):
                if (self.path / a).is_dir() or (self.path / b).is_dir():
                    return self._match(self.path / a, self.path / b)
        raise UserError(
            f"{self.path} has neither {split} nor {split}A and {split}B nor A/{split} and B/{split}: set data.path to "
            "the folder that has"
        )

    def _match(self, folder_a: Path, folder_b: Path) -> TwoFileRecords:
        files_a, files_b = self._by_stem(folder_a), self._by_stem(folder_b)
        for own, others, other_folder in ((files_a, files_b, folder_b), (files_b, files_a, folder_a)):
            for stem in sorted(own.keys() - others.keys()):
                self.refuse(f"{own[stem]} has no partner {stem!r} in {other_folder}")
        stems = sorted(files_a.keys() & files_b.keys())
        if not stems:
            raise UserError(f"{folder_a} and {folder_b} have no file stem in common: give partners the same name")
        return TwoFileRecords([files_a[stem] for stem in stems], [files_b[stem] for stem in stems])

    def _by_stem(self, folder: Path) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for path in self.list_images(folder):
            if path.stem in files:
                self.refuse(f"{path} has the same stem as {files[path.stem].name}")
            files.setdefault(path.stem, path)
        return files
