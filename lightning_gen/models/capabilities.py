"""What a model can do; callbacks, metrics and commands ask for these and never for a model's name.

Images are float32 in [-1, 1], NCHW; labels int64 (N,). Every random draw comes from the generator handed in, which may
live on the CPU whatever the model's device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_gen.diffusion.film import Film
from lightning_gen.models.latent_mixture import LatentMixture
from lightning_gen.models.latents import Code


@runtime_checkable
class Samples(Protocol):
    """Models that make new images."""

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """New images (num_samples, C, H, W)."""


@runtime_checkable
class Latents(Protocol):
    """Models that make images from latents, so that one can walk between two."""

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """Latents (num_samples, D) from the prior."""

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of latents (N, D)."""


@runtime_checkable
class HasCodes(Latents, Protocol):
    """Models whose latents hold codes, parts with a law and a meaning of their own."""

    @property
    def codes(self) -> Sequence[Code]:
        """Where they are; empty for a model that could have some and has none."""


@runtime_checkable
class Truncates(Samples, Protocol):
    """Models that draw from a truncated prior.

    Attributes:
        truncation: bound of the magnitude of the latents, None for none; may be set, and is part of the sampler's
            settings. Setting one that the prior cannot have raises UserError.
    """

    truncation: float | None


@runtime_checkable
class Guides(Samples, Protocol):
    """Models whose samples can be drawn towards their labels.

    Attributes:
        guidance_scale: 1 for the conditional model as it is, 0 for no labels, above 1 for samples that fit their labels
            better; may be set, and is part of the sampler's settings. Setting one that the model was not trained for
            raises UserError.
    """

    guidance_scale: float


@runtime_checkable
class Denoises(Samples, Protocol):
    """Models that make images from noise in steps, by a choice of samplers."""

    def use_sampler(self, name: str | None = None, steps: int | None = None) -> None:
        """Sample otherwise from now on: by another sampler, with its own defaults, or in another number of steps.

        The sampler is part of the sampler's settings. One that the model cannot use raises UserError.
        """


@runtime_checkable
class Diffuses(Denoises, Protocol):
    """Models that turn images into noise and noise into images, from any time between the two."""

    def noised(self, images: Tensor, times: Sequence[float], *, generator: torch.Generator) -> Film:
        """Images (N, C, H, W) with the same noise at times in [0, 1], 0 for none and 1 for noise alone."""

    def film(self, num_samples: int, frames: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Film:
        """The states of `sample` at evenly spaced steps, at most ``frames`` >= 2; the last are the samples."""

    def edit(
        self, images: Tensor, strength: float, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Images (N, C, H, W) that begin with those handed in at the time ``strength``: 0 keeps them, 1 samples anew.

        A conditional model without labels is taken for the unconditional one.
        """

    def inpaint(
        self,
        images: Tensor,
        known: Tensor,
        labels: Tensor | None = None,
        *,
        resamples: int = 1,
        generator: torch.Generator,
    ) -> Tensor:
        """Images (N, C, H, W) with the pixels handed in where ``known``, (H, W) or (N, 1, H, W) bool, and drawn ones
        elsewhere.

        Each step is taken ``resamples`` >= 1 times. A sampler that cannot do this raises UserError.
        """


@runtime_checkable
class Reconstructs(Protocol):
    """Models that encode images and decode them again."""

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Reconstructions (N, C, H, W) of images (N, C, H, W) and, for a conditional model, labels (N,)."""


@runtime_checkable
class Encodes(Protocol):
    """Models that have a vector for every image."""

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Vectors (N, D) of images (N, C, H, W) and, for a conditional model, labels (N,)."""


@runtime_checkable
class HasPosterior(Encodes, Protocol):
    """Models with a diagonal normal law of latents for every image, whose means `encode` returns."""

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and logarithms of variances, each (N, D)."""


@runtime_checkable
class FitsLatents(Latents, Encodes, Protocol):
    """Models that can draw latents from a mixture fitted to what `encode` returns of training images.

    Attributes:
        mixture: None for a model that draws them from elsewhere.
    """

    mixture: LatentMixture | None


@runtime_checkable
class Translates(Protocol):
    """Models that map images of one domain to another.

    Attributes:
        directions: those that `translate` knows: ``AtoB`` first, and ``BtoA`` if the model maps back too.
        domain_shapes: (C, H, W) of the images of domains ``A`` and ``B`` in training.
        size_multiple: `translate` takes any height and width that are multiples of this.
    """

    directions: Sequence[str]
    domain_shapes: Mapping[str, tuple[int, int, int]]

    @property
    def size_multiple(self) -> int:
        """See above."""

    def translate(self, images: Tensor, direction: str = "AtoB", *, generator: torch.Generator) -> Tensor:
        """Translations (N, C', H, W) of images (N, C, H, W).

        The generator is that of a model's noise, if it has some.
        """


@runtime_checkable
class Likelihood(Protocol):
    """Models that score images by their probability.

    Attributes:
        likelihood_is_exact: whether `bits_per_dim` is the model's own, or an upper bound.
        likelihood_settings: JSON-able: what it depends on beside the weights (the law of the pixels, importance
            samples, ...), part of the protocol of every score made of it.
    """

    likelihood_is_exact: bool

    @property
    def likelihood_settings(self) -> Mapping[str, Any]:
        """See above."""

    def bits_per_dim(self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Bits per dimension (N,): -log2 p(x) / (C H W). The generator is that of the noise in it, if there is some."""


@runtime_checkable
class Completes(Protocol):
    """Models that draw the rest of an image, given its upper rows."""

    def complete(
        self, images: Tensor, rows: int, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """Images (N, C, H, W) whose first ``rows`` rows are what the model observes of those handed in."""


@runtime_checkable
class HasFeatures(Protocol):
    """Models whose hidden layers serve as features."""

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) of images (N, C, H, W)."""


@runtime_checkable
class HasFeatureMaps(Protocol):
    """Models whose hidden layers can be looked at one by one."""

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Maps (N, C', H', W'), or features (N, D'), of images (N, C, H, W), from the first layer to the last."""


@runtime_checkable
class Classifies(Protocol):
    """Models that classify images."""

    def classify(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""


@runtime_checkable
class FitsFeatures(Classifies, Protocol):
    """Models whose classifier is fitted at once to the features of all training images, before the first iteration.

    Attributes:
        fitted: above 0 once `fit_images` has run.
    """

    fitted: Tensor

    @property
    def uses_unlabelled(self) -> bool:
        """Whether images without a label change the fit."""

    def fit_images(self, blocks: Iterator[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        """Fit to training images (N, C, H, W) with labels (N,), -1 where unknown, in blocks; numbers for the logs."""


@runtime_checkable
class TrainsOnLatents(Protocol):
    """Models that train on what a frozen first stage makes of images.

    Attributes:
        cached_moments: what `moments` returns of the next batch's images, so that they need not be computed.
        measured: above 0 once `measure_latents` has run.
    """

    cached_moments: Tensor | None
    measured: Tensor

    def moments(self, images: Tensor) -> Tensor:
        """What the first stage makes of images (N, C, H, W): (N, M, h, w) float32."""

    @property
    def moments_digest(self) -> str:
        """Digest of all that `moments` depends on."""

    def measure_latents(self, blocks: Iterator[Tensor]) -> None:
        """Take the mean and the deviation of the latents from the moments (N, M, h, w) of all training images."""


@runtime_checkable
class LabelsPool(Protocol):
    """Models that learn from labels which they give, round by round, to the training images that have none.

    Attributes:
        pool_labels: (P, N) int64, in checkpoints: the labels that each of P pools has of the N training images,
            `lightning_gen.data.batches.UNLABELLED` for none.
        batch_pool_labels: (P, n) int64, those of the next batch's images; to be set before every iteration.
        rounds_over: bool scalar, in checkpoints: no more rounds.
    """

    pool_labels: Tensor
    batch_pool_labels: Tensor | None
    rounds_over: Tensor

    def round_due(self) -> int:
        """The number, from 1, of the round that is to be made after the iteration that just ended, or 0."""

    def propose_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What each of V classifiers makes of images (N, C, H, W): confidences (V, N) float32 and labels (V, N)."""

    def label_pool(self, confidences: Tensor, labels: Tensor, unlabelled: Tensor) -> Tensor:
        """Make the round that is due: write ``pool_labels`` and, after the last one, ``rounds_over``.

        Args:
            confidences: (V, U) float32 of `propose_labels`, on the CPU, of all training images without a label.
            labels: (V, U) int64 of `propose_labels`, on the CPU.
            unlabelled: (U,) int64, which training images those are.

        Returns:
            (P, U) float32: the confidence with which each label was given in this round, NaN where none was.
        """

    def forget_pool(self) -> None:
        """Take all pseudo labels back, and begin with the first round."""
