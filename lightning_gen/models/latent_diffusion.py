"""The second stage of latent diffusion: a diffusion model of a first stage's latents (Rombach et al. 2022)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from lightning_gen.diffusion.film import Film
from lightning_gen.errors import UserError
from lightning_gen.files import canonical_json
from lightning_gen.models.base import GenerativeModel, ImageBatch
from lightning_gen.models.checkpoints import load_first_stage
from lightning_gen.models.diffusion import Diffusion
from lightning_gen.models.first_stage import FirstStage
from lightning_gen.registry import construct


@dataclass
class LatentBatch:
    """A batch of latents.

    Attributes:
        images: the latents (N, c, h, w), of mean 0 and standard deviation 1, in the place of images.
        labels: (N,) int64 or None, of the images that they were made of.
    """

    images: Tensor
    labels: Tensor | None


class LatentDiffusion(GenerativeModel):
    """A `Diffusion` of the latents that a trained `FirstStage` makes of images; its samples are decoded to images.

    The first stage is frozen, with its averaged weights if it has some and without its discriminator, and becomes a
    part of this model's checkpoints. Each channel of the latents is standardized by its mean and deviation over the
    training set, as in the published code of Karras et al. 2024, "Analyzing and improving the training dynamics of
    diffusion models". `lightning_gen.callbacks.latents.FirstStageLatents` has them measured before the first iteration;
    it may also hand in what the first stage made of each batch, so that none is encoded twice.

    Args:
        image_shape: (C, H, W) of the images.
        first_stage: a run directory or checkpoint of a `FirstStage`; or, in checkpoints of this model, its spec.
        diffusion: spec of a `Diffusion`.
        latents: what of an image's law is trained on: a new ``sample`` each time, or the ``mean``.
        standardize: whether latents are standardized.
        num_classes: K of the data, 0 for a set without classes.
        class_names: of the data's classes, for networks that are told of them by captions.
        label_law: probabilities of the data's classes.
        labelled_per_class: how many images of each class keep their label, None for all.

    Attributes:
        cached_moments: `moments` of the coming batch, None where they are to be computed.

    Raises:
        UserError: no first stage, one of other images, or what the diffusion raises.
    """

    network_names: ClassVar[tuple[str, ...]] = ("diffusion", "first_stage")
    averaged_networks: ClassVar[tuple[str, ...]] = ("diffusion",)
    latent_means: Tensor
    latent_deviations: Tensor
    measured: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        first_stage: str | Mapping[str, Any] | None,
        diffusion: Mapping[str, Any],
        latents: Literal["sample", "mean"] = "sample",
        standardize: bool = True,
        num_classes: int = 0,
        class_names: list[str] | None = None,
        label_law: list[float] | None = None,
        labelled_per_class: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if latents not in ("sample", "mean"):
            raise UserError(f"model.latents must be sample or mean, not {latents!r}")
        self.image_shape = tuple(image_shape)
        name = "model=kl_autoencoder or model=vq_gan"
        self.first_stage, spec = load_first_stage(first_stage, FirstStage, name, image_shape)  # type: ignore[type-abstract]
        # Only training needs it, and a checkpoint holds the rest: with this spec it needs no file beside it.
        self.first_stage.discriminator = None
        self.hparams["first_stage"] = {**spec, "discriminator": None}
        self.diffusion = construct(
            diffusion,
            Diffusion,
            image_shape=self.first_stage.latent_shape,
            num_classes=num_classes,
            class_names=class_names,
            label_law=label_law,
            labelled_per_class=labelled_per_class,
        )
        self.label_law = self.diffusion.label_law
        self.takes_samples = latents == "sample"
        self.standardize = standardize
        self.cached_moments: Tensor | None = None
        channels = self.first_stage.latent_shape[0]
        self.register_buffer("latent_means", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_deviations", torch.ones(channels, 1, 1))
        self.register_buffer("measured", torch.zeros((), dtype=torch.int64))

    def networks(self) -> dict[str, nn.Module]:
        """The diffusion's networks, which are trained, and those of the first stage, which are not."""
        return {**self.diffusion.networks(), **self.first_stage.networks()}

    def train(self, mode: bool = True) -> LatentDiffusion:
        """Training or evaluation mode of the diffusion; the first stage stays in evaluation mode."""
        super().train(mode)
        self.first_stage.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The diffusion's."""
        return self.diffusion.configure_optimizers()

    def on_train_start(self) -> None:
        """Refuse to train on latents that should have been measured."""
        if self.standardize and not self.measured:
            raise UserError(
                "nothing measured the latents' mean and deviation: set callbacks.latents as in configs/callbacks/"
                "default.yaml, or model.standardize=false"
            )

    def training_iteration(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The diffusion's, on the latents of the images."""
        moments = self.moments(batch.images) if self.cached_moments is None else self.cached_moments
        self.cached_moments = None
        latents, variances = self.first_stage.law(moments)
        if self.takes_samples:
            latents = latents + variances.sqrt() * torch.randn_like(latents)
        return self.diffusion.training_iteration(LatentBatch(self.to_standard(latents), batch.labels))

    def moments(self, images: Tensor) -> Tensor:
        """What the first stage's encoder makes of images (N, C, H, W) in [-1, 1]: (N, M, h, w) float32."""
        with torch.no_grad():
            return self.first_stage.moments(images)

    @property
    def moments_digest(self) -> str:
        """SHA-256 (hexadecimal) of all that `moments` depends on: the encoder and its weights."""
        digest = hashlib.sha256(canonical_json(dict(self.hparams["first_stage"]["encoder"])).encode())
        for name, tensor in self.first_stage.encoder.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def measure_latents(self, blocks: Iterator[Tensor]) -> None:
        """Set the mean and the deviation of every channel from the `moments` of all training images, in blocks.

        They are those of what is trained on: the variance of a draw is that of the means and the mean of the variances.
        """
        sums, number = self.latent_means.new_zeros(2, len(self.latent_means), dtype=torch.float64), 0
        for moments in blocks:
            means, variances = (each.double() for each in self.first_stage.law(moments))
            squares = means.square() + variances if self.takes_samples else means.square()
            sums += torch.stack([means.sum((0, 2, 3)), squares.sum((0, 2, 3))])
            number += means[:, 0].numel()
        mean, square = sums / number
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        # A channel that never changes tells nothing, and would be divided by nothing.
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)
        self.latent_means.copy_(mean[:, None, None])
        self.latent_deviations.copy_(deviation[:, None, None])
        self.measured.fill_(1)

    def to_standard(self, latents: Tensor) -> Tensor:
        """Latents (N, c, h, w) of the first stage, standardized if the model says so."""
        return (latents - self.latent_means) / self.latent_deviations

    def from_standard(self, latents: Tensor) -> Tensor:
        """What `to_standard` made of latents (N, c, h, w), undone."""
        return latents * self.latent_deviations + self.latent_means

    @property
    def guidance_scale(self) -> float:
        """The diffusion's."""
        return self.diffusion.guidance_scale

    @guidance_scale.setter
    def guidance_scale(self, scale: float) -> None:
        self.diffusion.guidance_scale = scale

    def use_sampler(self, name: str | None = None, steps: int | None = None) -> None:
        """See `Diffusion.use_sampler`."""
        self.diffusion.use_sampler(name, steps)

    def sampler_settings(self) -> dict[str, Any]:
        """The diffusion's."""
        return self.diffusion.sampler_settings()

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        """Decoded samples of the diffusion, (num_samples, C, H, W) in [-1, 1]."""
        return self._decode(self.diffusion.sample(num_samples, labels, generator=generator))

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """The diffusion's noise (num_samples, c * h * w)."""
        return self.diffusion.sample_latents(num_samples, generator=generator)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] that the diffusion and the first stage make of noise (N, c * h * w)."""
        return self._decode(self.diffusion.decode(latents, labels))

    def noised(self, images: Tensor, times: Sequence[float], *, generator: torch.Generator) -> Film:
        """The diffusion's of the images' latents, decoded; without noise they are the reconstructions."""
        return self._decode_film(self.diffusion.noised(self._standard_latents(images), times, generator=generator))

    def film(self, num_samples: int, frames: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Film:
        """The diffusion's, decoded."""
        return self._decode_film(self.diffusion.film(num_samples, frames, labels, generator=generator))

    def edit(
        self, images: Tensor, strength: float, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor:
        """The diffusion's edit of the images' latents, decoded; a strength of 0 gives the reconstructions."""
        latents = self._standard_latents(images)
        return self._decode(self.diffusion.edit(latents, strength, labels, generator=generator))

    def inpaint(
        self,
        images: Tensor,
        known: Tensor,
        labels: Tensor | None = None,
        *,
        resamples: int = 1,
        generator: torch.Generator,
    ) -> Tensor:
        """See `Diffusion.inpaint`: the latents below unknown pixels are drawn, and known pixels pasted in at the end.

        A latent is known where all pixels of its patch are. The encoder sees grey in the place of unknown pixels, so
        that nothing of them reaches the latents around.
        """
        height, width = self.first_stage.latent_shape[1:]
        unknown = (~known).float().expand(len(images), 1, *images.shape[2:])
        known_latents = adaptive_max_pool2d(unknown, (height, width)) == 0
        latents = self._standard_latents(torch.where(known, images, 0.0))
        filled = self.diffusion.inpaint(latents, known_latents, labels, resamples=resamples, generator=generator)
        return torch.where(known, images, self._decode(filled))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The first stage's means (N, c * h * w); labels are not looked at."""
        return self.first_stage.encode(images, labels)

    def features(self, images: Tensor) -> Tensor:
        """The first stage's means (N, c * h * w)."""
        return self.encode(images)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The first stage's reconstructions; labels are not looked at."""
        return self.first_stage.reconstruct(images, labels)

    def _averaged(self) -> dict[str, nn.Module]:
        return {"diffusion": self.diffusion.network}

    def _standard_latents(self, images: Tensor) -> Tensor:
        """The means (N, c, h, w) of what the diffusion is trained on."""
        return self.to_standard(self.first_stage.law(self.moments(images))[0])

    def _decode_film(self, film: Film) -> Film:
        noisy, images = (torch.stack([self._decode(frame) for frame in part]) for part in film[1:])
        return Film(film.levels, noisy, images)

    def _decode(self, latents: Tensor) -> Tensor:
        return self.first_stage.decode_maps(self.from_standard(latents))
