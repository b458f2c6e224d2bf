"""Grids of translations: the same test images through all of training."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import pad

from lightning_gen.callbacks.pictures import Pictures
from lightning_gen.callbacks.translated import BACK, SPLIT, domains
from lightning_gen.data.pairs import PairDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import display_scale, make_grid, save_png, to_float, to_uint8, with_channels
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Translates
from lightning_gen.seeds import make_rng
from lightning_gen.tracking.logs import log_picture
from lightning_gen.tracking.run_directory import RunDirectory

FRAME = 200
"""Grey level of the lines around images, which show between dark images and between white ones."""


class TranslationGrid(Pictures):
    """Test images beside their translations: input, output, target of a paired set, and back where the model can.

    Written to ``samples/<images seen>.png``, and to ``samples/<images seen>_BtoA.png`` for the other direction.

    Args:
        run: where the files go.
        every_n_images: how often, in images seen; null for the end alone.
        seed: of the model's noise, which stays the same through training.
        num_samples: test images in the grid, the first ones.
        columns: how many of them stand side by side.
    """

    def __init__(
        self,
        run: RunDirectory,
        every_n_images: int | None = None,
        seed: int = 0,
        num_samples: int = 12,
        columns: int = 3,
    ) -> None:
        if num_samples < 1 or columns < 1:
            raise UserError(
                f"callbacks.samples: num_samples and columns must be at least 1, not {num_samples} and {columns}"
            )
        super().__init__(run, every_n_images, seed)
        self.num_samples = num_samples
        self.columns = columns
        self._images: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the images at hand."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, Translates) or not isinstance(data, PairDataModule):
            raise UserError(f"{type(pl_module).__name__} does not translate: set callbacks=default")
        if trainer.is_global_zero:
            self._images = {domain: data.domain_set(domain, SPLIT, self.num_samples).images for domain in "AB"}
            self._paired = data.paired

    def draw(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Write and log a grid of each direction."""
        assert isinstance(model, Translates)
        for direction in model.directions:
            source, target = domains(direction)
            suffix = "" if direction == "AtoB" else f"_{direction}"
            targets = self._images[target] if self._paired else None
            examples = translation_examples(model, direction, self._images[source], targets, self.seed)
            path = self.run.samples / f"{model.images_seen:09d}{suffix}.png"
            scale = display_scale(self._images[source].shape[-1])
            save_png(make_grid(examples, self.columns, padding=0), path, scale)
            log_picture(trainer, f"samples{suffix}", path, model.images_seen)


def translation_examples(
    model: GenerativeModel, direction: str, inputs: Tensor, targets: Tensor | None, seed: int = 0
) -> Tensor:
    """Rows of images that belong together: input, output, target if there is one, and back if the model can.

    Args:
        model: one that translates, in evaluation mode.
        direction: ``AtoB`` or ``BtoA``.
        inputs: (N, C, H, W) uint8.
        targets: (N, C', H, W) uint8, or None.
        seed: of the model's noise.

    Returns:
        (N, C'', H', W') uint8, of three channels if any image has, with lines of two pixels between images and around.
    """
    assert isinstance(model, Translates)
    rng = make_rng("translation grid", seed, direction)
    shown = []
    for index, image in enumerate(inputs.split(1)):
        first = to_float(image.to(model.device))
        output = model.translate(first, direction, generator=rng)
        row = [first, output]
        if targets is not None:
            row.append(to_float(targets[index : index + 1].to(model.device)))
        if BACK[direction] in model.directions:
            row.append(model.translate(output, BACK[direction], generator=rng))
        channels = max(each.shape[1] for each in row)
        pixels = torch.cat([to_uint8(with_channels(each, channels)) for each in row])
        framed = pad(pixels.cpu(), [1, 1, 1, 1], value=FRAME)
        shown.append(pad(make_grid(framed, len(row), padding=0), [1, 1, 1, 1], value=FRAME))
    return torch.stack(shown)
