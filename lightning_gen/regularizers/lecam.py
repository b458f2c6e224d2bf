"""LeCam regularization (Tseng et al. 2021, Regularizing generative adversarial networks under limited data)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.regularizers.base import Regularizer, Step, mean_over_ranks, regularizers


@regularizers.register("lecam")
class LeCam(Regularizer):
    """Real logits are drawn to the average of fake ones and the other way round.

    The averages a_R and a_F are exponential ones of the discriminator's predictions over its steps this step's
    included, and corrected for their beginning at zero, as in the paper's code for StyleGAN2. Its code for BigGAN
    begins with the term after 1000 iterations of 200 images each: ``start_images: 200000``.

    Args:
        weight: lambda; 0.3 for BigGAN with the hinge loss on CIFAR-10.
        decay: of the averages.
        one_sided: count real logits only above a_F and fake logits only below a_R, which the paper's code does and its
            equation does not.
        start_images: real images that training has seen before the term counts.

    Raises:
        UserError: a decay that makes no average.
    """

    averages: Tensor

    def __init__(self, weight: float, decay: float = 0.99, one_sided: bool = True, start_images: int = 0) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise UserError(f"model.regularizers.lecam.decay must be at least 0 and less than 1, not {decay}")
        self.weight = weight
        self.decay = decay
        self.one_sided = one_sided
        self.start_images = start_images
        # Of real logits, of fake logits and of ones, which is what the other two lack for beginning at zero.
        self.register_buffer("averages", torch.zeros(3))

    def discriminator_term(self, step: Step) -> Tensor:
        """Follow the averages, then the weighted term."""
        assert step.real is not None
        real_logits, fake_logits = step.real.logits.float(), step.fake.logits.float()
        real_anchor, fake_anchor = self._follow(torch.stack([real_logits.mean(), fake_logits.mean()]).detach())
        if step.images_seen < self.start_images:
            return torch.zeros_like(real_anchor)
        term = regularization.lecam(real_logits, fake_logits, real_anchor, fake_anchor, self.one_sided)
        return self.weight * term

    @torch.no_grad()
    def _follow(self, means: Tensor) -> tuple[Tensor, Tensor]:
        self.averages.lerp_(torch.cat([mean_over_ranks(means), means.new_ones(1)]), 1 - self.decay)
        real, fake, total = self.averages.clone()
        return real / total, fake / total
