"""The base of data modules with two domains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lightning_gen.data.batches import PairBatch
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.data.loaders import Columns
from lightning_gen.data.module import Batch, ImageDataModule
from lightning_gen.errors import UserError


class Canonical(NamedTuple):
    """How images of a domain become those that the extractors and classifiers of the set know.

    Attributes:
        name: part of the protocol of scores that see them so.
        apply: float images (N, C, H, W) in [-1, 1] to such.
    """

    name: str
    apply: Callable[[Tensor], Tensor]


class PairDataModule(ImageDataModule):
    """Images of domain A, the input, and domain B, the output of a translation; batches are `PairBatch`.

    What a data module offers elsewhere (`image_shape`, `reference_set`, ``class_names``) is that of domain B.

    Attributes:
        input_channels: C of domain A.
        paired: whether the images of a row belong together.
    """

    input_channels: int
    paired = True

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of domain A."""
        return self.input_channels, self.image_size, self.image_size

    @abstractmethod
    def input_set(self, split: str, number: int | None = None) -> ImageSet:
        """The images of domain A, in order, as `reference_set` gives those of domain B."""

    def domain_set(self, domain: str, split: str, number: int | None = None) -> ImageSet:
        """The images of domain ``A`` or ``B``, in order."""
        return (self.input_set if domain == "A" else self.reference_set)(split, number)

    def domain_size(self, domain: str, split: str) -> int:
        """How many images a split of domain ``A`` or ``B`` has, none of them read."""
        del domain
        return len(self.split(split))

    def canonical(self, domain: str) -> Canonical | None:
        """How images of domain ``A`` or ``B`` are shown to the extractors of scores; None for as they are."""
        del domain
        return None

    def check(self) -> None:
        """Raise UserError for what would fail in training."""
        if self.labelled_per_class is not None:
            raise UserError(f"{self.name} is a set of pairs: unset data.labelled_per_class")
        if self.generated.path is not None:
            raise UserError(f"{self.name} is a set of pairs: unset data.generated.path")
        super().check()


class UnpairedDataModule(PairDataModule):
    """Two sets of unrelated images: splits ``train`` and ``test`` are domain B, ``train_a`` and ``test_a`` domain A.

    An epoch is one pass over the larger set; the smaller one is drawn from again and again.
    """

    paired = False
    splits = ("train", "test", "train_a", "test_a")
    training_splits = ("train", "train_a")

    def training_sources(self) -> list[ImageSource]:
        """Domain B and domain A."""
        return [self.split(name) for name in self.training_splits]

    def assemble(self, columns: Columns) -> Batch:
        """A batch of both domains; batches for evaluation are of the one that was asked for."""
        if len(columns) == 1:
            return columns[0]
        b, a = columns
        return PairBatch(a.images, b.images, a.labels, b.labels)

    def input_set(self, split: str, number: int | None = None) -> ImageSet:
        """The images of domain A, in order."""
        return self.reference_set(f"{split}_a", number)

    def domain_size(self, domain: str, split: str) -> int:
        """How many images a split of domain ``A`` or ``B`` has, none of them read."""
        return len(self.split(f"{split}_a" if domain == "A" else split))
