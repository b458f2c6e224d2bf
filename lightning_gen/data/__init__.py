from lightning_gen.data.batches import DomainBatch, ImageBatch, PairBatch, SemiSupervisedBatch
from lightning_gen.data.image_set import ImageSet, ImageSource
from lightning_gen.data.module import ImageDataModule
from lightning_gen.data.pairs import PairDataModule

__all__ = [
    "DomainBatch",
    "ImageBatch",
    "ImageDataModule",
    "ImageSet",
    "ImageSource",
    "PairBatch",
    "PairDataModule",
    "SemiSupervisedBatch",
]
