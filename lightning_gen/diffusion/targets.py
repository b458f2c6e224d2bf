"""What a network predicts of a noisy image: its noise, the image, or a mixture of both.

Of a noisy image ``x = alpha x_0 + sigma eps`` every target is ``a x_0 + b eps``, with numbers a and b of the noise
level, so that a prediction of one is also a prediction of any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lightning_gen.diffusion.parts import build_part
from lightning_gen.diffusion.schedules import Level, Number
from lightning_gen.errors import UserError
from lightning_gen.registry import Registry


class Target(ABC):
    """A target ``a x_0 + b eps``; a subclass says which. Methods take numbers, or tensors that broadcast.

    Attributes:
        needs_signal: whether it tells nothing of the image where alpha = 0.
    """

    needs_signal: bool = False

    @abstractmethod
    def coefficients(self, alpha: Number, sigma: Number) -> tuple[Number | float, Number | float]:
        """The numbers a and b."""

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        """Factor of noisy images before the network sees them: 1, but where they would be far larger than 1."""
        variance = alpha**2 + sigma**2
        # Only a schedule that adds noise to the whole image goes above 1.
        return (variance.clamp(min=1) if isinstance(variance, Tensor) else max(variance, 1.0)) ** -0.5

    def of(self, images: Tensor, noise: Tensor, level: Level[Any]) -> Tensor:
        """The target of images that noise is added to."""
        of_image, of_noise = self.coefficients(level.alpha, level.sigma)
        return of_image * images + of_noise * noise

    def image_of(self, output: Tensor, noisy: Tensor, level: Level[Any]) -> Tensor:
        """The image that a prediction of the target means."""
        of_image, of_noise = self.coefficients(level.alpha, level.sigma)
        scale = of_image * level.sigma - of_noise * level.alpha
        return level.sigma / scale * output - of_noise / scale * noisy

    def noise_of(self, output: Tensor, noisy: Tensor, level: Level[Any]) -> Tensor:
        """The noise that a prediction of the target means."""
        of_image, of_noise = self.coefficients(level.alpha, level.sigma)
        scale = of_image * level.sigma - of_noise * level.alpha
        return of_image / scale * noisy - level.alpha / scale * output

    def image_slope(self, alpha: Number, sigma: Number) -> Number:
        """How much the image changes with the prediction: an error e of the target is one of slope * e of the image."""
        of_image, of_noise = self.coefficients(alpha, sigma)
        return sigma / (of_image * sigma - of_noise * alpha)


targets: Registry[Callable[..., Target]] = Registry("target", __package__)


def build_target(spec: Mapping[str, Any]) -> Target:
    """The target ``{"name": ..., **options}``.

    Raises:
        UserError: no such target or option.
    """
    return build_part(targets, spec, "model.target")


@targets.register("noise")
class NoiseTarget(Target):
    """eps (Ho et al. 2020, equation 14)."""

    needs_signal = True

    def coefficients(self, alpha: Number, sigma: Number) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0


@targets.register("image")
class ImageTarget(Target):
    """x_0."""

    def coefficients(self, alpha: Number, sigma: Number) -> tuple[float, float]:
        """1 and 0."""
        return 1.0, 0.0


@targets.register("v")
class VTarget(Target):
    """``alpha eps - sigma x_0`` (Salimans and Ho 2022, appendix D), of any schedule."""

    def coefficients(self, alpha: Number, sigma: Number) -> tuple[Number, Number]:
        """-sigma and alpha."""
        return -sigma, alpha


@targets.register("velocity")
class VelocityTarget(Target):
    """``eps - x_0``, the velocity dx/dt on the straight line from image to noise (Lipman et al. 2023, equation 23)."""

    def coefficients(self, alpha: Number, sigma: Number) -> tuple[float, float]:
        """-1 and 1."""
        return -1.0, 1.0


@targets.register("edm")
class EDMTarget(Target):
    """What EDM's preconditioned network gives (Karras et al. 2022, table 1): input and target have variance 1.

    With ``v = alpha^2 data_std^2 + sigma^2`` the paper's c_skip, c_out and c_in, which are of alpha = 1, become
    ``alpha data_std^2 / v``, ``sigma data_std / sqrt(v)`` and ``1 / sqrt(v)``.

    Args:
        data_std: standard deviation of the images' values.
    """

    def __init__(self, data_std: float = 0.5) -> None:
        if data_std <= 0:
            raise UserError("model.target.data_std must be above 0")
        self.data_std = data_std

    def coefficients(self, alpha: Number, sigma: Number) -> tuple[Number, Number]:
        """The numbers sigma / (data_std sqrt(v)) and -alpha data_std / sqrt(v)."""
        scale = self.input_scale(alpha, sigma)
        return sigma / self.data_std * scale, -alpha * self.data_std * scale

    def input_scale(self, alpha: Number, sigma: Number) -> Number:
        """The paper's c_in."""
        return (alpha**2 * self.data_std**2 + sigma**2) ** -0.5


def convert(output: Tensor, source: Target, target: Target, noisy: Tensor, level: Level[Any]) -> Tensor:
    """A prediction of one target as one of another."""
    return target.of(source.image_of(output, noisy, level), source.noise_of(output, noisy, level), level)
