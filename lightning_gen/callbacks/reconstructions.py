"""Pictures of what a model makes of images that it is given."""

from __future__ import annotations

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lightning_gen.callbacks.pictures import Pictures
from lightning_gen.images import display_scale, make_grid, save_png, to_float, to_uint8
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Reconstructs
from lightning_gen.tracking.logs import log_picture
from lightning_gen.tracking.run_directory import RunDirectory


class Reconstructions(Pictures):
    """A grid ``reconstructions/<images seen>.png``: rows of images, below each row their reconstructions.

    Args:
        run: where the files go.
        every_n_images: how often, in images seen; null for the end alone.
        split: whose first images are shown.
        num_images: how many.
        columns: images in a row.
    """

    def __init__(
        self,
        run: RunDirectory,
        every_n_images: int | None = None,
        split: str = "test",
        num_images: int = 32,
        columns: int = 16,
    ) -> None:
        super().__init__(run, every_n_images)
        self.split = split
        self.num_images = num_images
        self.columns = columns

    def draw(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Write and log the grid of a model that reconstructs."""
        if not isinstance(model, Reconstructs):
            return
        chosen = trainer.datamodule.reference_set(self.split, self.num_images)  # type: ignore[attr-defined]
        labels = None if chosen.labels is None else chosen.labels.to(model.device)
        found = to_uint8(model.reconstruct(to_float(chosen.images.to(model.device)), labels)).cpu()
        path = self.run.path / "reconstructions" / f"{model.images_seen:09d}.png"
        path.parent.mkdir(exist_ok=True)
        grid = reconstruction_grid(chosen.images, found, self.columns)
        save_png(grid, path, display_scale(chosen.images.shape[-1]))
        log_picture(trainer, "reconstructions", path, model.images_seen)


def reconstruction_grid(images: Tensor, reconstructions: Tensor, columns: int) -> Tensor:
    """One picture of images (N, C, H, W) uint8 in rows, below each row what became of them.

    Returns:
        (C, H', W') uint8; the last row is filled up with black.
    """
    columns = min(columns, len(images))
    blank = images.new_zeros((-len(images) % columns, *images.shape[1:]))
    rows = [torch.cat([each, blank]).unflatten(0, (-1, columns)) for each in (images, reconstructions)]
    return make_grid(torch.stack(rows, 1).flatten(0, 2), columns)
