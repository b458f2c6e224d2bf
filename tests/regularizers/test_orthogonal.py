from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from lightning_gen.errors import UserError
from lightning_gen.losses.regularization import non_orthogonality
from lightning_gen.regularizers import regularizers
from lightning_gen.regularizers.orthogonal import layer_filters
from tests.regularizers.steps import output, players, step


def test_only_angles_count_and_not_norms() -> None:
    assert non_orthogonality(torch.tensor([[3.0, 0, 0], [0, 5.0, 0]])).item() == 0
    # The two filters' product is 3 * 2 + 4 * 1 = 10, and it is in the matrix twice.
    assert non_orthogonality(torch.tensor([[3.0, 4.0], [2.0, 1.0]])).item() == 200


def test_its_gradient_is_that_of_the_papers_formula() -> None:
    filters = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    non_orthogonality(filters).backward()
    columns = filters.detach().numpy().T
    gram = columns.T @ columns
    assert non_orthogonality(filters).item() == pytest.approx(np.linalg.norm(gram * (1 - np.eye(4))) ** 2)
    assert filters.grad is not None
    assert np.allclose(filters.grad.numpy().T, 4 * columns @ (gram * (1 - np.eye(4))))


def test_every_output_of_a_layer_is_a_filter_and_norms_and_embeddings_have_none() -> None:
    network = nn.Sequential(
        nn.Embedding(7, 4),
        nn.Linear(4, 5),
        nn.Unflatten(1, (5, 1, 1)),
        nn.ConvTranspose2d(5, 6, 4),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 3, 2),
    )
    filters = list(layer_filters(network))
    assert [tuple(rows.shape) for rows in filters] == [(5, 4), (6, 5 * 16), (3, 6 * 4)]
    assert torch.equal(filters[1][2], network[3].weight[:, 2].flatten())


def test_reading_a_spectrally_normed_weight_takes_no_power_iteration() -> None:
    layer = spectral_norm(nn.Linear(6, 6))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    (filters,) = layer_filters(nn.Sequential(layer))
    assert filters.data_ptr() == layer.parametrizations.weight.original.data_ptr()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    (rows,) = layer_filters(nn.Sequential(weight_norm(nn.Linear(3, 2))))
    assert rows.shape == (2, 3)


@pytest.mark.parametrize("networks", [("generator",), ("discriminator",), ("generator", "discriminator")])
def test_the_chosen_networks_own_steps_have_the_term(networks: tuple[str, ...]) -> None:
    known = players(generator=nn.Linear(2, 3))
    known.discriminator.add_head("classes", 4)
    made: Any = regularizers["orthogonal"](weight=0.5, networks=networks)
    made.build(known)
    taken = step(output([1.0]), output([1.0]))
    for name, term in (("generator", made.generator_term(taken)), ("discriminator", made.discriminator_term(taken))):
        if name not in networks:
            assert term is None
            continue
        network = getattr(known, name)
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Linear)]
        products = [weight @ weight.T for weight in weights]
        expected = sum((product.square().sum() - product.diag().square().sum()).item() for product in products)
        assert term.item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_mixed_precision_does_not_round_the_angles() -> None:
    # The product of these filters vanishes by cancellation that half precision cannot follow.
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.001, 1.0], [-1.0, 1.001]]))
    made: Any = regularizers["orthogonal"](weight=1.0)
    made.build(players(generator=network))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.generator_term(step(None, output([1.0]))).item() < 1e-12
    with torch.no_grad():
        network.weight[1, 1] = 1.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.generator_term(step(None, output([1.0]))).item() == pytest.approx(2e-6, rel=1e-2)


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match=r"orthogonal\.networks"):
        regularizers["orthogonal"](networks=["encoder"])
