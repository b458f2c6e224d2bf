"""The base of every image data module."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_gen.data.augmentation import Augmentation
from lightning_gen.data.batches import DomainBatch, ImageBatch, PairBatch, SemiSupervisedBatch
from lightning_gen.data.decoded_cache import decoded
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.generated import GeneratedImages
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.data.labels import choose_classes, class_index, class_law, labelled_subset, with_others_hidden
from lightning_gen.data.loaders import Columns, InMemoryLoader, OrderedLoader, StreamingLoader, TrainingLoader
from lightning_gen.data.plan import BatchPlan
from lightning_gen.data.residency import Residency, check_residency, choose_residency, draws_anew
from lightning_gen.data.workers import default_workers
from lightning_gen.errors import UserError
from lightning_gen.images import dequantize, to_float
from lightning_gen.seeds import make_rng

log = logging.getLogger(__name__)

Batch = ImageBatch | PairBatch | DomainBatch | SemiSupervisedBatch


class ImageDataModule(pl.LightningDataModule):
    """Images of one shape in train, validation and test splits.

    A subclass sets the attributes below and loads its images in `load`. Training batches are shuffled and augmented;
    `reference_set`, against which samples are scored, and the batches for evaluation never are.

    Args:
        data_dir: where downloaded sets are kept.
        cache_dir: where decoded images are kept.
        batch_size: images in a batch of one process.
        image_size: height and width of the images.
        seed: of the training order, augmentation and labelled subset (the run's seed).
        validation_share: share of the training images, in [0, 1), held out as the split ``val``.
        split_seed: of the draws that make splits; one number for all runs, so that their scores can be compared.
        residency: where training images are drawn from: ``device`` or ``memory`` (decoded once), ``stream`` (decoded
            in every epoch by workers), or ``auto``: the first of these in which they take less than a quarter of what
            is free.
        num_workers: processes that decode; None for this process's share of the cores.
        augmentation: options of `lightning_gen.data.augmentation.Augmentation`; None for none.
        dequantize: add uniform noise of one grey level to training images (see `lightning_gen.images.dequantize`).
        labelled_per_class: for semi-supervised training, images of each class that keep their label; None for all.
        labelled_batch_size: of the labelled images in a semi-supervised batch; None for ``batch_size``.
        classes: names or numbers of the classes that are kept in all splits, which become the labels 0, 1, ... in this
            order; None for all.
        generated: options of `lightning_gen.data.generated.GeneratedImages`, which are trained on beside the real
            images or in their place; None for none.

    Attributes:
        name: of the set, for records and file names.
        all_class_names: names of the set's classes in the order of the labels that `load` gives; empty for a set
            without.
        image_channels: C of the images that a model learns to make.
        splits: what `load` can read.
        training_splits: those of them that a training batch draws from.
    """

    splits: Sequence[str] = ("train", "test")
    training_splits: Sequence[str] = ("train",)
    name: str
    all_class_names: Sequence[str] = ()
    image_channels: int

    def __init__(
        self,
        data_dir: str,
        cache_dir: str = ".cache",
        batch_size: int = 64,
        image_size: int = 32,
        seed: int = 0,
        validation_share: float = 0.0,
        split_seed: int = 0,
        residency: Residency = "auto",
        num_workers: int | None = None,
        augmentation: Mapping[str, Any] | None = None,
        dequantize: bool = False,
        labelled_per_class: int | None = None,
        labelled_batch_size: int | None = None,
        classes: Sequence[str | int] | None = None,
        generated: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if image_size < 1:
            raise UserError(f"data.image_size must be at least 1, not {image_size}")
        if not 0 <= validation_share < 1:
            raise UserError(f"data.validation_share must be in [0, 1), not {validation_share}")
        check_residency(residency)
        if num_workers is not None and num_workers < 0:
            raise UserError(f"data.num_workers must be at least 0, not {num_workers}")
        if classes is not None and (not classes or isinstance(classes, str)):
            raise UserError(f"data.classes must be null or a list such as [0,1], not {classes!r}")
        self.data_dir = Path(data_dir)
        self.cache_dir = Path(cache_dir)
        self.batch_size = batch_size
        self.image_size = image_size
        self.seed = seed
        self.validation_share = validation_share
        self.split_seed = split_seed
        self.residency = residency
        self.num_workers = num_workers
        self.augmentation = Augmentation(**augmentation or {})
        self.augmentation.check(image_size)
        self.dequantize = dequantize
        self.labelled_per_class = labelled_per_class
        self.labelled_batch_size = labelled_batch_size or batch_size
        self.classes = classes
        self.generated = GeneratedImages(**generated or {})
        self._splits: dict[str, ImageSource] = {}
        self._labelled: Tensor | None = None
        self._generated_set: ImageSet | None = None
        self._training_loader: TrainingLoader | None = None

    @abstractmethod
    def load(self, split: str) -> ImageSource:
        """Read one of ``splits``, downloading it first if it is not at hand.

        Raises:
            UserError: the files are missing or damaged; the message names the file and the remedy.
        """

    @property
    def kept_labels(self) -> list[int] | None:
        """Labels, as `load` gives them, of ``classes`` in their order; None for all.

        Raises:
            UserError: a set without classes, an unknown class, or one named twice.
        """
        if self.classes is None:
            return None
        if not self.all_class_names:
            raise UserError(f"{self.name} has no classes to choose from: unset data.classes")
        labels = [class_index(str(each), self.all_class_names, "data.classes: ") for each in self.classes]
        if len(set(labels)) < len(labels):
            raise UserError(f"data.classes={list(self.classes)} names a class twice")
        return labels

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes in the order of the labels; empty for a set without."""
        kept = self.kept_labels
        return self.all_class_names if kept is None else [self.all_class_names[label] for label in kept]

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for a set without."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that a model learns to make."""
        return self.image_channels, self.image_size, self.image_size

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images of `split`."""
        return self.image_shape

    @property
    def repeats_images(self) -> bool:
        """Whether a training image is one image of the split ``train``, and the same in every epoch, to the bit."""
        changed = self.augmentation.changes_images or self.dequantize or self.stored_shape != self.image_shape
        return not changed and self.generated.path is None and not draws_anew(self.split("train"))

    @property
    def label_law(self) -> list[float] | None:
        """The share of each class among the training images, from which conditional models draw labels."""
        labels = self.split("train").labels
        return None if labels is None else class_law(labels, self.num_classes)

    @property
    def labelled_indices(self) -> Tensor | None:
        """(M,) int64 training images that keep their label, or None where all do; may be set, to go on with a run's."""
        if self._labelled is None and self.labelled_per_class is not None:
            labels = self.split("train").labels
            if labels is None:
                raise UserError(f"{self.name} has no classes: unset data.labelled_per_class")
            self._labelled = labelled_subset(labels, self.num_classes, self.labelled_per_class, self.seed)
        return self._labelled

    @labelled_indices.setter
    def labelled_indices(self, indices: Tensor) -> None:
        self._labelled = indices

    @property
    def generated_set(self) -> ImageSet | None:
        """The generated images that are trained on, with their classes as labels; None without any.

        Raises:
            UserError: see `lightning_gen.data.generated.GeneratedImages.load`.
        """
        if self._generated_set is None and self.generated.path is not None:
            self._generated_set = self.generated.load(self.stored_shape, self.class_names, self.cache_dir, self.seed)
        return self._generated_set

    def split(self, name: str) -> ImageSource:
        """The images of ``val``, a part of the loaded training images, or of one of ``splits``, read once.

        Raises:
            UserError: no such split, or what `load` raises.
        """
        if name not in self._splits:
            if name == "val" and not self.validation_share:
                raise UserError(f"{self.name} has no split 'val': set data.validation_share")
            if name in ("train", "val"):
                self._splits |= self._hold_out(self._of_kept_classes(self.load("train")))
            elif name in self.splits:
                self._splits[name] = self._of_kept_classes(self.load(name))
            else:
                raise UserError(f"{self.name} has no split {name!r}, but {', '.join(self.splits)}")
        return self._splits[name]

    def check(self) -> None:
        """Raise UserError for what would fail in training: images of another shape, too few, too few labelled."""
        train = self.split("train")
        if train.image_shape != self.stored_shape:
            raise UserError(f"{self.name} holds images of {train.image_shape}, not {self.stored_shape}")
        if len(train) < self.batch_size:
            raise UserError(f"{self.name} has {len(train)} training images, less than data.batch_size")
        _ = self.labelled_indices
        self.generated.check(self.generated_set, self.labelled_per_class, self.batch_size)

    def reference_set(self, split: str, number: int | None = None) -> ImageSet:
        """The images that samples are scored against: in order, never shuffled, augmented or padded.

        Args:
            split: of the set.
            number: only so many, from the first; None for all.
        """
        source = self.split(split)
        if isinstance(source, ImageSet):
            return source.first(number)
        if number is not None and number < len(source):
            source = source.subset(torch.arange(number))
        return self.in_memory(source, split)

    def in_memory(self, source: ImageSource, split: str) -> ImageSet:
        """A split, or a part of it, decoded once into the cache and mapped into memory."""
        if isinstance(source, ImageSet):
            return source
        assert isinstance(source, EncodedSet)
        return decoded(source, self.cache_dir / "decoded", f"{self.name}-{split}", self.workers())

    def training_sources(self) -> list[ImageSource]:
        """The sets that a training batch draws from; the first has the images that a model learns to make.

        Generated images come after the real ones, with their labels, in each.
        """
        train = self.split("train")
        chosen = self.labelled_indices
        if chosen is None:
            return [self.generated.beside(train, self.generated_set)]
        assert train.labels is not None
        whole = train.with_labels(with_others_hidden(train.labels, chosen))
        return [self.generated.beside(source, self.generated_set) for source in (whole, train.subset(chosen))]

    def batch_sizes(self) -> list[int]:
        """How many images a batch draws from each of the `training_sources`, which may be fewer."""
        return [self.batch_size, self.labelled_batch_size]

    def assemble(self, columns: Columns) -> Batch:
        """What a model gets, from float images of each of the `training_sources`, or of a split for evaluation."""
        if len(columns) == 1:
            return columns[0]
        everything, labelled = columns
        assert everything.labels is not None
        assert labelled.labels is not None
        return SemiSupervisedBatch(everything.images, everything.labels, labelled.images, labelled.labels)

    def train_dataloader(self) -> TrainingLoader:
        """Shuffled batches of this rank."""
        rank, world_size, device = self._place()
        residency = choose_residency(self.residency, [self.split(name) for name in self.training_splits], device)
        if residency == "stream" and self.generated.path is not None:
            raise UserError("data.generated is trained on from memory: set data.residency=memory")
        if residency != "stream":
            for name in self.training_splits:
                self._splits[name] = self._decode_training_split(name)
        sources = self.training_sources()
        sizes = self.batch_sizes()[: len(sources)]
        plan = BatchPlan(list(map(len, sources)), sizes, seed=self.seed, rank=rank, world_size=world_size)
        if residency == "stream":
            pin_memory = device.type == "cuda"
            self._training_loader = StreamingLoader(sources, plan, self.workers(), pin_memory=pin_memory)
        else:
            sets = [source for source in sources if isinstance(source, ImageSet)]
            sets = [images.to(device) for images in sets] if residency == "device" else sets
            self._training_loader = InMemoryLoader(sets, plan)
        return self._training_loader

    def teardown(self, stage: str) -> None:
        """Stop the workers that decode for training, and say how many images they skipped."""
        del stage
        if self._training_loader is not None:
            self._training_loader.close()
            self._training_loader = None
            for name in self.training_splits:
                source = self.split(name)
                whole = source.undamaged() if isinstance(source, EncodedSet) else source
                if len(whole) < len(source):
                    skipped = f"{len(source) - len(whole)} of {len(source)}"
                    log.warning("%s-%s: %s images were damaged and skipped", self.name, name, skipped)

    def val_dataloader(self) -> Any:
        """Batches of ``val`` in order, each image once over all ranks; none without ``validation_share``."""
        return self.ordered_batches("val") if self.validation_share else []

    def test_dataloader(self) -> OrderedLoader:
        """Batches of ``test`` in order, each image once over all ranks."""
        return self.ordered_batches("test")

    def ordered_batches(self, split: str) -> OrderedLoader:
        """Batches of a split in order, each image once over all ranks, neither augmented nor padded."""
        rank, world_size, device = self._place()
        return OrderedLoader(
            self.split(split),
            self.batch_size,
            rank=rank,
            world_size=world_size,
            num_workers=self.workers(),
            pin_memory=device.type == "cuda",
        )

    def on_after_batch_transfer(self, batch: Columns, dataloader_idx: int) -> Batch:
        """Turn uint8 images into float32 in [-1, 1] on their device; augment those that are trained on."""
        del dataloader_idx
        # Decoders leave the channels last; models get one layout, and so the same bits, wherever images come from.
        batch = tuple(column._replace(images=column.images.contiguous()) for column in batch)
        if self.trainer is None or not self.trainer.training:
            return self.assemble(tuple(column._replace(images=to_float(column.images)) for column in batch))
        # Drawn afresh from the position in training: ranks differ, and a resumed run draws the same.
        position = (self.seed, self.trainer.global_rank, self.trainer.global_step)
        columns = []
        for index, column in enumerate(batch):
            if self.dequantize:
                noise = make_rng("dequantize", *position, index, device=column.images.device)
                images = dequantize(column.images, noise)
            else:
                images = to_float(column.images)
            images = self.augmentation(images, make_rng("augmentation", *position, index))
            columns.append(column._replace(images=images))
        return self.assemble(tuple(columns))

    def workers(self) -> int:
        """Processes that decode for this one."""
        if self.num_workers is not None:
            return self.num_workers
        return default_workers(1 if self.trainer is None else self.trainer.num_devices)

    def _of_kept_classes(self, source: ImageSource) -> ImageSource:
        kept = self.kept_labels
        if kept is None:
            return source
        assert source.labels is not None
        chosen = choose_classes(source.labels, kept)
        return source.subset(chosen.indices).with_labels(chosen.labels)

    def _hold_out(self, train: ImageSource) -> dict[str, ImageSource]:
        held_out = round(len(train) * self.validation_share)
        if not held_out:
            return {"train": train}
        order = torch.randperm(len(train), generator=make_rng("validation", self.split_seed))
        val, kept = order[:held_out].sort().values, order[held_out:].sort().values
        return {"val": train.subset(val), "train": train.subset(kept)}

    def _decode_training_split(self, name: str) -> ImageSet:
        source = self.split(name)
        if draws_anew(source):
            raise UserError("data.crop=random is drawn anew in every epoch: set data.residency=stream")
        images = self.in_memory(source, name)
        if len(images) < len(source) and self._labelled is not None:
            raise UserError(
                f"{len(source) - len(images)} damaged images were skipped, so data.labelled_per_class would label "
                "others: remove them, or set data.residency=stream"
            )
        return images

    def _place(self) -> tuple[int, int, torch.device]:
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        return self.trainer.global_rank, self.trainer.world_size, self.trainer.strategy.root_device
