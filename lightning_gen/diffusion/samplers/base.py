"""What samplers are given, and how they are found by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_gen.diffusion.schedules import Level, Schedule, Section
from lightning_gen.errors import UserError
from lightning_gen.registry import Registry

Denoise = Callable[[Tensor, Level[float]], Tensor]
"""Noisy images (N, ...) and their level -> estimates of the images without noise, the mean given the noisy ones."""


class SamplerFunction(Protocol):
    """A sampler: a function of the noise, and of a generator where it draws more noise on the way.

    Noise (N, ...) of variance 1 becomes images (N, ...). Keyword arguments are the sampler's options.
    """

    def __call__(
        self, denoise: Denoise, noise: Tensor, schedule: Schedule, rng: torch.Generator | None, **options: Any
    ) -> Tensor:
        """See above."""


@dataclass(frozen=True)
class SamplerKind:
    """A registered sampler.

    Attributes:
        function: the sampler.
        evaluations: how often it calls ``denoise`` for a number of steps; None for one that chooses its own.
        stochastic: whether it draws noise on the way with certain options.
        check: raises UserError for steps and options that it would not take with a schedule.
    """

    function: SamplerFunction
    evaluations: Callable[[int], int] | None
    stochastic: Callable[[Mapping[str, Any]], bool]
    check: Callable[[Schedule, int, Mapping[str, Any]], object]


samplers: Registry[SamplerKind] = Registry("sampler", __package__)


def register_sampler(
    name: str,
    evaluations: Callable[[int], int] | None = lambda steps: steps,
    stochastic: Callable[[Mapping[str, Any]], bool] = lambda options: False,
    check: Callable[[Schedule, int, Mapping[str, Any]], object] = lambda schedule, steps, options: None,
) -> Callable[[Any], Any]:
    """Decorator that makes a sampler known by a name; see `SamplerKind`."""

    def add(function: Any) -> Any:
        samplers.register(name)(SamplerKind(function, evaluations, stochastic, check))
        return function

    return add


class Sampler:
    """A sampler with its options.

    Args:
        name: of a registered sampler.
        steps: of it; not used by one that chooses its own.
        float64: whether images are added up in float64, where the device has it; the network computes in float32 all
            the same.
        options: further ones of the sampler.

    Raises:
        UserError: no such sampler or option.
    """

    def __init__(self, name: str, steps: int = 50, float64: bool = False, **options: Any) -> None:
        self.kind = samplers[name]
        accepted = inspect.signature(self.kind.function).parameters
        unknown = options.keys() - accepted
        if unknown:
            raise UserError(f"model.sampler: {name} has no option {', '.join(sorted(unknown))}")
        self.name = name
        self.steps = steps
        self.float64 = float64
        self.options = options

    def check(self, schedule: Schedule) -> None:
        """Raise what would fail later.

        Raises:
            UserError: steps or options that the schedule does not have.
        """
        if self.kind.evaluations is not None:
            schedule.levels(self.steps)
        self.kind.check(schedule, self.steps, self.options)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise on the way."""
        return self.kind.stochastic(self.options)

    @property
    def evaluations(self) -> int | None:
        """How often it estimates images; None for one that chooses that on the way."""
        return None if self.kind.evaluations is None else self.kind.evaluations(self.steps)

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-able: all that changes what it draws."""
        steps = {} if self.kind.evaluations is None else {"steps": self.steps, "evaluations": self.evaluations}
        return {"sampler": self.name, **steps, "float64": self.float64, **self.options}

    def __call__(self, denoise: Denoise, noise: Tensor, schedule: Schedule, rng: torch.Generator | None) -> Tensor:
        """Images (N, ...) of noise (N, ...) of variance 1, in the noise's type."""
        steps = {} if self.kind.evaluations is None else {"steps": self.steps}
        start = noise.double() if self.float64 and noise.device.type != "mps" else noise
        return self.kind.function(denoise, start, schedule, rng, **steps, **self.options).to(noise)

    def through(
        self,
        denoise: Denoise,
        noisy: Tensor,
        schedule: Schedule,
        levels: Sequence[Level[float]],
        rng: torch.Generator | None,
    ) -> Tensor:
        """Noisy images (N, ...) of the first of some levels, taken by this sampler's steps to the last of them.

        A sampler that chooses its own steps goes on to images without noise.

        Args:
            denoise: estimates images.
            noisy: (N, ...).
            schedule: that the levels are of.
            levels: at least two in a row of those that as many steps as this sampler has would visit.
            rng: of further noise.
        """
        section = Section(schedule, levels, complete=self.steps == schedule.num_steps)
        sampler = Sampler(self.name, len(levels) - 1, self.float64, **self.options)
        return sampler(denoise, noisy, section, rng)


def build_sampler(spec: Mapping[str, Any]) -> Sampler:
    """The sampler ``{"name": ..., "steps": ..., **options}``.

    Raises:
        UserError: no such sampler or option.
    """
    try:
        return Sampler(**spec)
    except TypeError as error:
        raise UserError(f"model.sampler: {error}") from error
