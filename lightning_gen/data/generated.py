"""Generated images with labels as training images: files of them, read and written."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_gen.data.image_files import ImageFiles, is_image_collection
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.errors import UserError, first_line
from lightning_gen.files import atomic_path
from lightning_gen.images import save_png
from lightning_gen.seeds import make_rng

REMEDY = "write them by `lightning-gen sample RUN --labelled`"


class GeneratedImages:
    """Generated images that are trained on beside the real ones, or in their place.

    Args:
        path: a folder with a folder of images for each class, or an ``.npz`` file (see `write_arrays`); None for none.
        number: so many of them, drawn by the run's seed; None for all.
        only: train on no real image.

    Raises:
        UserError: options without a path, or a number below 1.
    """

    def __init__(self, path: str | None = None, number: int | None = None, only: bool = False) -> None:
        if path is None and (number is not None or only):
            raise UserError("data.generated.number and only say how images are used: set data.generated.path")
        if number is not None and number < 1:
            raise UserError(f"data.generated.number must be at least 1, not {number}")
        self.path = path
        self.number = number
        self.only = only

    def load(
        self, image_shape: tuple[int, int, int], class_names: Sequence[str], cache_dir: Path, seed: int
    ) -> ImageSet:
        """The images, with labels if the set that they go with has classes.

        Args:
            image_shape: (C, H, W) that they must have.
            class_names: of the set, in the order of its labels.
            cache_dir: where an archive is unpacked.
            seed: of the draw of ``number``.

        Raises:
            UserError: no such file or folder, other shapes or classes, missing labels, or too few images.
        """
        assert self.path is not None
        place = Path(self.path)
        if place.suffix.lower() == ".npz":
            found = _read_arrays(place, class_names)
        else:
            found = _read_folder(place, class_names, cache_dir)
        if found.image_shape != image_shape:
            raise UserError(f"data.generated.path={place} holds images of {found.image_shape}, not {image_shape}")
        if self.number is None:
            return found
        if len(found) < self.number:
            raise UserError(f"data.generated.path={place} holds {len(found)} images: lower data.generated.number")
        order = torch.randperm(len(found), generator=make_rng("generated", seed))
        return found.subset(order[: self.number].sort().values)

    def check(self, generated: ImageSet | None, labelled_per_class: int | None, batch_size: int) -> None:
        """Refuse what would fail in training.

        Args:
            generated: what `load` gave, or None for none.
            labelled_per_class: of the data module.
            batch_size: of the data module.

        Raises:
            UserError: real labels are asked for where no real image is trained on, or a batch is larger than the set.
        """
        if generated is None or not self.only:
            return
        if labelled_per_class is not None:
            raise UserError(
                "data.generated.only=true trains on no real image: unset data.labelled_per_class, or set "
                "data.generated.only=false"
            )
        if len(generated) < batch_size:
            raise UserError(f"data.generated.path={self.path} has {len(generated)} images, less than data.batch_size")

    def beside(self, real: ImageSource, generated: ImageSet | None) -> ImageSource:
        """The set to train on, of real images in memory and what `load` gave."""
        if generated is None:
            return real
        if self.only:
            return generated
        assert isinstance(real, ImageSet)
        return real.joined(generated)


def write_arrays(path: Path, images: Tensor, labels: Tensor | None) -> None:
    """Write an ``.npz`` file with ``images``, (N, H, W, C) uint8, and ``labels``, (N,) int64, whole or not at all.

    Args:
        path: of the file.
        images: (N, C, H, W) uint8.
        labels: (N,) int64; None for a file without.
    """
    arrays = {"images": images.permute(0, 2, 3, 1).numpy()}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def write_class_folders(folder: Path, images: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
    """Write one PNG file for each image, into a folder named as its class.

    Args:
        folder: of all.
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        class_names: in the order of the labels.

    Raises:
        UserError: a class whose name cannot be that of a folder.
    """
    for name in class_names:
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"the class {name!r} cannot be a folder: name an .npz file as --output")
    for name in class_names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        save_png(image, folder / class_names[label] / f"{index:06d}.png")


def _read_arrays(path: Path, class_names: Sequence[str]) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"data.generated.path={path} cannot be read ({first_line(error)}): {REMEDY}") from error
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UserError(f"data.generated.path={path} has no array images of uint8 (N, H, W, C): {REMEDY}")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    if not class_names:
        return ImageSet(pixels)
    if labels is None or not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        raise UserError(f"data.generated.path={path} has no array labels of integers, one an image: {REMEDY}")
    unknown = sorted(set(labels.tolist()) - set(range(len(class_names))))
    if unknown:
        raise UserError(
            f"data.generated.path={path} has the label {unknown[0]}, but the set has the classes 0 to "
            f"{len(class_names) - 1}"
        )
    return ImageSet(pixels, torch.from_numpy(labels.astype(np.int64)))


def _read_folder(path: Path, class_names: Sequence[str], cache_dir: Path) -> ImageSet:
    if not is_image_collection(path):
        raise UserError(f"data.generated.path={path} is no folder, archive or .npz file of images: {REMEDY}")
    files = ImageFiles(path, cache_dir)
    labels = None
    if class_names:
        folders = [Path(files.records.name(index)).parent.name for index in range(len(files))]
        unknown = Counter(folders) - Counter({name: len(folders) for name in class_names})
        if unknown:
            raise UserError(
                f"data.generated.path={path} has images in the folder {min(unknown)!r}, which is none of the classes "
                f"{', '.join(class_names)}: {REMEDY}"
            )
        index = {name: label for label, name in enumerate(class_names)}
        labels = torch.tensor([index[folder] for folder in folders])
    return ImageSet(files.read(0, len(files)), labels)
