"""A layer that turns gradients round (Ganin et al. 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return -ctx.factor * gradient, None


def reverse_gradient(inputs: Tensor, factor: float) -> Tensor:
    """The inputs as they are; on the way back their gradient is multiplied by ``-factor``.

    Ganin et al. 2016, "Domain-adversarial training of neural networks", equations 16 and 17.

    Args:
        inputs: any shape.
        factor: lambda, at least 0.
    """
    reversed_inputs: Tensor = _GradientReversal.apply(inputs, factor)
    return reversed_inputs
