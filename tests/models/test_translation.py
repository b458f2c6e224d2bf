"""The objectives of pix2pix, CycleGAN and DiscoGAN, worked out on networks with one number each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_gen.errors import UserError
from lightning_gen.models.cyclegan import CycleGAN
from lightning_gen.models.discogan import DiscoGAN
from lightning_gen.models.pix2pix import Pix2Pix
from tests.models.scalars import SCALARS, SGD, constant, fit

LR = 0.1


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def stepped(value: Tensor, loss: Tensor) -> float:
    """A number after one step of gradient descent."""
    (gradient,) = torch.autograd.grad(loss, value, retain_graph=True)
    return (value - LR * gradient).item()


def test_pix2pix_takes_the_steps_of_the_paper() -> None:
    """D's objective is halved; G follows D's new weights; both see input and output, on images a = 0.4 and b = -0.2."""
    model = Pix2Pix(**SCALARS, l1_weight=10.0)
    (losses,), trainer = fit(model, constant(0.4), constant(-0.2))
    w, v = scalar(0.5), scalar(0.25)
    fake = w * 0.4
    discriminator = (softplus(-6 * v * (0.4 - 0.2)) + softplus(6 * v * (0.4 + fake))) / 2
    assert losses["discriminator_loss"] == pytest.approx(discriminator.item())
    new_v = stepped(v, discriminator)
    assert model.discriminator.head.weight.item() == pytest.approx(new_v)  # type: ignore[union-attr]
    adversarial, l1 = softplus(-6 * new_v * (0.4 + fake)), 10 * (fake + 0.2).abs()
    assert losses["generator_loss"] == pytest.approx(adversarial.item())
    assert losses["generator_l1"] == pytest.approx(l1.item()) == pytest.approx(4.0)
    assert model.generator.weight.item() == pytest.approx(stepped(w, adversarial + l1))
    assert trainer.global_step == model.iteration == 1


def test_pix2pix_without_a_condition_judges_the_output_alone() -> None:
    model = Pix2Pix(**SCALARS, conditional=False)
    assert model.discriminator.input_channels == 1
    assert Pix2Pix(**SCALARS).discriminator.input_channels == 2
    (losses,), _ = fit(model, constant(0.4), constant(-0.2))
    expected = (math.log1p(math.exp(1.5 * 0.2)) + math.log1p(math.exp(1.5 * 0.2))) / 2
    assert losses["discriminator_loss"] == pytest.approx(expected)


def cyclegan(**options: Any) -> CycleGAN:
    model = CycleGAN(**{**SCALARS, **options})
    with torch.no_grad():
        model.generator_ba.weight.fill_(-0.8)
        model.discriminator_a.head.weight.fill_(0.1)  # type: ignore[union-attr]
    return model


def test_cyclegan_takes_the_steps_of_the_paper() -> None:
    model = cyclegan()
    a, b = 0.4, -0.6
    (losses,), _ = fit(model, constant(a), constant(b))
    ab, ba, d_a, d_b = scalar(0.5), scalar(-0.8), scalar(0.1), scalar(0.25)
    fake_a, fake_b = ba * b, ab * a
    terms = {
        "generator_ab_loss": (6 * d_b * fake_b - 1) ** 2,
        "generator_ba_loss": (6 * d_a * fake_a - 1) ** 2,
        "cycle_a": 10 * (ba * fake_b - a).abs(),
        "cycle_b": 10 * (ab * fake_a - b).abs(),
        "identity_a": 5 * (ba * a - a).abs(),
        "identity_b": 5 * (ab * b - b).abs(),
        "discriminator_a_loss": ((6 * d_a * a - 1) ** 2 + (6 * d_a * fake_a) ** 2) / 2,
        "discriminator_b_loss": ((6 * d_b * b - 1) ** 2 + (6 * d_b * fake_b) ** 2) / 2,
    }
    assert losses == {name: pytest.approx(term.item()) for name, term in terms.items()}
    *generator, of_a, of_b = terms.values()
    total = torch.stack(generator).sum()
    assert model.generator_ab.weight.item() == pytest.approx(stepped(ab, total))
    assert model.generator_ba.weight.item() == pytest.approx(stepped(ba, total))
    # The fake images were made before the translators' step.
    assert model.discriminator_a.head.weight.item() == pytest.approx(stepped(d_a, of_a))  # type: ignore[union-attr]
    assert model.discriminator_b.head.weight.item() == pytest.approx(stepped(d_b, of_b))  # type: ignore[union-attr]
    assert [pool.images.flatten().unique().item() for pool in model.pools.values()] == pytest.approx(  # type: ignore[union-attr]
        [fake_a.item(), fake_b.item()]
    )


def test_only_cyclegans_discriminators_see_what_the_pools_hand_out() -> None:
    plain, model = cyclegan(), cyclegan()
    given = {"A": [], "B": []}  # type: ignore[var-annotated]
    for domain, pool in model.pools.items():
        pool.exchange = lambda images, domain=domain: given[domain].append(images) or constant(0.9)  # type: ignore[method-assign, misc]
    (expected,), _ = fit(plain, constant(0.4), constant(-0.6))
    (losses,), _ = fit(model, constant(0.4), constant(-0.6))
    assert [images[0].unique().item() for images in given.values()] == pytest.approx([-0.8 * -0.6, 0.5 * 0.4])
    assert not any(images[0].requires_grad for images in given.values())
    for name, weight, real in (("discriminator_a_loss", 0.1, 0.4), ("discriminator_b_loss", 0.25, -0.6)):
        changed = ((6 * weight * real - 1) ** 2 + (6 * weight * 0.9) ** 2) / 2
        assert losses.pop(name) == pytest.approx(changed)
        assert expected.pop(name) != pytest.approx(changed)
    assert losses == expected


def test_cyclegan_may_go_without_identity_and_then_with_other_channels() -> None:
    (losses,), _ = fit(cyclegan(identity_weight=0.0), constant(0.4), constant(-0.6))
    assert not any(name.startswith("identity") for name in losses)
    with pytest.raises(UserError, match=r"model\.identity_weight=0\.5 compares images of 3 channels with .* 1: set it"):
        cyclegan(input_shape=(3, 2, 2))
    assert cyclegan(input_shape=(3, 2, 2), identity_weight=0.0).domain_shapes["A"] == (3, 2, 2)


def discogan(**options: Any) -> DiscoGAN:
    model = DiscoGAN(**{**SCALARS, **options})
    with torch.no_grad():
        model.generator_ba.weight.fill_(-0.8)
        model.discriminator_a.head.weight.fill_(0.1)  # type: ignore[union-attr]
    return model


def test_discogan_steps_discriminators_in_every_third_iteration_and_translators_in_the_others() -> None:
    model = discogan()
    losses, trainer = fit(model, constant(0.4, 0.2), constant(-0.6, -0.5), steps=7)
    kinds = ["D" if "discriminator_a_loss" in each else "G" for each in losses]
    assert kinds == list("DGGDGGD")
    assert all(len(each) == (2 if kind == "D" else 4) for each, kind in zip(losses, kinds, strict=True))
    assert trainer.global_step == model.iteration == 7


def test_discogan_takes_the_steps_of_its_code() -> None:
    """The discriminators' first and the translators' first, with mean features and errors on the scale [0, 1]."""
    model = discogan(starting_rate=0.25)
    a, b = torch.tensor([0.4, 0.2]), torch.tensor([-0.6, -0.5])
    (first, second), _ = fit(model, constant(0.4, 0.2), constant(-0.6, -0.5), steps=2)
    ab, ba, d_a, d_b = scalar(0.5), scalar(-0.8), scalar(0.1), scalar(0.25)
    fake_a, fake_b = ba * b, ab * a
    of_a = (softplus(-6 * d_a * a).mean() + softplus(6 * d_a * fake_a).mean()) / 2
    of_b = (softplus(-6 * d_b * b).mean() + softplus(6 * d_b * fake_b).mean()) / 2
    assert first == {
        "discriminator_a_loss": pytest.approx(of_a.item()),
        "discriminator_b_loss": pytest.approx(of_b.item()),
    }
    new_a, new_b = stepped(d_a, of_a), stepped(d_b, of_b)
    assert model.discriminator_a.head.weight.item() == pytest.approx(new_a)  # type: ignore[union-attr]
    assert model.discriminator_b.head.weight.item() == pytest.approx(new_b)  # type: ignore[union-attr]
    # All feature maps but the first: six times the images.
    features_a, features_b = (6 * a.mean() - 6 * fake_a.mean()) ** 2, (6 * b.mean() - 6 * fake_b.mean()) ** 2
    terms = {
        "generator_ab_loss": 0.75 * (0.1 * softplus(-6 * new_b * fake_b).mean() + 0.9 * features_b),
        "generator_ba_loss": 0.75 * (0.1 * softplus(-6 * new_a * fake_a).mean() + 0.9 * features_a),
        "reconstruction_a": 0.25 * ((ba * fake_b - a) ** 2).mean() / 4,
        "reconstruction_b": 0.25 * ((ab * fake_a - b) ** 2).mean() / 4,
    }
    assert second == {name: pytest.approx(term.item(), rel=1e-5) for name, term in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    assert model.generator_ab.weight.item() == pytest.approx(stepped(ab, total))
    assert model.generator_ba.weight.item() == pytest.approx(stepped(ba, total))


def test_discogans_rate_rises_after_its_first_iterations() -> None:
    still = {**SGD, "lr": 0.0}
    model = discogan(generator_optimizer=still, starting_iterations=4)
    losses, _ = fit(model, constant(0.4), constant(-0.6), steps=6)
    error = (0.5 * -0.8 * 0.4 - 0.4) ** 2 / 4
    rates = [each["reconstruction_a"] / error for each in losses if "reconstruction_a" in each]
    assert rates == pytest.approx([0.01, 0.01, 0.5, 0.5][: len(rates)])
    assert len(rates) == 4


def test_gradients_are_clipped_for_each_optimizer() -> None:
    model = Pix2Pix(**SCALARS, gradient_clip_norm=0.01)
    fit(model, constant(0.4), constant(-0.2))
    assert abs(model.generator.weight.item() - 0.5) == pytest.approx(LR * 0.01, rel=1e-3)
    assert abs(model.discriminator.head.weight.item() - 0.25) == pytest.approx(LR * 0.01, rel=1e-3)  # type: ignore[union-attr]


def test_all_networks_of_a_kind_are_in_one_optimizer() -> None:
    model = cyclegan()
    discriminators, generators = fit(model, constant(0.4), constant(-0.2))[1].optimizers
    assert [id(p) for p in discriminators.param_groups[0]["params"]] == [
        id(network.head.weight) for network in (model.discriminator_a, model.discriminator_b)
    ]
    assert [id(p) for p in generators.param_groups[0]["params"]] == [
        id(network.weight) for network in (model.generator_ab, model.generator_ba)
    ]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Pix2Pix, {"input_shape": None}, "Pix2Pix translates from one domain to another, and the data set has one"),
        (CycleGAN, {"input_shape": None}, "data=unpaired"),
        (
            Pix2Pix,
            {"paired": False},
            "learns from pairs, and this data set's images are not paired: set",
        ),
        (Pix2Pix, {"loss": "hinge"}, "Unknown loss of a translation 'hinge'"),
        (Pix2Pix, {"generator_optimizer": {"name": "Adm", "lr": 1}}, "no optimizer 'Adm'"),
        (CycleGAN, {"discriminator_optimizer": {**SGD, "schedule": {"name": "Linear"}}}, "no schedule 'Linear'"),
        (DiscoGAN, {"discriminator_every": 1}, r"model\.discriminator_every=1 would leave the generators no iteration"),
        (DiscoGAN, {"final_rate": 1.5}, r"model\.final_rate must be in \[0, 1\], not 1\.5"),
        (
            Pix2Pix,
            {"generator": {"_target_": "lightning_gen.networks.dcgan.DCGANGenerator"}},
            "is not a Translator",
        ),
    ],
)
def test_what_cannot_work_is_refused(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        model(**{**SCALARS, **options})
    assert "\n" not in str(caught.value)


def test_a_batch_of_one_is_refused_where_batch_norm_sees_single_pixels() -> None:
    generator = {
        "_target_": "lightning_gen.networks.discogan.EncoderDecoder",
        "base_channels": 2,
        "bottleneck_channels": 2,
    }
    shapes = {"image_shape": (1, 16, 16), "input_shape": (1, 16, 16)}
    model = DiscoGAN(**{**SCALARS, **shapes, "generator": generator})
    model.check_batch_size(2)
    with pytest.raises(UserError, match=r"set data\.batch_size=2 or more"):
        model.check_batch_size(1)
    Pix2Pix(**SCALARS).check_batch_size(1)
