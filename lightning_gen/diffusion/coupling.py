"""Which noise goes with which image in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_gen.diffusion.parts import build_part
from lightning_gen.registry import Registry


class Coupling(Protocol):
    """A rule that pairs images with noise. Images stay where they are, and with them their labels."""

    def pair(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The noise (N, ...) in the order in which it goes with images (N, ...) and, of a conditional model, labels."""


couplings: Registry[Callable[..., Coupling]] = Registry("coupling", __package__)


def build_coupling(spec: Mapping[str, Any]) -> Coupling:
    """The coupling ``{"name": ..., **options}``.

    Raises:
        UserError: no such coupling or option.
    """
    return build_part(couplings, spec, "model.coupling")


@couplings.register("independent")
class Independent:
    """Any noise with any image."""

    def pair(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The noise as it is."""
        return noise


@couplings.register("optimal_transport")
class OptimalTransport:
    """The pairs of a batch whose squared distances have the least sum (Tong et al. 2024, section 3.2; Pooladian et al.
    2023), found exactly.

    With labels pairs are sought within each class. Otherwise a class would be learnt with the noise nearest to it alone
    and sampled from all.
    """

    @torch.no_grad()
    def pair(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Coupling.pair`."""
        # Of |x - n|^2 only -2 x n depends on the pairs.
        gains = (images.flatten(1).double() @ noise.flatten(1).double().T).cpu()
        groups = torch.zeros(len(images), dtype=torch.long) if labels is None else labels.cpu()
        order = torch.arange(len(images))
        for group in groups.unique():
            members = (groups == group).nonzero().squeeze(1)
            _, chosen = linear_sum_assignment(gains[members][:, members].numpy(), maximize=True)
            order[members] = members[torch.from_numpy(chosen)]
        return noise[order.to(noise.device)]
