"""Nearest training images of samples, and whether samples are copies of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gen.metrics.extractors import FeatureExtractor

Embedding = Callable[[Tensor], Tensor]
"""uint8 images (N, C, H, W) -> (N, D) float64, on the device where distances are to be computed."""

CHUNK = 1024


class Nearest(NamedTuple):
    """Neighbors in order, nearest first.

    Attributes:
        distances: (N, k) float64, Euclidean.
        indices: (N, k) int64.
    """

    distances: Tensor
    indices: Tensor


class Memorization(NamedTuple):
    """How much nearer samples are to training images than images that were held out.

    Attributes:
        closer_share: share of samples at least as close to their nearest training image as that one's own nearest
            other training image is: 1 - authenticity (Alaa et al. 2022).
        held_out_closer_share: the same of held-out images, which were not copied: the share to expect; None without.
        distance_ratio: mean distance of samples to their nearest training image over that of held-out images; far
            below 1 for copies; None without.
        smallest_distance: over all samples.
    """

    closer_share: float
    held_out_closer_share: float | None
    distance_ratio: float | None
    smallest_distance: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


def pixel_embedding(device: torch.device) -> Embedding:
    """Pixels as they are, [0, 255]: whole numbers, whose distances come out exact."""
    return lambda images: images.to(device).flatten(1).double()


def feature_embedding(extractor: FeatureExtractor) -> Embedding:
    """Features of an extractor, on its device."""
    device = next(extractor.parameters()).device

    def embed(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([extractor(block.to(device)).features.double() for block in images.split(64)])

    return embed


class TrainingImages:
    """Training images in an embedded space, asked for neighbors.

    Features are computed once; pixels are embedded chunk by chunk, whenever they are compared, since they would take
    eight times the set's memory.

    Args:
        images: (N, C, H, W) uint8.
        embed: the space.
        keep: whether embedded images are kept in memory.
    """

    def __init__(self, images: Tensor, embed: Embedding, keep: bool) -> None:
        self.images = images
        self.embed = embed
        self._kept = [embed(chunk) for chunk in images.split(CHUNK)] if keep else None

    def nearest(self, queries: Tensor, number: int, leave_out: Tensor | None = None) -> Nearest:
        """The nearest training images of embedded queries (Q, D).

        Args:
            queries: float64.
            number: k, of neighbors.
            leave_out: (Q,) int64 training image that is no neighbor of each query; None for none.
        """
        parts = [self._nearest(chunk, number, out) for chunk, out in _chunks(queries, leave_out)]
        return Nearest(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def memorization(self, samples: Tensor, held_out: Tensor | None) -> Memorization:
        """Compare samples and held-out images, embedded (M, D) and (H, D)."""
        nearest = self.nearest(samples, 1)
        distances = nearest.distances[:, 0]
        share = self._closer_share(nearest)
        smallest = float(distances.min())
        if held_out is None:
            return Memorization(share, None, None, smallest)
        others = self.nearest(held_out, 1)
        ratio = float(distances.mean() / others.distances.mean())
        return Memorization(share, self._closer_share(others), ratio, smallest)

    def _closer_share(self, nearest: Nearest) -> float:
        found = nearest.indices[:, 0]
        images, position = found.unique(return_inverse=True)
        own = self.nearest(self.embed(self.images[images.cpu()]), 1, leave_out=images).distances[position, 0]
        return float((nearest.distances[:, 0] <= own).double().mean())

    def _nearest(self, queries: Tensor, number: int, leave_out: Tensor | None) -> Nearest:
        best = Nearest(queries.new_empty(len(queries), 0), torch.empty(len(queries), 0).to(queries.device, torch.int64))
        for number_of_chunk, chunk in enumerate(self.images.split(CHUNK)):
            first = number_of_chunk * CHUNK
            references = self._kept[number_of_chunk] if self._kept is not None else self.embed(chunk)
            distances = distance_matrix(queries, references)
            if leave_out is not None:
                inside = ((leave_out >= first) & (leave_out < first + len(chunk))).nonzero().flatten()
                distances[inside, leave_out[inside] - first] = torch.inf
            indices = torch.arange(first, first + len(chunk), device=queries.device).expand(len(queries), -1)
            merged = torch.cat([best.distances, distances], 1)
            chosen = merged.topk(min(number, merged.shape[1]), largest=False)
            best = Nearest(chosen.values, torch.cat([best.indices, indices], 1).gather(1, chosen.indices))
        return best


def distance_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (N, M) of float64 rows (N, D) and (M, D).

    By a matrix product, which is many times faster than differences; exact for pixels, whose squares and products are
    whole numbers below 2^53.
    """
    squares = first.square().sum(1)[:, None] + second.square().sum(1) - 2 * first @ second.T
    return squares.clamp_(min=0).sqrt_()


def _chunks(queries: Tensor, leave_out: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    if leave_out is None:
        return [(chunk, None) for chunk in queries.split(CHUNK)]
    return list(zip(queries.split(CHUNK), leave_out.split(CHUNK), strict=True))
