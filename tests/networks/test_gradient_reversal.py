from __future__ import annotations

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.networks.gradient_reversal import reverse_gradient
from lightning_gen.networks.lenet import LeNetEncoder


def test_it_passes_values_on_and_turns_gradients_round() -> None:
    inputs = torch.tensor([[1.0, -2.0], [3.0, 0.5]], requires_grad=True)
    outputs = reverse_gradient(inputs, 0.3)
    assert torch.equal(outputs, inputs)
    # of sum w x^2 it would be 2 w x
    weights = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])
    (weights * outputs.square()).sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, -0.3 * torch.tensor([[2.0, -8.0], [-6.0, 4.0]]))


def test_no_factor_lets_no_gradient_through() -> None:
    inputs = torch.ones(3, requires_grad=True)
    reverse_gradient(inputs, 0.0).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().max() == 0


def test_a_factor_of_minus_one_is_the_identity_to_second_order() -> None:
    inputs = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    # Only with this factor are the layer's gradients those of its values.
    assert torch.autograd.gradcheck(lambda x: reverse_gradient(x.sin(), -1.0), inputs)
    assert torch.autograd.gradgradcheck(lambda x: reverse_gradient(x.sin(), -1.0), inputs)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda x: reverse_gradient(x.sin(), 1.0), inputs)


def test_the_networks_maps_are_those_of_the_paper() -> None:
    network = LeNetEncoder((3, 28, 28))
    assert network(torch.zeros(2, 3, 28, 28)).shape == (2, 48 * 4 * 4)
    # (5 * 5 * 3 + 1) * 32 + (5 * 5 * 32 + 1) * 48
    assert sum(parameter.numel() for parameter in network.parameters()) == 40_880
    assert LeNetEncoder((1, 16, 16), 10)(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    with pytest.raises(UserError, match=r"from 16x16 .* not 15x16: set data\.image_size"):
        LeNetEncoder((1, 15, 16))
