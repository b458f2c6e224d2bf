"""The prior of a GAN's latents: noise, and codes that a network can be asked to recover (InfoGAN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import UserError


class Code(NamedTuple):
    """One code: the columns of the latents that hold it.

    Attributes:
        kind: ``categorical``, one-hot, or ``continuous``, one number ~ U[-1, 1].
        columns: where it is.
    """

    kind: str
    columns: slice


class LatentPrior:
    """Latents (N, D): first noise, then categorical codes as one-hot vectors, then continuous codes.

    Args:
        noise_dim: how many independent numbers of noise.
        noise_range: half-width r of the uniform distribution U[-r, r] of the noise; None for N(0, 1).
        categorical: number of categories of each categorical code, drawn uniformly.
        continuous: how many continuous codes.
        truncation: noise ~ N(0, 1) is drawn again where its magnitude is larger (Brock et al. 2019, section 3.1);
            None for no truncation.

    Raises:
        UserError: numbers that make no distribution.
    """

    def __init__(
        self,
        noise_dim: int,
        noise_range: float | None = None,
        categorical: Sequence[int] = (),
        continuous: int = 0,
        truncation: float | None = None,
    ) -> None:
        if noise_dim < 0 or continuous < 0 or any(number < 2 for number in categorical):
            raise UserError("model.latent_dim and model.codes must be counts, of at least 2 for a categorical code")
        self.noise_dim = noise_dim
        self.noise_range = noise_range
        self.truncate(truncation)
        sizes = [("categorical", number) for number in categorical] + [("continuous", 1)] * continuous
        codes, first = [], noise_dim
        for kind, size in sizes:
            codes.append(Code(kind, slice(first, first + size)))
            first += size
        self.codes = tuple(codes)
        self.dim = first

    def truncate(self, bound: float | None) -> None:
        """Draw noise of at most this magnitude from now on, or of any for None.

        Raises:
            UserError: the noise is not Gaussian, or there is none so small.
        """
        if bound is not None and (bound <= 0 or self.noise_range is not None):
            raise UserError("model.truncation must be above 0, and needs Gaussian latents (model.latent_range=null)")
        self.truncation = bound

    def sample(
        self, number: int, *, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Latents (number, dim), on ``device`` or the generator's; never truncated without a generator: in training."""
        device = generator.device if generator is not None else device
        if self.noise_range is None:
            noise = torch.randn(number, self.noise_dim, generator=generator, device=device)
            if self.truncation is not None and generator is not None:
                while (outside := noise.abs() > self.truncation).any():
                    again = torch.randn(noise.shape, generator=generator, device=device)
                    noise = torch.where(outside, again, noise)
        else:
            noise = torch.rand(number, self.noise_dim, generator=generator, device=device)
            noise = self.noise_range * (2 * noise - 1)
        parts = [noise]
        for code in self.codes:
            size = code.columns.stop - code.columns.start
            if code.kind == "categorical":
                drawn = torch.randint(size, (number,), generator=generator, device=device)
                parts.append(torch.nn.functional.one_hot(drawn, size).to(noise.dtype))
            else:
                parts.append(2 * torch.rand(number, 1, generator=generator, device=device) - 1)
        return torch.cat(parts, 1) if self.codes else noise
