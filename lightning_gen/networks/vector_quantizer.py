"""A codebook learnt by exponential moving averages (van den Oord et al. 2017, appendix A.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from lightning_gen.errors import UserError

SMALLEST_SIZE = 1e-5
"""Below this average number of vectors a code is left where it is: it would be divided by nearly nothing."""


class Quantized(NamedTuple):
    """What vectors became.

    Attributes:
        vectors: (N, D, h, w), each the nearest code; in training their gradient is that of the vectors that came in.
        indices: (N, h, w) int64, which code.
        commitment: mean squared distance between vectors and their codes, a scalar whose gradient moves the vectors.
        perplexity: exp of the entropy of the codes' shares in this batch, a scalar in [1, K].
    """

    vectors: Tensor
    indices: Tensor
    commitment: Tensor
    perplexity: Tensor


class VectorQuantizer(nn.Module):
    """The nearest of K codes for every vector of a map.

    In training each code follows the mean of the vectors that chose it:

        N_i <- g N_i + (1 - g) n_i,    m_i <- g m_i + (1 - g) (sum of its vectors),    e_i = m_i / N_i.

    N starts at 1 and m at e, so that a code that nothing has chosen stays where it is; where N_i falls below
    ``restart_below``, the code moves to a random vector of the batch. Under several processes n and the sums are those
    of all, and restarts take rank zero's vectors, so codebooks stay equal. All of it are buffers: the codebook takes no
    part in an optimizer's step or in a moving average of weights.

    Args:
        num_codes: K.
        dim: D.
        decay: g.
        restart_below: vectors a batch, over all processes, below which a code restarts; 0 for never.

    Raises:
        UserError: numbers that make no codebook.
    """

    codes: Tensor
    sizes: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, restart_below: float = 0.5) -> None:
        super().__init__()
        if num_codes < 2 or dim < 1:
            raise UserError(f"model.num_codes={num_codes} must be at least 2, and model.code_dim={dim} at least 1")
        if not 0 <= decay < 1 or restart_below < 0:
            raise UserError(f"model.decay={decay} must be in [0, 1), and model.restart_below={restart_below} from 0")
        self.num_codes = num_codes
        self.decay = decay
        self.restart_below = restart_below
        codes = torch.empty(num_codes, dim).uniform_(-1 / num_codes, 1 / num_codes)
        self.register_buffer("codes", codes)
        self.register_buffer("sizes", torch.ones(num_codes))
        self.register_buffer("sums", codes.clone())

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize vectors (N, D, h, w); in training the codebook follows them."""
        vectors = vectors.float()
        flat = vectors.detach().movedim(1, -1).flatten(0, -2)
        indices = self.nearest(flat)
        chosen = self.look_up(indices.view(len(vectors), *vectors.shape[2:]))
        commitment = F.mse_loss(vectors, chosen)
        shares = indices.bincount(minlength=self.num_codes) / len(indices)
        perplexity = torch.exp(-torch.xlogy(shares, shares).sum())
        if self.training:
            self.follow(flat, indices)
        straight_through = vectors + (chosen - vectors).detach()
        return Quantized(straight_through, indices.view(len(vectors), *vectors.shape[2:]), commitment, perplexity)

    def nearest(self, flat: Tensor) -> Tensor:
        """Indices (M,) int64 of the codes nearest to vectors (M, D)."""
        # |x - e|^2 but for |x|^2, which all codes share.
        return (self.codes.square().sum(1) - 2 * flat @ self.codes.T).argmin(1)

    def look_up(self, indices: Tensor) -> Tensor:
        """Codes (N, D, h, w) of indices (N, h, w)."""
        return F.embedding(indices, self.codes).movedim(-1, 1)

    @torch.no_grad()
    def follow(self, flat: Tensor, indices: Tensor) -> None:
        """Move the codes after vectors (M, D) that chose the codes ``indices`` (M,)."""
        counts = indices.bincount(minlength=self.num_codes).to(flat)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
        if _several():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.sizes.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        used = self.sizes > SMALLEST_SIZE
        means = self.sums / self.sizes.clamp_min(SMALLEST_SIZE)[:, None]
        self.codes.copy_(torch.where(used[:, None], means, self.codes))
        self._restart(flat)

    def _restart(self, flat: Tensor) -> None:
        dead = (self.sizes < self.restart_below).nonzero().flatten()
        if not len(dead):
            return
        vectors = flat[torch.randint(len(flat), (len(dead),), device=flat.device)].contiguous()
        if _several():
            distributed.broadcast(vectors, src=0)
        self.codes[dead] = vectors
        self.sums[dead] = vectors
        self.sizes[dead] = 1.0


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
