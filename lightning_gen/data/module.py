"""The base of every image data module."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import pytorch_lightning as pl
import torch

from lightning_gen.data.image_set import ImageBatch, ImageSet
from lightning_gen.data.in_memory import InMemoryLoader
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.seeds import make_rng

Residency = Literal["auto", "device", "memory"]


class ImageDataModule(pl.LightningDataModule):
    """Images of one shape in train, validation and test splits.

    A subclass sets the class attributes and loads its images in `load`. Training batches are shuffled and may be
    augmented; `reference_set`, against which samples are scored, never is.

    Args:
        data_dir: where downloaded sets are kept.
        batch_size: images in a batch of one process.
        image_size: height and width of the images.
        seed: of the training order (the run's seed).
        validation_share: share of the training images, in [0, 1), held out as the split ``val``.
        split_seed: of the draws that make splits; one number for all runs, so that their scores can be compared.
        residency: where training images live: ``device``, ``memory``, or ``auto``: on the device if they take less
            than a quarter of its free memory.

    Attributes:
        name: of the set, for records.
        num_classes: number of classes, 0 for a set without.
        class_names: their names, in the order of the labels.
        image_channels: C.
    """

    name: str
    class_names: ClassVar[tuple[str, ...]]
    image_channels: ClassVar[int]

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 64,
        image_size: int = 32,
        seed: int = 0,
        validation_share: float = 0.0,
        split_seed: int = 0,
        residency: Residency = "auto",
    ) -> None:
        super().__init__()
        if image_size < 1:
            raise UserError(f"data.image_size must be at least 1, not {image_size}")
        if not 0 <= validation_share < 1:
            raise UserError(f"data.validation_share must be in [0, 1), not {validation_share}")
        if residency not in ("auto", "device", "memory"):
            raise UserError(f"data.residency must be auto, device or memory, not {residency!r}")
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.image_size = image_size
        self.seed = seed
        self.validation_share = validation_share
        self.split_seed = split_seed
        self.residency = residency
        self._splits: dict[str, ImageSet] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for a set without."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.image_channels, self.image_size, self.image_size

    @abstractmethod
    def load(self, split: Literal["train", "test"]) -> ImageSet:
        """Read one split, downloading it first if it is not at hand.

        Raises:
            UserError: the files are missing or damaged; the message names the file and the remedy.
        """

    def split(self, name: str) -> ImageSet:
        """The images of ``train``, ``test`` or ``val``, read once; ``val`` is a part of the loaded training images.

        Raises:
            UserError: no such split, or what `load` raises.
        """
        if not self._splits:
            train = self.load("train")
            order = torch.randperm(len(train), generator=make_rng("validation", self.split_seed))
            held_out = round(len(train) * self.validation_share)
            if held_out:
                self._splits["val"] = train.subset(order[:held_out].sort().values)
                train = train.subset(order[held_out:].sort().values)
            self._splits["train"] = train
        if name == "test" and name not in self._splits:
            self._splits["test"] = self.load("test")
        if name not in self._splits:
            raise UserError(f"{self.name} has no split {name!r}: use train or test, or set data.validation_share")
        return self._splits[name]

    def reference_set(self, split: str) -> ImageSet:
        """The images of a split as they are, for scoring: never shuffled, augmented or padded."""
        return self.split(split)

    def train_dataloader(self) -> InMemoryLoader:
        """Shuffled batches of this rank."""
        images = self.split("train")
        rank, world_size, device = 0, 1, torch.device("cpu")
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            device = self.trainer.strategy.root_device
        if self._keep_on(device, images):
            images = images.to(device)
        return InMemoryLoader(images, self.batch_size, seed=self.seed, rank=rank, world_size=world_size)

    def on_after_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """Turn uint8 images into float32 in [-1, 1], on the training device."""
        del dataloader_idx
        return batch._replace(images=to_float(batch.images))

    def _keep_on(self, device: torch.device, images: ImageSet) -> bool:
        if self.residency == "auto":
            if device.type != "cuda":
                return False
            free, _ = torch.cuda.mem_get_info(device)
            return images.images.nbytes < free / 4
        return self.residency == "device"
