import math

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.losses.adversarial import adversarial_losses

REAL = torch.tensor([0.0, 2.0])
FAKE = torch.tensor([-1.0, 0.5])


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_discriminator_loss_by_hand() -> None:
    expected = -(math.log(sigmoid(0)) + math.log(sigmoid(2))) / 2
    expected -= (math.log(1 - sigmoid(-1)) + math.log(1 - sigmoid(0.5))) / 2
    for name in ("non_saturating", "minimax"):
        assert adversarial_losses[name].discriminator(REAL, FAKE).item() == pytest.approx(expected, rel=1e-6)


def test_generator_losses_by_hand() -> None:
    non_saturating = -(math.log(sigmoid(-1)) + math.log(sigmoid(0.5))) / 2
    minimax = (math.log(1 - sigmoid(-1)) + math.log(1 - sigmoid(0.5))) / 2
    assert adversarial_losses["non_saturating"].generator(FAKE).item() == pytest.approx(non_saturating, rel=1e-6)
    assert adversarial_losses["minimax"].generator(FAKE).item() == pytest.approx(minimax, rel=1e-6)


def test_losses_stay_finite_at_extreme_logits() -> None:
    extreme = torch.tensor([-1e4, 1e4])
    for name in adversarial_losses:
        loss = adversarial_losses[name]
        assert loss.discriminator(extreme, extreme).isfinite()
        assert loss.generator(extreme).isfinite()


def test_an_unknown_loss_is_named_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="Did you mean 'non_saturating'"):
        adversarial_losses["non_saturated"]
