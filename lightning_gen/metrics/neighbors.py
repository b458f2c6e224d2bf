"""Nearest neighbors among features of samples and of reference images, exact and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

PRECISION_NEIGHBORS = 3
"""k of precision and recall (Kynkaanniemi et al. 2019, section 3)."""
DENSITY_NEIGHBORS = 5
"""k of density and coverage (Naeem et al. 2020, section 4)."""
MAX_PAIRS = 2**22
"""Distances that are held at once: 32 MiB in float64."""


def distance_blocks(points: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Euclidean distances (B, M) float64 of consecutive blocks of ``points`` (N, D) to all ``others`` (M, D).

    A block has as many rows as `MAX_PAIRS` allows, at least one. Distances are sums over squared differences, not
    inner products: equal points are at distance zero, and no distance depends on the block that it is computed in.
    """
    others = others.double()
    for block in points.split(max(1, MAX_PAIRS // len(others))):
        yield torch.cdist(block.double(), others, compute_mode="donot_use_mm_for_euclid_dist")


def neighbor_distances(points: Tensor, most: int) -> Tensor:
    """Distances (N, most) float64 of points (N, D) to their nearest other points, from the nearest on; N > most."""
    blocks = distance_blocks(points, points)
    # The smallest distance is that to the point itself, or to one that equals it.
    return torch.cat([block.topk(most + 1, largest=False, sorted=True).values[:, 1:] for block in blocks])


class ReferenceFeatures:
    """Features of reference images; their distances among each other are computed once.

    Args:
        features: (N, D) float32 on the CPU; N is more than `DENSITY_NEIGHBORS`.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self._distances: Tensor | None = None

    def radii(self, neighbors: int, device: torch.device) -> Tensor:
        """Distance (N,) float64 of every reference image to its k-th nearest other, k up to `DENSITY_NEIGHBORS`."""
        if self._distances is None:
            self._distances = neighbor_distances(self.features.to(device), DENSITY_NEIGHBORS).cpu()
        return self._distances[:, neighbors - 1].to(device)


class CrossDistances(NamedTuple):
    """What one pass over the distances of M samples to N reference images gives.

    Attributes:
        within: (M,) bool, whether a sample is as near to some reference image as that one's third neighbor.
        balls: (M,) int64, the number of reference images to which a sample is nearer than their fifth neighbor.
        nearest: (M,) int64, the reference image nearest to a sample.
        nearest_distance: (M,) float64, its distance.
        reference_distance: (N,) float64, distance of every reference image to the nearest sample.
    """

    within: Tensor
    balls: Tensor
    nearest: Tensor
    nearest_distance: Tensor
    reference_distance: Tensor


class Neighbors:
    """Samples among reference images; what several scores need is computed once, when it is asked for.

    Args:
        samples: features (M, D).
        reference: of the reference images.
    """

    def __init__(self, samples: Tensor, reference: ReferenceFeatures) -> None:
        self.samples = samples
        self.reference = reference

    def reference_radii(self, neighbors: int) -> Tensor:
        """Distance (N,) of every reference image to its k-th nearest other."""
        return self.reference.radii(neighbors, self.samples.device)

    @cached_property
    def cross(self) -> CrossDistances:
        """Everything that follows from the distances between samples and reference images."""
        reference = self.reference.features.to(self.samples.device)
        closed, opened = self.reference_radii(PRECISION_NEIGHBORS), self.reference_radii(DENSITY_NEIGHBORS)
        columns = []
        closest = torch.full_like(opened, torch.inf)
        for block in distance_blocks(self.samples, reference):
            distance, index = block.min(1)
            columns.append(((block <= closed).any(1), (block < opened).sum(1), index, distance))
            closest = torch.minimum(closest, block.amin(0))
        within, balls, nearest, nearest_distance = (torch.cat(column) for column in zip(*columns, strict=True))
        return CrossDistances(within, balls, nearest, nearest_distance, closest)

    @cached_property
    def recalled(self) -> Tensor:
        """(N,) bool: whether a reference image is as near to some sample as that one's third neighbor."""
        radii = neighbor_distances(self.samples, PRECISION_NEIGHBORS)[:, -1]
        reference = self.reference.features.to(self.samples.device)
        return torch.cat([(block <= radii).any(1) for block in distance_blocks(reference, self.samples)])

    @cached_property
    def nearest_two(self) -> tuple[Tensor, Tensor]:
        """Distances (M,) of every sample to the nearest reference image and to the second nearest."""
        reference = self.reference.features.to(self.samples.device)
        blocks = distance_blocks(self.samples, reference)
        nearest = torch.cat([block.topk(2, largest=False, sorted=True).values for block in blocks])
        return nearest[:, 0], nearest[:, 1]
