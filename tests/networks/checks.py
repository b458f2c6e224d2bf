"""What every network is asked."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def without_gradient(network: nn.Module, output: Tensor) -> list[str]:
    """Names of the parameters that the gradient of a random function of ``output`` does not reach."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad((output * torch.randn_like(output)).sum(), parameters, allow_unused=True)
    return [name for name, grad in zip(names, gradients, strict=True) if grad is None or not grad.any()]
