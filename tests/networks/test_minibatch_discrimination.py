from __future__ import annotations

import math

import pytest
import torch

from lightning_gen.networks.minibatch_discrimination import MinibatchDiscrimination
from tests.networks.checks import without_gradient


def test_closeness_is_the_papers_sum_over_the_other_samples() -> None:
    layer = MinibatchDiscrimination(2, kernels=2, dims=2)
    with torch.no_grad():
        # kernel 1: M = (x, y); kernel 2: M = (2x, 0)
        layer.matrices.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    # L1 distances. kernel 1: 12 -> 1, 13 -> 3, 23 -> 4; kernel 2: 12 -> 2, 13 -> 0, 23 -> 2
    e = math.exp
    expected = [[e(-1) + e(-3), e(-2) + 1], [e(-1) + e(-4), 2 * e(-2)], [e(-3) + e(-4), 1 + e(-2)]]
    outputs = layer(features)
    assert torch.equal(outputs[:, :2], features)
    torch.testing.assert_close(outputs[:, 2:], torch.tensor(expected))


def test_equal_samples_are_as_close_as_can_be_and_a_single_one_has_no_others() -> None:
    layer = MinibatchDiscrimination(3, kernels=4)
    outputs = layer(torch.randn(1, 3).expand(5, -1))
    torch.testing.assert_close(outputs[:, 3:], torch.full((5, 4), 4.0))
    assert not layer(torch.randn(1, 3))[:, 3:].any()


def test_a_reference_at_the_beginning_is_a_batch_of_its_own() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(3, kernels=4)
    reference, batch = torch.randn(2, 3), torch.randn(5, 3)
    expected = torch.cat([layer(reference), layer(batch)])
    layer.reference_size = 2
    torch.testing.assert_close(layer(torch.cat([reference, batch])), expected)


def test_columns_of_the_map_have_about_length_one_and_a_gradient() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(400)
    assert layer.matrices.weight.shape == (500, 400)
    assert layer.matrices.weight.norm(dim=1).mean().item() == pytest.approx(1, abs=0.01)
    assert without_gradient(layer, layer(0.1 * torch.randn(4, 400))) == []
