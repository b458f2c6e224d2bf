"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from lightning_gen.data.downloads import download_once, first_damaged
from lightning_gen.data.formats.decoding import decode_image, resize
from lightning_gen.data.formats.parquet import image_records, label_column, read_tables
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.errors import UserError

SHAPE = (3, 32, 32)
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 in ten classes.

    Read from the published pickles in ``data_dir/cifar-10-batches-py``, verified by torchvision; from
    ``data_dir/cifar10/{train,test}.parquet`` in the hub's layout where those are there instead; otherwise downloaded.
    Other sizes than 32 are resized by bicubic filtering.
    """

    name = "cifar10"
    all_class_names: Sequence[str] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    image_channels = 3
    published: ClassVar[type[CIFAR10]] = CIFAR10
    parquet_columns: ClassVar[tuple[str, str]] = ("img", "label")

    def load(self, split: str) -> ImageSet:
        """Read one split."""
        parquet = self.data_dir / self.name
        pickles = self.data_dir / self.published.base_folder
        if not pickles.is_dir() and any(parquet.glob("*.parquet")):
            images = self._read_parquet(parquet, split)
        else:
            download_once(
                self.published.__name__,
                self.data_dir,
                lambda: all((pickles / file).is_file() for file, _ in self._checksums()),
                lambda folder: self.published(folder, download=True),
                self.published.url,
            )
            images = self._read_pickles(pickles, split)
        return ImageSet(resize(images.images, self.image_size, self.image_size), images.labels)

    def _checksums(self) -> list[tuple[str, str]]:
        files = [(file, md5) for file, md5 in self.published.train_list + self.published.test_list]
        return [*files, (self.published.meta["filename"], self.published.meta["md5"])]

    def _read_pickles(self, folder: Path, split: str) -> ImageSet:
        try:
            # torchvision unpickles nothing whose checksum is not the published one.
            published = self.published(self.data_dir, train=split == "train")
        except RuntimeError as error:
            damaged = first_damaged(folder, self._checksums())
            raise UserError(
                f"{damaged} is not the published file: delete it and run again to download it anew"
            ) from error
        pixels = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()
        return ImageSet(pixels, torch.tensor(published.targets))

    def _read_parquet(self, folder: Path, split: str) -> ImageSet:
        table = read_tables(folder, split)
        image_column, column = self.parquet_columns
        records = image_records(table, image_column, str(folder / f"{split}.parquet"))
        labels, _ = label_column(table, column, str(folder), list(self.all_class_names))
        images = torch.empty(len(records), *SHAPE, dtype=torch.uint8)
        for index in range(len(records)):
            pixels = decode_image(records.read(index), records.name(index), 3)
            if pixels.shape != SHAPE:
                raise UserError(f"{records.name(index)} is {tuple(pixels.shape)}, not {SHAPE}: download it again")
            images[index] = pixels
        return ImageSet(images, labels)


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100 (Krizhevsky 2009): the same format with 100 fine classes, in ``data_dir/cifar-100-python``."""

    name = "cifar100"
    published = CIFAR100
    parquet_columns = ("img", "fine_label")
    all_class_names = tuple(CIFAR100_CLASSES.split())
