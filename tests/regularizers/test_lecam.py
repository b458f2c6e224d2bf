from typing import Any

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.losses import regularization
from lightning_gen.regularizers import regularizers
from tests.regularizers.steps import output, step

REAL, FAKE = torch.tensor([3.0, -2.0]), torch.tensor([1.0, -4.0, 0.0])


def test_the_two_forms_by_hand() -> None:
    anchors = torch.tensor(0.5), torch.tensor(-1.0)
    # D(x) - a_F is 4 and -1; a_R - D(G(z)) is -0.5, 4.5 and 0.5.
    both = (16 + 1) / 2 + (0.25 + 20.25 + 0.25) / 3
    assert regularization.lecam(REAL, FAKE, *anchors, one_sided=False).item() == pytest.approx(both)
    above = 16 / 2 + (20.25 + 0.25) / 3
    assert regularization.lecam(REAL, FAKE, *anchors).item() == pytest.approx(above)


def test_the_anchors_are_averages_of_all_steps() -> None:
    made: Any = regularizers["lecam"](weight=2.0, decay=0.9, one_sided=False)
    first = made.discriminator_term(step(output([1.0, 3.0]), output([-1.0, -3.0])))
    # Corrected for their beginning the first averages are the first means, 2 and -2.
    assert first.item() == pytest.approx(2 * ((9 + 25) / 2 + (9 + 25) / 2))
    second = made.discriminator_term(step(output([0.0]), output([1.0])))
    real_anchor = (0.1 * 0.9 * 2 + 0.1 * 0) / (1 - 0.81)
    fake_anchor = (0.1 * 0.9 * -2 + 0.1 * 1) / (1 - 0.81)
    assert second.item() == pytest.approx(2 * (fake_anchor**2 + (real_anchor - 1) ** 2), rel=1e-5)


def test_the_anchors_carry_no_gradient() -> None:
    logits = torch.tensor([2.0], requires_grad=True)
    made: Any = regularizers["lecam"](weight=1.0, decay=0.5)
    made.discriminator_term(step(output([4.0]), output([-4.0])))
    made.discriminator_term(step(output([0.0])._replace(logits=logits), output([-5.0]))).backward()
    anchor = (0.25 * -4 + 0.5 * -5) / 0.75
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(2 * (2 - anchor), rel=1e-5)


def test_the_term_may_wait_while_the_averages_do_not() -> None:
    made: Any = regularizers["lecam"](weight=1.0, start_images=100)
    early = made.discriminator_term(step(output([2.0]), output([-2.0]), images_seen=99))
    assert early.item() == 0
    assert made.discriminator_term(step(output([2.0]), output([-2.0]), images_seen=100)).item() == pytest.approx(32)


def test_the_averages_are_those_of_all_ranks_and_in_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_gen.regularizers.lecam.mean_over_ranks", lambda means: means + 1)
    made: Any = regularizers["lecam"](weight=1.0, one_sided=False)
    taken = step(output([2.0]), output([-2.0]))
    assert made.discriminator_term(taken).item() == pytest.approx(3**2 + 5**2)
    again: Any = regularizers["lecam"](weight=1.0, one_sided=False)
    again.load_state_dict(made.state_dict())
    later = step(output([1.0]), output([-5.0]))
    assert torch.equal(again.discriminator_term(later), made.discriminator_term(later))


def test_a_decay_that_forgets_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"lecam\.decay"):
        regularizers["lecam"](weight=1.0, decay=1.0)
