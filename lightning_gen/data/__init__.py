from lightning_gen.data.image_set import ImageBatch, ImageSet
from lightning_gen.data.in_memory import InMemoryLoader
from lightning_gen.data.module import ImageDataModule

__all__ = ["ImageBatch", "ImageDataModule", "ImageSet", "InMemoryLoader"]
