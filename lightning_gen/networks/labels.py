"""Labels as inputs of networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def concatenate_labels(inputs: Tensor, labels: Tensor | None, num_classes: int | None) -> Tensor:
    """Inputs with the one-hot labels appended (Mirza and Osindero 2014); for images, as K constant maps.

    Args:
        inputs: (N, D) or (N, C, H, W).
        labels: (N,) int64, of a network with classes.
        num_classes: K, or None for a network without classes, which takes the inputs as they are.

    Returns:
        (N, D + K) or (N, C + K, H, W).
    """
    if num_classes is None:
        return inputs
    assert labels is not None
    columns = one_hot(labels, num_classes).to(inputs.dtype)
    if inputs.ndim == 4:
        columns = columns[:, :, None, None].expand(-1, -1, *inputs.shape[2:])
    return torch.cat([inputs, columns], 1)
