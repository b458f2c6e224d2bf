from typing import Any

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.regularizers import base, regularizers
from lightning_gen.regularizers.ada import AdaptiveAugmentation
from tests.regularizers.steps import follow, output, players, step

CONFIDENT, UNSURE = [2.0] * 10, [2.0] * 5 + [-2.0] * 5


def ada(loss: str = "non_saturating", **options: Any) -> AdaptiveAugmentation:
    made = regularizers["ada"](**options)
    made.check(players(loss=loss))
    assert isinstance(made, AdaptiveAugmentation)
    return made


def test_the_probability_moves_every_four_steps_at_the_given_speed() -> None:
    made = ada()
    confident = step(output(CONFIDENT), output([0.0]))
    history = []
    for _ in range(12):
        follow(made, confident)
        history.append(made.probability.item())
    one = 4 * 10 / 500_000
    assert history == pytest.approx([0, 0, 0, one, one, one, one, 2 * one, 2 * one, 2 * one, 2 * one, 3 * one])
    follow(made, step(output(UNSURE), output([0.0])), 8)
    assert made.probability.item() == pytest.approx(one)


def test_the_mean_sign_over_the_interval_decides() -> None:
    # Three steps of 1 and one of -1 have the mean 0.5, four of 1, 1, 1 and 0 have 0.75.
    for last, up in (([-1.0] * 10, False), (UNSURE, True)):
        made = ada(initial_probability=0.5)
        follow(made, step(output(CONFIDENT), output([0.0])), 3)
        follow(made, step(output(last), output([0.0])))
        assert (made.probability.item() > 0.5) == up
        assert made.signs.item() == 0


def test_the_probability_keeps_within_its_bounds() -> None:
    made = ada(initial_probability=0.3, max_probability=0.4, adjust_images=100)
    follow(made, step(output(CONFIDENT), output([0.0])), 4)
    assert made.probability.item() == pytest.approx(0.4)
    follow(made, step(output(UNSURE), output([0.0])), 8)
    assert made.probability.item() == 0


def test_least_squares_is_undecided_at_a_half() -> None:
    images = step(output([0.4] * 10), output([0.0]))
    for loss, up in (("hinge", True), ("least_squares", False)):
        made = ada(loss, initial_probability=0.5)
        follow(made, images, 4)
        assert (made.probability.item() > 0.5) == up


def test_the_statistic_and_the_speed_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "lightning_gen.regularizers.ada"
    monkeypatch.setattr(f"{module}.world_size", lambda: 3)
    # Here every image looks real, elsewhere most look fake: the mean decides, and 3 x 10 images a step count.
    monkeypatch.setattr(f"{module}.mean_over_ranks", lambda value: value - 0.6)
    made = ada(initial_probability=0.5)
    follow(made, step(output(CONFIDENT), output([0.0])), 4)
    assert made.probability.item() == pytest.approx(0.5 - 4 * 30 / 500_000)
    assert base.world_size() == 1


def test_its_state_is_in_checkpoints() -> None:
    made, again = ada(), ada()
    follow(made, step(output(CONFIDENT), output([0.0])), 6)
    again.load_state_dict(made.state_dict())
    for regularizer in (made, again):
        follow(regularizer, step(output(CONFIDENT), output([0.0])), 2)
    assert made.probability.item() == pytest.approx(2 * 40 / 500_000)
    assert torch.equal(again.probability, made.probability)


def test_a_fixed_probability_needs_no_undecided_logit() -> None:
    made = ada("wasserstein", target=None, initial_probability=0.2)
    follow(made, step(output(CONFIDENT), output([0.0])), 8)
    assert made.probability.item() == pytest.approx(0.2)
    torch.manual_seed(0)
    images = torch.rand(400, 1, 8, 8)
    made.transformations = "c"
    # Brightness and contrast change an image nearly always, luma every other time.
    changed = (made.augment(images) != images).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(1 - 0.8 * 0.8 * 0.9, abs=0.07)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_probability": 0.5, "max_probability": 0.4}, "initial_probability at most max_probability"),
        ({"initial_probability": -0.1}, "from 0 to 1"),
        ({"transformations": "bgf"}, r"ada\.transformations must be of b, g and c, not 'bgf'"),
        ({"target": None}, "set initial_probability"),
        ({"adjust_images": 0}, "at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        regularizers["ada"](**options)


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic"])
def test_losses_without_a_threshold_are_refused(loss: str) -> None:
    with pytest.raises(UserError, match=rf"model\.loss={loss}.*target=null"):
        ada(loss)


def test_colors_of_other_channels_are_refused() -> None:
    made = ada()
    with pytest.raises(UserError, match="transformations=bg"):
        made.augment(torch.zeros(2, 4, 8, 8))
    assert ada(transformations="bg").augment(torch.zeros(2, 4, 8, 8)).shape == (2, 4, 8, 8)
