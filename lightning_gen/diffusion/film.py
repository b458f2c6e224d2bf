"""Films: noisy images level by level, as noise is added to images or as a sampler takes it away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.diffusion.noise import normal_like
from lightning_gen.diffusion.samplers.base import Denoise, Sampler
from lightning_gen.diffusion.schedules import ON_CPU, Level, Schedule


class Film(NamedTuple):
    """Noisy images at F levels.

    Attributes:
        levels: F of them.
        noisy: (F, N, ...) float32, noisy images over ``sqrt(alpha^2 + sigma^2)``: whatever the schedule, the images
            themselves at one end and noise of about variance 1 at the other.
        images: (F, N, ...) float32, the images without noise: those that it was added to, or the estimates of them.
    """

    levels: list[Level[float]]
    noisy: Tensor
    images: Tensor


class Recorder:
    """Estimates images, and keeps those nearest to some levels.

    What a sampler asks about is its state at a level; where it asks twice, as Heun's method does, the second is.

    Args:
        denoise: estimates images.
        levels: to keep, as `film_levels` gives them; the last is that of the images without noise.
    """

    def __init__(self, denoise: Denoise, levels: Sequence[Level[float]]) -> None:
        self.denoise = denoise
        *self.wanted, self.last = levels
        self.kept: list[tuple[float, Level[float], Tensor, Tensor] | None] = [None] * len(self.wanted)

    def __call__(self, noisy: Tensor, level: Level[float]) -> Tensor:
        """Estimates (N, ...) of the images in noisy ones (N, ...) at a level."""
        images = self.denoise(noisy, level)
        for index, wanted in enumerate(self.wanted):
            distance = abs(_angle(level) - _angle(wanted))
            kept = self.kept[index]
            if kept is None or distance <= kept[0]:
                self.kept[index] = distance, level, noisy, images
        return images

    def film(self, samples: Tensor) -> Film:
        """What was kept, and then the samples (N, ...) that came of it."""
        kept = [found for found in self.kept if found is not None]
        noisy = [state / math.hypot(level.alpha, level.sigma) for _, level, state, _ in kept]
        images = [estimate for *_, estimate in kept]
        levels = [*(level for _, level, _, _ in kept), self.last]
        return Film(levels, torch.stack([*noisy, samples]).float(), torch.stack([*images, samples]).float())


def film_levels(schedule: Schedule, sampler: Sampler, frames: int) -> list[Level[float]]:
    """Levels at evenly spaced steps of a sampler, from the first to that of images without noise.

    Args:
        schedule: of noise levels.
        sampler: one that chooses its own steps is looked at near evenly spaced times.
        frames: how many, at least 2; fewer where the sampler has fewer steps.
    """
    if sampler.evaluations is None:
        return schedule.levels(frames - 1)
    levels = schedule.levels(sampler.steps)
    number = min(frames, len(levels))
    return [levels[round(index * (len(levels) - 1) / (number - 1))] for index in range(number)]


def add_noise(images: Tensor, times: Sequence[float], schedule: Schedule, rng: torch.Generator) -> Film:
    """Images (N, ...) with the same noise at every one of some times in [0, 1]; at time 0 there is none at all."""
    noise = normal_like(images, rng)
    clean = schedule.levels(1)[-1]
    levels = [clean if time == 0 else _level(schedule, time) for time in times]
    noisy = [(level.alpha * images + level.sigma * noise) / math.hypot(level.alpha, level.sigma) for level in levels]
    return Film(levels, torch.stack(noisy), images.expand(len(levels), *images.shape))


def _level(schedule: Schedule, time: float) -> Level[float]:
    return Level(*(part.item() for part in schedule.at(torch.tensor([time], **ON_CPU))))


def _angle(level: Level[float]) -> float:
    """Of the noise to the image, from 0 to pi / 2."""
    return math.atan2(level.sigma, level.alpha)
