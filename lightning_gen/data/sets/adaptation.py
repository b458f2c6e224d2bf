"""A labelled source domain and a target domain whose labels are not given, of any set: domain adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen.data.batches import DomainBatch
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.data.labels import class_law, with_others_hidden
from lightning_gen.data.loaders import Columns
from lightning_gen.data.module import Batch
from lightning_gen.data.pairs import Canonical, PairDataModule
from lightning_gen.data.sets.cifar import CIFAR10DataModule
from lightning_gen.data.sets.derived import NEGATIVE, HalvesDataModule
from lightning_gen.data.textures import coloured, divide, photo_squares, textured
from lightning_gen.errors import UserError
from lightning_gen.images import with_channels
from lightning_gen.seeds import make_rng

DOMAINS = ("inverted", "coloured", "textured")
TEXTURES = ("sample_images", "cifar10")


class AdaptationDataModule(HalvesDataModule):
    """Source: every other image of a set. Target: the other images, changed, of which none or few labels are given.

    Domain B is the target: its splits are ``train``, ``val`` and ``test``; those of domain A, the source, are
    ``train_a`` and ``test_a``. The change of an image is drawn from (split_seed, split, place of the image), so that
    the set is one and the same in every epoch, process and run. Textures of ``train``, ``val`` and ``test`` come from
    different pictures. Grey source images are repeated to the target's channels.

    Training batches are `PairBatch`, so that translations can be trained on them too, and labels of the target are
    `UNLABELLED` in them, but for those that ``labelled_per_class`` keeps; the images that keep theirs are handed out
    beside the others, in a `DomainBatch`.

    Args:
        data_dir: where downloaded sets are kept.
        source: spec of the set, which has classes.
        domain: the change: ``inverted``, ``coloured`` (two random colours for each image; grey sets) or ``textured``
            (as MNIST-M).
        textures: where textures are cut from: ``sample_images``, the photographs of scikit-learn, or ``cifar10``, its
            training images.
        labelled_per_class: target images of each class that keep their label: 0 for none, None for all. All source
            images keep theirs.
        options: those of `ImageDataModule`.

    Raises:
        UserError: unknown names, a set without classes, or a coloured set that is to be coloured.
    """

    def __init__(
        self,
        data_dir: str,
        source: Mapping[str, Any],
        domain: Literal["inverted", "coloured", "textured"] = "textured",
        textures: Literal["sample_images", "cifar10"] = "sample_images",
        labelled_per_class: int | None = 0,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, source, labelled_per_class=labelled_per_class, **options)
        if domain not in DOMAINS:
            raise UserError(f"data.domain must be one of {', '.join(DOMAINS)}, not {domain!r}")
        if textures not in TEXTURES:
            raise UserError(f"data.textures must be one of {', '.join(TEXTURES)}, not {textures!r}")
        if not self.source.class_names:
            raise UserError(f"data.source={self.source.name} has no classes to adapt: name a set with classes")
        if labelled_per_class is not None and labelled_per_class < 0:
            raise UserError(f"data.labelled_per_class must be at least 0, not {labelled_per_class}")
        if domain == "coloured" and self.source.image_channels != 1:
            raise UserError(f"{self.source.name} is not grey and cannot be coloured: set data.domain to another")
        self.domain = domain
        self.textures = textures
        cut_from = "cifar10_" if domain == "textured" and textures == "cifar10" else ""
        self.name = f"{cut_from}{domain}_{self.source.name}"
        self.image_channels = self.input_channels = self.source.image_channels if domain == "inverted" else 3
        if labelled_per_class == 0:
            self._labelled = torch.zeros(0, dtype=torch.int64)

    @property
    def label_law(self) -> list[float] | None:
        """The share of each class among the source's training images: those of the target are not to be known."""
        labels = self.split("train_a").labels
        assert labels is not None
        return class_law(labels, self.num_classes)

    def check(self) -> None:
        """Raise UserError for what would fail in training."""
        # Few labels, which other pairs of domains refuse, are what this set is for.
        super(PairDataModule, self).check()

    def load(self, split: str) -> ImageSource:
        """One domain's images of a split; those of ``train`` are changed once it is known which are held out."""
        half = self.half(split)
        if split == "train":
            return half
        if split.endswith("_a"):
            return ImageSet(with_channels(half.images, self.image_channels).contiguous(), half.labels)
        return self._changed(half, split, range(len(half)))

    def replace_source(self, images: ImageSet) -> None:
        """Train on other images in the place of the source's training images, translations of them for one.

        Args:
            images: as many, in the same order and of the same shape, with the same labels.
        """
        assert (len(images), images.image_shape) == (len(self.split("train_a")), self.image_shape)
        self._splits["train_a"] = images

    def training_sources(self) -> list[ImageSource]:
        """The target with hidden labels, the source, and the part of the target that keeps its labels, if there is."""
        target, source = super().training_sources()
        chosen = self.labelled_indices
        if chosen is None:
            return [target, source]
        assert target.labels is not None
        hidden = target.with_labels(with_others_hidden(target.labels, chosen))
        return [hidden, source, target.subset(chosen)] if len(chosen) else [hidden, source]

    def batch_sizes(self) -> list[int]:
        """As many images of both domains; then those with labels of the target."""
        return [self.batch_size, self.batch_size, self.labelled_batch_size]

    def assemble(self, columns: Columns) -> Batch:
        """A batch of both domains; batches for evaluation are of the one that was asked for."""
        if len(columns) < 3:
            return super().assemble(columns)
        b, a, labelled = columns
        assert a.labels is not None
        assert b.labels is not None
        assert labelled.labels is not None
        return DomainBatch(a.images, b.images, a.labels, b.labels, labelled.images, labelled.labels)

    def canonical(self, domain: str) -> Canonical | None:
        """Negatives are inverted back; the other changes cannot be undone."""
        return NEGATIVE if domain == "B" and self.domain == "inverted" else None

    def _hold_out(self, train: ImageSource) -> dict[str, ImageSource]:
        assert isinstance(train, ImageSet)
        # Places take the labels' place, so that an image is changed alike whatever is held out.
        places = super()._hold_out(train.with_labels(torch.arange(len(train))))
        changed = {}
        for split, part in places.items():
            assert isinstance(part, ImageSet)
            assert part.labels is not None
            changed[split] = self._changed(train.subset(part.labels), split, part.labels.tolist())
        return changed

    def _changed(self, images: ImageSet, split: str, places: range | list[int]) -> ImageSource:
        return ImageSet(self._change(images.images, split, places), images.labels)

    def _change(self, images: Tensor, split: str, places: range | list[int]) -> Tensor:
        """Images of the target domain, uint8, of those of the set in these places of a split."""
        if self.domain == "inverted":
            return 255 - images
        rngs = [make_rng(self.domain, self.split_seed, split, place) for place in places]
        if self.domain == "coloured":
            return coloured(images, rngs)
        pictures = self._pictures
        return textured(images, pictures[divide(len(pictures), self.split_seed)[split]], rngs)

    @cached_property
    def _pictures(self) -> Tensor:
        """What textures are cut from (T, 3, S, S) uint8."""
        if self.textures == "sample_images":
            return photo_squares()
        photos = CIFAR10DataModule(str(self.data_dir), str(self.cache_dir)).reference_set("train")
        return photos.images
