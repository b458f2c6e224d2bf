from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.losses.adversarial import cross_entropy_discriminator_loss
from lightning_gen.regularizers import regularizers
from tests.regularizers.steps import output, players, step

REAL, FAKE = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([[0.0, 5.0]])


def test_the_distance_of_mean_features_by_hand() -> None:
    # The means are (2, 2) and (0, 5).
    assert regularization.feature_distance(REAL, FAKE).item() == (4 + 9) / 2
    assert regularization.feature_distance(REAL, FAKE, "l1").item() == (2 + 3) / 2


def test_feature_matching_pulls_on_fake_features_alone() -> None:
    real, fake = REAL.clone().requires_grad_(True), FAKE.clone().requires_grad_(True)
    made: Any = regularizers["feature_matching"](weight=2.0)
    term = made.generator_term(step(output([0.0, 0.0], real), output([0.0], fake)))
    assert term.item() == 13
    term.backward()
    assert real.grad is None
    assert fake.grad is not None
    assert fake.grad.tolist() == [[-4, 6]]


def test_feature_matching_replaces_the_loss_unless_told_otherwise() -> None:
    assert regularizers["feature_matching"]().replaces_generator_loss
    assert not regularizers["feature_matching"](replaces_loss=False).replaces_generator_loss
    assert regularizers["feature_matching"]().generator_sees_real
    with pytest.raises(UserError, match=r"feature_matching\.norm must be l2 or l1, not 'l3'"):
        regularizers["feature_matching"](norm="l3")


def history(network: nn.Module, steps: int) -> tuple[Any, list[float], list[np.ndarray]]:
    """Terms of a network whose parameters are drawn anew at every step, and those parameters."""
    torch.manual_seed(0)
    made: Any = regularizers["historical_averaging"](weight=0.5)
    made.check(players(generator=network))
    terms, values = [], []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
        values.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy())
        terms.append(made.generator_term(step(None, output([0.0]))).item())
    return made, terms, values


def test_historical_averages_are_means_over_all_steps() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    made, terms, values = history(network, 5)
    for number, (term, value) in enumerate(zip(terms, values, strict=True), start=1):
        mean = np.mean(values[:number], axis=0)
        assert term == pytest.approx(0.5 * np.sum((value - mean) ** 2), rel=1e-4, abs=1e-6)
    assert made.discriminator_term(step(output([0.0]), output([0.0]))).item() == 0, "each player has its own"
    assert int(made.generator_steps) == 5
    assert int(made.discriminator_steps) == 1


def test_historical_averaging_draws_parameters_to_the_average() -> None:
    network = nn.Linear(2, 3)
    made, _, values = history(network, 4)
    with torch.no_grad():
        network.weight.add_(1)
    made.generator_term(step(None, output([0.0]))).backward()
    now = torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy()
    gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])  # type: ignore[union-attr]
    assert np.allclose(gradient.numpy(), now - np.mean([*values, now], axis=0), atol=1e-5)


def test_historical_averages_are_in_checkpoints_and_parameters_are_not() -> None:
    network = nn.Linear(2, 3)
    made, _, _ = history(network, 3)
    again: Any = regularizers["historical_averaging"](weight=0.5)
    again.check(players(generator=network))
    again.load_state_dict(made.state_dict())
    with torch.no_grad():
        network.bias.add_(1)
    taken = step(None, output([0.0]))
    assert torch.equal(again.generator_term(taken), made.generator_term(taken))
    assert not list(made.parameters())
    assert {name.rsplit("_", 1)[1] for name in made.state_dict()} == {"average", "steps"}


@pytest.mark.parametrize("amount", [0.1, 0.25])
def test_smoothing_is_the_cross_entropy_with_a_lower_target(amount: float) -> None:
    real_logits, fake_logits = torch.randn(7), torch.randn(7)
    made: Any = regularizers["label_smoothing"](amount=amount)
    plain = cross_entropy_discriminator_loss(real_logits, fake_logits)
    term = made.discriminator_term(step(output(real_logits), output(fake_logits)))
    smooth = F.binary_cross_entropy_with_logits(real_logits, torch.full((7,), 1 - amount))
    unsmoothed = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros(7))
    assert (plain + term).item() == pytest.approx((smooth + unsmoothed).item(), rel=1e-5)
    assert made.generator_term(step(None, output(fake_logits))) is None


def test_smoothing_is_refused_where_there_is_no_target() -> None:
    made = regularizers["label_smoothing"]()
    for loss in ("non_saturating", "minimax"):
        made.check(players(loss=loss))
    for loss in ("least_squares", "hinge", "wasserstein", "relativistic"):
        with pytest.raises(UserError, match=rf"model\.loss={loss} is none: set model\.loss=non_saturating"):
            made.check(players(loss=loss))
    for amount in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match=r"label_smoothing\.amount"):
            regularizers["label_smoothing"](amount=amount)
