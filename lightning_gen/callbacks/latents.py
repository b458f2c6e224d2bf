"""What a frozen first stage makes of the training images: computed once, kept on disk, measured, and trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.kept_arrays import kept_array
from lightning_gen.callbacks.schedule import batch_draws, training_loader
from lightning_gen.data import ImageDataModule
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError, first_line
from lightning_gen.files import canonical_json
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import TrainsOnLatents


class FirstStageLatents(Callback):
    """Hands a model the first stage's outputs for all training images, from a file that is made once.

    The file's name holds a digest of the first stage's encoder and of the images, so a stale one is never read. Any
    number of processes may ask at once: the first computes under a lock, the others read. Before the first iteration
    the model measures its latents by them, and all ranks take rank zero's numbers. Then every batch comes with its
    images' part of the file, unless the images of an epoch are not those of the one before (augmentation, noise, random
    crops): those the model encodes as they come. Nothing happens to a model that is no
    `lightning_gen.models.capabilities.TrainsOnLatents`.

    Args:
        cache_dir: where the files are, in the folder ``latents``.
        use_cache: false has every batch encoded; what is measured stays the same.
        num_images: measure by the first so many, for sets too large for the disk; every batch is encoded then. Null for
            all.
        block_size: images encoded at once.

    Raises:
        UserError: numbers out of range.
    """

    def __init__(
        self, cache_dir: str | Path, use_cache: bool = True, num_images: int | None = None, block_size: int = 250
    ) -> None:
        if block_size < 1 or (num_images is not None and num_images < 2):
            raise UserError(
                f"callbacks.latents.block_size={block_size} must be at least 1, and num_images={num_images} null or 2"
            )
        self.folder = Path(cache_dir) / "latents"
        self.use_cache = use_cache
        self.num_images = num_images
        self.block_size = block_size
        self.moments: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read or make the file, and have the model measure its latents unless it has."""
        assert isinstance(pl_module, GenerativeModel)
        if not isinstance(pl_module, TrainsOnLatents):
            return
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        images = data.reference_set("train", self.num_images)
        found = load_moments(pl_module, images, self.folder, f"{data.name}-train", self.block_size)
        if not pl_module.measured:
            pl_module.measure_latents(self._blocks(found, pl_module.device))
            if trainer.world_size > 1:
                for buffer in pl_module.buffers(recurse=False):
                    torch.distributed.broadcast(buffer, src=0)
        if self.use_cache and data.repeats_images and training_loader(trainer).plan.lengths == [len(images)]:
            self.moments = found

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Hand over the part of the batch."""
        if self.moments is None:
            return
        assert isinstance(pl_module, TrainsOnLatents)
        (draw,) = batch_draws(trainer)
        pl_module.cached_moments = self.moments[draw.indices].to(pl_module.device)

    def _blocks(self, moments: Tensor, device: torch.device) -> Iterator[Tensor]:
        for block in moments.split(self.block_size):
            yield block.to(device)


def load_moments(model: GenerativeModel, images: ImageSet, folder: Path, name: str, block_size: int = 250) -> Tensor:
    """What the model's first stage makes of images, (N, M, h, w) float32, mapped into memory from a file in ``folder``.

    Args:
        model: that `TrainsOnLatents`.
        images: N of them, as they are trained on.
        folder: of all such files.
        name: of the set, for the file's name.
        block_size: images encoded at once.

    Raises:
        UserError: a full disk, or a folder that cannot be written.
    """
    assert isinstance(model, TrainsOnLatents)
    identity = canonical_json({"images": images.digest, "first_stage": model.moments_digest, "version": 1})
    path = folder / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.npy"
    try:
        return kept_array(path, len(images), lambda: _moments(model, images, block_size))
    except OSError as error:
        raise UserError(
            f"cannot keep the first stage's latents in {folder} ({first_line(error)}): set paths.cache_dir to a folder "
            "with room, or callbacks.latents.num_images to fewer"
        ) from error


def _moments(model: GenerativeModel, images: ImageSet, block_size: int) -> Iterator[Tensor]:
    assert isinstance(model, TrainsOnLatents)
    with model.evaluation():
        for first in range(0, len(images), block_size):
            block = to_float(images.images[first : first + block_size].to(model.device))
            yield model.moments(block.contiguous())
