"""A Gaussian mixture over a model's latents, fitted on the codes of training images, to draw latents from."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError

RELATIVE_FLOOR = 1e-4
"""Added to the variances of each component, as a part of the codes' mean variance."""


class LatentMixture(nn.Module):
    """Normal laws with full covariances and their weights; buffers, so that they travel in checkpoints.

    Until it is fitted it is N(0, I). Fitting is by expectation maximization (scikit-learn) and draws from a generator
    of its own, so that training goes on as if it had not been fitted.

    Args:
        dim: D of the latents.
        components: how many laws.
        num_images: how many training images it is to be fitted on, from the first.

    Raises:
        UserError: no component, or fewer images than components.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    fitted: Tensor

    def __init__(self, dim: int, components: int = 10, num_images: int = 10_000) -> None:
        super().__init__()
        if components < 1 or num_images < max(2, components):
            raise UserError(
                f"model.mixture: components={components} must be at least 1 and num_images={num_images} not fewer"
            )
        self.components = components
        self.num_images = num_images
        self.register_buffer("weights", torch.full((components,), 1 / components, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(components, 1, 1))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.int64))

    def fit(self, codes: Tensor) -> None:
        """Fit to codes (N, D).

        Raises:
            UserError: fewer codes than components.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture  # a second of imports that only a fit needs

        if len(codes) < max(2, self.components):
            raise UserError(f"model.mixture.components={self.components} is more than the {len(codes)} training images")
        values = codes.detach().double().cpu()
        floor = max(RELATIVE_FLOOR * float(values.var(0).mean()), 1e-12)
        with warnings.catch_warnings():
            # A hundred steps are enough to draw from.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # k-means runs in threads of its own, whose sums differ from run to run; its seeding alone does not.
            found = GaussianMixture(self.components, reg_covar=floor, init_params="k-means++", random_state=0).fit(
                values.numpy()
            )
        self.weights.copy_(torch.from_numpy(found.weights_))
        self.means.copy_(torch.from_numpy(found.means_))
        self.factors.copy_(torch.linalg.cholesky(torch.from_numpy(found.covariances_)))
        self.fitted.fill_(1)

    def sample(self, number: int, *, generator: torch.Generator) -> Tensor:
        """Latents (number, D) on the mixture's device, drawn from a generator of any device."""
        device = generator.device
        chosen = torch.multinomial(self.weights.to(device), number, replacement=True, generator=generator)
        noise = torch.randn(number, self.means.shape[1], generator=generator, device=device).to(self.means)
        chosen = chosen.to(self.means.device)
        return self.means[chosen] + (self.factors[chosen] @ noise[:, :, None]).squeeze(2)

    def settings(self) -> dict[str, Any]:
        """JSON-able settings that change what `sample` draws."""
        return {
            "name": "mixture",
            "components": self.components,
            "num_images": self.num_images,
            "fitted": bool(self.fitted),
        }
