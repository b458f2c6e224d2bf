import math
from typing import Any

import pytest
import scipy.stats
import torch

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.models.latents import LatentPrior
from lightning_gen.regularizers import regularizers
from tests.regularizers.steps import output, players, step

PRIOR = LatentPrior(2, categorical=[3, 2], continuous=2)


def test_the_likelihood_of_a_continuous_code_is_scipys() -> None:
    outputs, codes = torch.randn(5, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    expected = -scipy.stats.norm.logpdf(codes.numpy(), outputs.numpy(), 1.0).sum(1).mean()
    assert regularization.continuous_code_loss(outputs, codes).item() == pytest.approx(expected)


def test_the_likelihood_of_a_categorical_code_by_hand() -> None:
    outputs = torch.tensor([[1.0, 2.0, 0.5]]).log()
    code = torch.tensor([[0.0, 0.0, 1.0]])
    assert regularization.categorical_code_loss(outputs, code).item() == pytest.approx(-math.log(0.5 / 3.5), rel=1e-5)


def test_each_code_is_read_from_its_own_outputs() -> None:
    known = players(codes=PRIOR.codes)
    made: Any = regularizers["mutual_information"](weight=10.0, continuous_weight=0.1)
    made.build(known)
    latents = torch.tensor([[9.0, 9.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.25, -0.5]])
    outputs = torch.tensor([[1.0, 5.0, 4.0, 3.0, 1.0, 2.0, 4.0]]).log()
    outputs[:, 5:] = torch.tensor([0.75, -1.5])
    gaussian = sum(-scipy.stats.norm.logpdf(distance) for distance in (0.5, 1.0))
    expected = 10 * (-math.log(5 / 10) - math.log(3 / 4)) + 0.1 * gaussian
    taken = step(output([0.0]), output([0.0], codes=outputs), latents=latents)
    for term in (made.discriminator_term(taken), made.generator_term(taken)):
        assert term.item() == pytest.approx(expected, rel=1e-5)


def test_the_head_has_one_hidden_layer() -> None:
    known = players(codes=PRIOR.codes)
    regularizers["mutual_information"](hidden=16).build(known)
    assert known.discriminator(torch.zeros(4, 1, 1, 3)).heads["codes"].shape == (4, 3 + 2 + 2)
    weights = [tuple(parameter.shape) for parameter in known.discriminator.heads["codes"].parameters()]
    assert weights == [(16, 3), (16,), (7, 16), (7,)]


def test_latents_without_codes_are_refused() -> None:
    with pytest.raises(UserError, match=r"set model\.codes"):
        regularizers["mutual_information"]().build(players())
