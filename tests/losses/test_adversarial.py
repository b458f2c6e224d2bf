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
    assert adversarial_losses["non_saturating"].generator(FAKE, None).item() == pytest.approx(non_saturating, rel=1e-6)
    assert adversarial_losses["minimax"].generator(FAKE, None).item() == pytest.approx(minimax, rel=1e-6)


# REAL is 0, 2 and FAKE is -1, 0.5; every expectation is a mean of two.
BY_HAND = {
    "least_squares": ((1 + 1) / 4 + (1 + 0.25) / 4, (4 + 0.25) / 4),
    "wasserstein": (-0.25 - 1, 0.25),
    "hinge": ((1 + 0) / 2 + (0 + 1.5) / 2, 0.25),
    "relativistic": (
        -(math.log(sigmoid(0 - -1)) + math.log(sigmoid(2 - 0.5))) / 2,
        -(math.log(sigmoid(-1 - 0)) + math.log(sigmoid(0.5 - 2))) / 2,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_other_losses_by_hand(name: str) -> None:
    loss = adversarial_losses[name]
    discriminator, generator = BY_HAND[name]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(FAKE, REAL).item() == pytest.approx(generator, rel=1e-6)


def test_only_the_relativistic_generator_sees_real_images() -> None:
    assert [name for name in adversarial_losses if adversarial_losses[name].generator_sees_real] == ["relativistic"]
    for name in set(adversarial_losses) - {"relativistic"}:
        generator = adversarial_losses[name].generator
        assert torch.equal(generator(FAKE, None), generator(FAKE, REAL))


def test_losses_stay_finite_at_extreme_logits() -> None:
    extreme = torch.tensor([-1e4, 1e4])
    for name in adversarial_losses:
        loss = adversarial_losses[name]
        assert loss.discriminator(extreme, extreme).isfinite()
        assert loss.generator(extreme, extreme.flip(0)).isfinite()


def test_an_unknown_loss_is_named_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="Did you mean 'non_saturating'"):
        adversarial_losses["non_saturated"]
