"""Pictures of what a model makes: sample grids and walks through the latent space."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.schedule import EveryImages
from lightning_gen.images import display_scale, make_grid, save_gif, save_png, to_uint8
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import Latents, Samples
from lightning_gen.seeds import make_rng
from lightning_gen.tracking.logs import log_picture
from lightning_gen.tracking.run_directory import RunDirectory

WIDEST = 16
"""Most classes that a grid shows as columns."""


class Pictures(Callback):
    """Draws on rank zero at a period and at the end, with the averaged weights, leaving training untouched.

    Args:
        run: where the files go.
        every_n_images: how often, in images seen; null for the end alone.
        seed: of the latents, which stay the same through training.
    """

    def __init__(self, run: RunDirectory, every_n_images: int | None = None, seed: int = 0) -> None:
        self.run = run
        self.every = EveryImages(every_n_images)
        self.seed = seed

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Draw if it is time."""
        assert isinstance(pl_module, GenerativeModel)
        if trainer.is_global_zero and self.every.due(trainer, pl_module):
            with pl_module.evaluation():
                self.draw(trainer, pl_module)

    @abstractmethod
    def draw(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Write and log the pictures of a model that is in evaluation mode, if it has what they need."""


class SampleGrid(Pictures):
    """A grid of samples from fixed latents, a column for each class of a conditional model of up to `WIDEST` classes.

    Written to ``samples/<images seen>.png``.

    Args:
        run: where the files go.
        every_n_images: how often, in images seen; null for the end alone.
        seed: of the latents, which stay the same through training.
        num_samples: images in the grid.
    """

    def __init__(
        self, run: RunDirectory, every_n_images: int | None = None, seed: int = 0, num_samples: int = 64
    ) -> None:
        super().__init__(run, every_n_images, seed)
        self.num_samples = num_samples

    def draw(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Write and log the grid of a model that can sample."""
        if not isinstance(model, Samples):
            return
        labels, columns = grid_labels(model, self.num_samples)
        images = to_uint8(model.sample(self.num_samples, labels, generator=make_rng("grid", self.seed)))
        path = self.run.samples / f"{model.images_seen:09d}.png"
        save_png(make_grid(images, columns), path, display_scale(images.shape[-1]))
        log_picture(trainer, "samples", path, model.images_seen)


class LatentInterpolation(Pictures):
    """Walks between latents: a strip ``interpolations/<images seen>.png`` and a looping GIF beside it.

    Args:
        run: where the files go.
        every_n_images: how often, in images seen; null for the end alone.
        seed: of the latents, which stay the same through training.
        rows: walks, one a row of the strip.
        steps: images in a row.
        frames: frames of the GIF, which goes from each start to its end and on to the next row's start.
    """

    def __init__(
        self,
        run: RunDirectory,
        every_n_images: int | None = None,
        seed: int = 0,
        rows: int = 6,
        steps: int = 10,
        frames: int = 40,
    ) -> None:
        super().__init__(run, every_n_images, seed)
        self.rows = rows
        self.steps = steps
        self.frames = frames

    def draw(self, trainer: Trainer, model: GenerativeModel) -> None:
        """Write and log strip and GIF of a model that decodes latents."""
        if not isinstance(model, Latents):
            return
        latents, labels = walk_ends(model, self.rows, make_rng("interpolation", self.seed))
        strip = interpolation_strip(model, latents, self.steps, labels)
        frames = interpolation_frames(model, latents, self.frames, labels)
        path = self.run.interpolations / f"{model.images_seen:09d}.png"
        scale = display_scale(frames.shape[-1])
        save_png(strip, path, scale)
        save_gif(list(frames), path.with_suffix(".gif"), 2 * scale)
        log_picture(trainer, "interpolation", path, model.images_seen)
        log_picture(trainer, "interpolation_gif", path.with_suffix(".gif"), model.images_seen)


def slerp(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    """Spherical interpolation, which keeps Gaussian latents at their typical norm (White 2016, "Sampling Generative
    Networks", section 2.1).

    Args:
        start: (N, D).
        end: (N, D).
        weights: (T,) in [0, 1], or (T, N) for weights of each row; 0 gives ``start``, 1 gives ``end``.

    Returns:
        (T, N, D). Rows that are (almost) parallel are interpolated linearly.
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=-1).clamp(-1, 1)
    angle = torch.acos(cosine)[None, :, None]
    weights = weights.to(start).reshape(len(weights), -1, 1)
    sine = torch.sin(angle)
    spherical = (torch.sin((1 - weights) * angle) * start + torch.sin(weights * angle) * end) / sine
    return torch.where(sine.abs() < 1e-4, torch.lerp(start[None], end[None], weights), spherical)


def grid_labels(model: GenerativeModel, num_samples: int) -> tuple[Tensor | None, int | None]:
    """Labels (num_samples,) of a grid with a column for each class, and the columns; None where the model decides."""
    if model.label_law is None or len(model.label_law) > WIDEST:
        return None, None
    classes = len(model.label_law)
    return torch.arange(num_samples, device=model.device) % classes, classes


def walk_ends(model: GenerativeModel, rows: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Latents (2 * rows, D), start and end of each walk, and a label (rows,) for each walk of a conditional model."""
    assert isinstance(model, Latents)
    latents = model.sample_latents(2 * rows, generator=rng)
    return latents, None if model.label_law is None else model.draw_labels(rows, generator=rng)


def interpolation_strip(model: Latents, latents: Tensor, steps: int, labels: Tensor | None = None) -> Tensor:
    """Rows of images from one latent to another.

    Args:
        model: decodes the latents.
        latents: (2 * rows, D); row ``r`` goes from ``2r`` to ``2r + 1``.
        steps: images in a row.
        labels: (rows,) int64 for a conditional model.

    Returns:
        (C, H', W') uint8 grid.
    """
    walks = slerp(latents[0::2], latents[1::2], torch.linspace(0, 1, steps)).transpose(0, 1)
    each = None if labels is None else labels.repeat_interleave(steps)
    return make_grid(to_uint8(model.decode(walks.flatten(0, 1), each)), columns=steps)


def interpolation_frames(model: Latents, latents: Tensor, frames: int, labels: Tensor | None = None) -> Tensor:
    """Frames of a closed walk through all latents.

    Args:
        model: decodes the latents.
        latents: (M, D), visited in order and back to the first.
        frames: number of frames.
        labels: (M / 2,) int64 for a conditional model, each for two legs of the walk.

    Returns:
        (frames, C, H, W) uint8.
    """
    position = torch.arange(frames) * (len(latents) / frames)
    stops = torch.cat([latents, latents[:1]])
    legs = position.long()
    path = [
        slerp(stops[leg, None], stops[leg + 1, None], (at - leg)[None])[0]
        for leg, at in zip(legs, position, strict=True)
    ]
    each = None if labels is None else labels[(legs // 2).to(labels.device)]
    return to_uint8(model.decode(torch.cat(path), each))
