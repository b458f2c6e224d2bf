"""Score how likely held-out images are, and how well they are reconstructed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.schedule import find_callback
from lightning_gen.callbacks.scores import ScoringCallback
from lightning_gen.callbacks.stall import StallWatchdog
from lightning_gen.data import ImageDataModule
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.base import SCORING_VERSION, Score
from lightning_gen.models import GenerativeModel
from lightning_gen.models.capabilities import HasPosterior, Likelihood, Reconstructs
from lightning_gen.seeds import make_rng
from lightning_gen.tracking.run_directory import RunDirectory

ACTIVE = 0.01
"""Variance of a unit's posterior mean over images above which it is active (Burda et al. 2016, section 5.2)."""


class LikelihoodProtocol:
    """What is measured on a split, block by block.

    Every block of images draws from a generator of its own, and every image's value is kept, so scores are the same at
    any number of processes.

    Args:
        dataset: name of the set.
        split: that is scored.
        images: of it, with labels for a conditional model.
        block_size: images at once.
        seed: of the noise.
    """

    def __init__(self, dataset: str, split: str, images: ImageSet, block_size: int, seed: int) -> None:
        self.images = images
        self.block_size = block_size
        self.seed = seed
        self.reference = {"dataset": dataset, "split": split, "size": len(images), "digest": images.digest}

    def measure(
        self,
        model: GenerativeModel,
        rank: int = 0,
        world_size: int = 1,
        on_block: Callable[[], None] | None = None,
    ) -> list[Score]:
        """Scores of a model in evaluation mode, the same on every process.

        A model that is a `Likelihood` has ``bits_per_dim`` and ``nll``, in nats an image; one that `Reconstructs` has
        ``reconstruction_error``, the mean squared error in [-1, 1]; both with the standard error over images. One that
        `HasPosterior` has ``active_units``, which no leaderboard ranks.

        Args:
            model: the model.
            rank: this process, from 0; it takes the blocks rank, rank + world_size, ...
            world_size: number of processes.
            on_block: called before every block.
        """
        place = (model, rank, world_size, on_block)
        weights = "raw" if model.average is None else "ema"
        shared = {"reference": self.reference, "weights": weights, "scoring_version": SCORING_VERSION}
        scores = []
        if isinstance(model, Likelihood):
            bits = self._each(lambda block, labels, rng: model.bits_per_dim(block, labels, generator=rng), *place)
            metric = {"exact": model.likelihood_is_exact, **model.likelihood_settings}
            noise = {"seed": self.seed, "block_size": self.block_size}
            nats = math.prod(self.images.image_shape) * math.log(2)
            for name, values in (("bits_per_dim", bits), ("nll", bits * nats)):
                protocol = {"metric": {"name": name, **metric}, "noise": noise, **shared}
                scores.append(_mean_score(name, values, model, protocol))
        if isinstance(model, Reconstructs):
            errors = self._each(
                lambda block, labels, rng: (model.reconstruct(block, labels) - block).square().mean((1, 2, 3)), *place
            )
            protocol = {"metric": {"name": "reconstruction_error"}, **shared}
            scores.append(_mean_score("reconstruction_error", errors, model, protocol))
        if isinstance(model, HasPosterior):
            means = self._each(lambda block, labels, rng: model.posterior(block, labels)[0], *place)
            protocol = {"metric": {"name": "active_units", "variance": ACTIVE, "latents": means.shape[1]}, **shared}
            scores.append(
                Score(
                    name="active_units",
                    value=int((means.var(0) > ACTIVE).sum()),
                    std=None,
                    images_seen=model.images_seen,
                    lower_is_better=False,
                    ranked=False,
                    protocol=protocol,
                )
            )
        return scores

    def _each(
        self,
        compute: Callable[[Tensor, Tensor | None, torch.Generator], Tensor],
        model: GenerativeModel,
        rank: int,
        world_size: int,
        on_block: Callable[[], None] | None,
    ) -> Tensor:
        """Values (N, ...) float64 on the CPU of all images, computed by all processes."""
        number, size = len(self.images), self.block_size
        found: Tensor | None = None
        blocks = range(rank, math.ceil(number / size), world_size)
        # A process without a block of its own computes the first, which has the shape of a value, and keeps none.
        for index in blocks or [0]:
            if on_block is not None:
                on_block()
            block = slice(index * size, (index + 1) * size)
            labels = None if self.images.labels is None else self.images.labels[block].to(model.device)
            images = to_float(self.images.images[block].to(model.device))
            values = compute(images, labels, make_rng("likelihood", self.seed, index)).double()
            if found is None:
                found = values.new_zeros((number, *values.shape[1:]))
            if blocks:
                found[block] = values
        assert found is not None
        if world_size > 1:
            # Every image has one value that is not 0, so the sum is exact.
            torch.distributed.all_reduce(found)
        return found.cpu()


class LikelihoodScores(ScoringCallback):
    """Likelihood, reconstruction error and active units on a split, with the averaged weights (`LikelihoodProtocol`).

    Args:
        run: see `ScoringCallback`.
        every_n_images: see `ScoringCallback`.
        split: of the data set.
        num_images: the first so many; null for all.
        block_size: images at once.
        seed: of the noise in a likelihood: binarization, dequantization, latents.
    """

    def __init__(
        self,
        run: RunDirectory,
        every_n_images: int | None = None,
        split: str = "test",
        num_images: int | None = None,
        block_size: int = 250,
        seed: int = 0,
    ) -> None:
        if block_size < 1:
            raise UserError(f"callbacks.likelihood.block_size must be at least 1, not {block_size}")
        super().__init__(run, every_n_images)
        self.options = {"split": split, "num_images": num_images, "block_size": block_size, "seed": seed}
        self.protocol: LikelihoodProtocol | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the images and their digest at hand."""
        if not isinstance(pl_module, Likelihood | Reconstructs):
            raise UserError(
                f"{type(pl_module).__name__} has no likelihood and does not reconstruct: set callbacks.likelihood=null"
            )
        self.protocol = likelihood_protocol(trainer.datamodule, self.options)  # type: ignore[attr-defined]

    def measure(self, trainer: Trainer, model: GenerativeModel) -> list[Score]:
        """The protocol's scores."""
        assert self.protocol is not None
        watchdog = find_callback(trainer, StallWatchdog)
        alive = watchdog.beat if watchdog else None
        return self.protocol.measure(model, trainer.global_rank, trainer.world_size, alive)


def likelihood_protocol(data: ImageDataModule, options: Mapping[str, Any]) -> LikelihoodProtocol:
    """The protocol of a `LikelihoodScores` of a config, ``{split, num_images, block_size, seed}``, on a data set."""
    images = data.reference_set(options["split"], options["num_images"])
    return LikelihoodProtocol(data.name, options["split"], images, options["block_size"], options["seed"])


def _mean_score(name: str, values: Tensor, model: GenerativeModel, protocol: dict[str, Any]) -> Score:
    """The mean over images with its standard error; lower is better."""
    number = len(values)
    return Score(
        name=name,
        value=float(values.mean()),
        std=float(values.std() / math.sqrt(number)) if number > 1 else None,
        images_seen=model.images_seen,
        lower_is_better=True,
        ranked=True,
        protocol=protocol,
    )
