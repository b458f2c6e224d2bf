from typing import Any

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.regularizers import regularizers
from tests.regularizers.steps import output, players, step

REAL_SCORES, FAKE_SCORES = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])


def surprise(scores: torch.Tensor, label: int) -> float:
    return -(scores[0].double().exp() / scores[0].double().exp().sum())[label].log().item()


def test_both_players_gain_where_classes_are_named_right() -> None:
    real, fake = output([0.0], classes=REAL_SCORES), output([0.0], classes=FAKE_SCORES)
    taken = step(real, fake, real_labels=torch.tensor([0]), labels=torch.tensor([2]))
    made: Any = regularizers["auxiliary_classifier"](discriminator_weight=2.0, generator_weight=0.1)
    expected = 2 * (surprise(REAL_SCORES, 0) + surprise(FAKE_SCORES, 2))
    assert made.discriminator_term(taken).item() == pytest.approx(expected, rel=1e-5)
    assert made.generator_term(taken).item() == pytest.approx(0.1 * surprise(FAKE_SCORES, 2), rel=1e-5)
    real_only: Any = regularizers["auxiliary_classifier"](classify_fakes=False)
    assert real_only.discriminator_term(taken).item() == pytest.approx(surprise(REAL_SCORES, 0), rel=1e-5)


def test_the_discriminator_gets_a_head_with_a_score_for_each_class() -> None:
    known = players(num_classes=7)
    regularizers["auxiliary_classifier"]().build(known)
    assert known.discriminator(torch.zeros(2, 1, 1, 3)).heads["classes"].shape == (2, 7)


def test_a_model_without_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"set model\.conditional=true"):
        regularizers["auxiliary_classifier"]().build(players())
