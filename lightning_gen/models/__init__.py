from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.checkpoints import load_model, read_checkpoint

__all__ = ["GenerativeModel", "ImageBatch", "load_model", "read_checkpoint"]
