"""Latents to look at: traversals of single units and codes, means by class, and sums of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from lightning_gen.models.capabilities import Latents
from lightning_gen.models.latents import Code

BLOCK_SIZE = 64
SPAN = 3.0
CODE_SPAN = 2.0
"""Chen et al. 2016, figure 2: continuous codes, trained on [-1, 1], are shown from -2 to 2."""


class ClassLatents(NamedTuple):
    """Latents that decode to one class.

    Attributes:
        latents: (N, D).
        images: (N, C, H, W) uint8 on the CPU, what they decode to.
    """

    latents: Tensor
    images: Tensor

    @property
    def mean(self) -> Tensor:
        """(D,) mean of the latents."""
        return self.latents.mean(0)


def decode(model: Latents, latents: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images (N, C, H, W) uint8 on the CPU of latents (N, D) and labels (N,) or None, decoded in blocks."""
    label_blocks = [None] * len(latents) if labels is None else labels.split(BLOCK_SIZE)
    pairs = zip(latents.split(BLOCK_SIZE), label_blocks, strict=False)
    return torch.cat([to_uint8(model.decode(*pair)).cpu() for pair in pairs])


def reach(model: Latents, rng: torch.Generator) -> float:
    """How far from 0 a traversal goes: `SPAN`, or as far as 1,024 latents of the prior come where that is less."""
    return min(SPAN, float(model.sample_latents(1024, generator=rng).abs().max()))


def traverse_unit(latents: Tensor, unit: int, values: Tensor) -> Tensor:
    """Copies of the latents in which one unit takes each of some values and all others stay.

    Args:
        latents: (R, D).
        unit: column.
        values: (S,).

    Returns:
        (R, S, D).
    """
    walks = latents[:, None].repeat(1, len(values), 1)
    walks[:, :, unit] = values.to(latents)
    return walks


def traverse_code(latents: Tensor, code: Code, steps: int) -> Tensor:
    """Copies of the latents (R, D) in which one code varies: (R, S, D).

    A categorical code takes each of its categories, a continuous one ``steps`` values from -2 to 2
    (Chen et al. 2016, figure 2).
    """
    if code.kind == "continuous":
        return traverse_unit(latents, code.columns.start, torch.linspace(-CODE_SPAN, CODE_SPAN, steps))
    size = code.columns.stop - code.columns.start
    walks = latents[:, None].repeat(1, size, 1)
    walks[:, :, code.columns] = torch.eye(size).to(latents)
    return walks


def latents_by_class(
    model: Latents,
    classify: Callable[[Tensor], Tensor],
    wanted: Sequence[int],
    number: int,
    rng: torch.Generator,
    most: int = 20_000,
) -> dict[int, ClassLatents]:
    """The first ``number`` latents of each wanted class among latents drawn from the prior.

    Args:
        model: an unconditional one, whose latents decide the class.
        classify: labels (N,) int64 of float images (N, C, H, W) in [-1, 1].
        wanted: labels.
        number: of latents of each.
        rng: draws the latents.
        most: latents drawn before a class is given up.

    Raises:
        UserError: a class that is too rare among the samples.
    """
    latents: dict[int, list[Tensor]] = {label: [] for label in wanted}
    images: dict[int, list[Tensor]] = {label: [] for label in wanted}
    for _ in range(0, most, BLOCK_SIZE):
        drawn = model.sample_latents(BLOCK_SIZE, generator=rng)
        decoded = model.decode(drawn)
        labels = classify(decoded)
        for label in latents:
            chosen = (labels == label).nonzero().flatten()[: number - len(latents[label])]
            latents[label] += list(drawn[chosen.to(drawn.device)])
            images[label] += list(to_uint8(decoded[chosen.to(decoded.device)]).cpu())
        if all(len(found) == number for found in latents.values()):
            return {label: ClassLatents(torch.stack(latents[label]), torch.stack(images[label])) for label in latents}
    rarest = min(latents, key=lambda label: len(latents[label]))
    raise UserError(
        f"Only {len(latents[rarest])} of {most:,} samples are of class {rarest}, not {number}: lower --per-class"
    )


def around(center: Tensor, width: float, rng: torch.Generator) -> Tensor:
    """Nine latents (9, D): the fifth is ``center`` (D,), to the others noise U[-width, width] is added.

    Radford et al. 2016, figure 7, with width 0.25.
    """
    noise = width * (2 * torch.rand(9, len(center), generator=rng, device=rng.device) - 1)
    noise[4] = 0
    return center + noise.to(center)
