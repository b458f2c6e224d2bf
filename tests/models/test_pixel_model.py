"""Pixel models: exact probabilities, samples that follow them, completion, labels, and one step by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from scipy import stats
from torch import Tensor

from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import from_levels, to_levels
from lightning_gen.models.capabilities import Completes, Likelihood, Samples
from lightning_gen.models.pixel_model import PixelModel
from tests.trainers import quiet_trainer

PACKAGE = "lightning_gen.networks"
NETWORKS: dict[str, dict[str, Any]] = {
    "pixelcnn": {"_target_": f"{PACKAGE}.pixelcnn.PixelCNN", "channels": 6, "blocks": 2, "head_channels": 12},
    "gated_pixelcnn": {
        "_target_": f"{PACKAGE}.gated_pixelcnn.GatedPixelCNN",
        "channels": 6,
        "layers": 2,
        "head_channels": 12,
    },
    "pixelcnn_pp": {"_target_": f"{PACKAGE}.pixelcnn_pp.PixelCNNPP", "channels": 8, "layers": 1, "sizes": 2},
    "pixel_rnn_row": {
        "_target_": f"{PACKAGE}.pixel_rnn.PixelRNN",
        "lstm": "row",
        "channels": 6,
        "layers": 1,
        "head_channels": 12,
    },
    "pixel_rnn_diagonal": {
        "_target_": f"{PACKAGE}.pixel_rnn.PixelRNN",
        "lstm": "diagonal",
        "channels": 6,
        "layers": 1,
        "head_channels": 12,
    },
}
ADAM = {"name": "Adam", "lr": 1e-2}
GREY_LAWS = {
    "bernoulli": {"name": "bernoulli"},
    "categorical": {"name": "categorical", "levels": 4},
    "discretized_logistic": {"name": "discretized_logistic", "levels": 4},
    "logistic_mixture": {"name": "logistic_mixture", "components": 2, "levels": 4},
}
COLOR_LAWS = {
    "bernoulli": {"name": "bernoulli"},
    "categorical": {"name": "categorical", "levels": 2},
    "logistic_mixture": {"name": "logistic_mixture", "components": 2, "levels": 2},
}


def build(name: str, shape: tuple[int, int, int], law: dict[str, Any], **options: Any) -> PixelModel:
    """A small model in evaluation mode, with weights large enough for laws that differ from pixel to pixel."""
    torch.manual_seed(0)
    model = PixelModel(image_shape=shape, network=NETWORKS[name], optimizer=ADAM, law=law, **options).eval()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.5)
    return model


def every_image(shape: tuple[int, int, int], levels: int) -> Tensor:
    values = torch.tensor(list(itertools.product(range(levels), repeat=math.prod(shape))))
    return from_levels(values, levels).view(-1, *shape)


def probabilities(model: PixelModel, images: Tensor, labels: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        bits = model.bits_per_dim(images, labels, generator=torch.Generator().manual_seed(0))
    return torch.exp2(-bits.double() * math.prod(images.shape[1:]))


def cases(laws: dict[str, Any], colors: bool) -> list[tuple[str, str]]:
    coupled = ("logistic_mixture",) if colors else tuple(laws)
    return [(name, law) for name in NETWORKS for law in (coupled if name == "pixelcnn_pp" else laws)]


@pytest.mark.parametrize(("name", "law"), cases(GREY_LAWS, colors=False))
def test_the_probabilities_of_all_grey_images_sum_to_one(name: str, law: str) -> None:
    model = build(name, (1, 2, 2), GREY_LAWS[law])
    images = every_image((1, 2, 2), model.law.levels)
    found = probabilities(model, images)
    assert found.sum().item() == pytest.approx(1, abs=2e-6)
    assert found.std() > 1e-4
    assert model.likelihood_is_exact


@pytest.mark.parametrize(("name", "law"), cases(COLOR_LAWS, colors=True))
def test_the_probabilities_of_all_color_images_sum_to_one(name: str, law: str) -> None:
    model = build(name, (3, 1, 2), COLOR_LAWS[law])
    images = every_image((3, 1, 2), 2)
    assert len(images) == 64
    assert probabilities(model, images).sum().item() == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize(
    ("name", "law", "channels"),
    [(*case, 1) for case in cases(GREY_LAWS, colors=False)] + [(*case, 3) for case in cases(COLOR_LAWS, colors=True)],
)
def test_given_those_before_the_values_of_a_pixel_have_probabilities_that_sum_to_one(
    name: str, law: str, channels: int
) -> None:
    model = build(name, (channels, 3, 3), (GREY_LAWS if channels == 1 else COLOR_LAWS)[law])
    rng = torch.Generator().manual_seed(0)
    context = model.law.observe(torch.rand(1, channels, 3, 3, generator=rng) * 2 - 1, generator=rng)
    pixel = every_image((channels, 1, 1), model.law.levels)
    for row, column in itertools.product(range(3), repeat=2):
        images = context.repeat(len(pixel), 1, 1, 1)
        images[:, :, row, column] = pixel[:, :, 0, 0]
        with torch.no_grad():
            log_probabilities = model.law.log_prob(model.network(images), images)[:, row, column]
        assert log_probabilities.exp().sum().item() == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_images_are_drawn_as_often_as_they_are_probable(name: str) -> None:
    kinds: list[tuple[tuple[int, int, int], dict[str, Any], int]] = [((1, 2, 2), GREY_LAWS["bernoulli"], 2)]
    kinds.append(((3, 1, 1), COLOR_LAWS["logistic_mixture"], 2))
    if name != "pixelcnn_pp":
        kinds.append(((3, 1, 2), COLOR_LAWS["categorical"], 2))
    for shape, law, levels in kinds:
        model = build(name, shape, law)
        number = 20000
        with model.evaluation():
            drawn = model.sample(number, generator=torch.Generator().manual_seed(2))
        powers = levels ** torch.arange(math.prod(shape) - 1, -1, -1)
        observed = torch.bincount(
            (to_levels(drawn, levels).flatten(1) * powers).sum(1), minlength=int(levels * powers[0])
        )
        expected = probabilities(model, every_image(shape, levels)) * number
        likely = expected > 5
        counts = torch.cat([observed[likely], observed[~likely].sum()[None]]).double()
        hoped = torch.cat([expected[likely], expected[~likely].sum()[None]]).clamp(min=1e-9)
        assert likely.sum() > 4
        assert stats.chisquare(counts.numpy(), (hoped / hoped.sum() * number).numpy()).pvalue > 1e-3


def test_it_can_do_what_it_says() -> None:
    model = build("pixelcnn", (1, 4, 4), GREY_LAWS["categorical"])
    assert isinstance(model, Samples)
    assert isinstance(model, Likelihood)
    assert isinstance(model, Completes)
    assert model.likelihood_settings == {"law": {"name": "categorical", "levels": 4}, "conditional": False}
    gaussian = build("pixelcnn", (1, 4, 4), {"name": "gaussian"})
    assert not gaussian.likelihood_is_exact
    with gaussian.evaluation():
        assert gaussian.sample(2, generator=torch.Generator().manual_seed(0)).abs().max() <= 1


@pytest.mark.parametrize("name", ["pixelcnn", "pixel_rnn_row"])
@pytest.mark.parametrize("rows", [0, 2, 5])
def test_completed_images_keep_their_upper_rows(name: str, rows: int) -> None:
    model = build(name, (3, 5, 4), {"name": "categorical", "levels": 8})
    images = from_levels(torch.randint(8, (6, 3, 5, 4), generator=torch.Generator().manual_seed(0)), 8)
    given = images.clone()
    with model.evaluation():
        first, again, other = (
            model.complete(images, rows, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
    assert torch.equal(images, given)
    assert torch.equal(first[:, :, :rows], images[:, :, :rows])
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (rows == 5)
    assert first.dtype == torch.float32
    torch.testing.assert_close(from_levels(to_levels(first, 8), 8), first)


def test_rows_that_are_not_there_cannot_be_kept() -> None:
    model = build("pixelcnn", (1, 4, 4), GREY_LAWS["categorical"])
    for rows in (-1, 5):
        with pytest.raises(ValueError, match="from 0 to 4"):
            model.complete(torch.zeros(1, 1, 4, 4), rows, generator=torch.Generator())


@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn"])
def test_samples_are_the_same_bits_without_the_cache(name: str) -> None:
    model = build(name, (1, 6, 6), GREY_LAWS["logistic_mixture"])
    with model.evaluation():
        cached = model.sample(16, generator=torch.Generator().manual_seed(0))
        model.use_cache = False
        assert torch.equal(cached, model.sample(16, generator=torch.Generator().manual_seed(0)))
    assert next(model.network.parameters()).dtype == torch.float32


def test_sampling_uses_the_averaged_weights() -> None:
    model = build("pixelcnn", (1, 4, 4), GREY_LAWS["bernoulli"])
    model.add_average(half_life_images=10)
    with model.evaluation():
        before = model.sample(64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.neg_()
    with model.evaluation():
        assert torch.equal(before, model.sample(64, generator=torch.Generator().manual_seed(0)))
    with model.evaluation(use_average=False):
        assert not torch.equal(before, model.sample(64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", NETWORKS)
def test_labels_change_probabilities_and_samples(name: str) -> None:
    label_law = [0.5, 0.3, 0.2]
    model = build(name, (1, 2, 2), GREY_LAWS["categorical"], conditional=True, num_classes=3, label_law=label_law)
    images = every_image((1, 2, 2), 4)
    each = torch.stack([probabilities(model, images, torch.full((256,), label)) for label in range(3)])
    torch.testing.assert_close(each.sum(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=2e-6)
    assert (each[0] - each[1]).abs().sum() > 1e-3
    mixed = (each * torch.tensor(label_law)[:, None]).sum(0)
    torch.testing.assert_close(probabilities(model, images), mixed, rtol=1e-4, atol=1e-9)
    with model.evaluation():
        draws = [
            model.sample(200, torch.full((200,), label), generator=torch.Generator().manual_seed(0)) for label in (0, 1)
        ]
        assert not torch.equal(*draws)
        assert model.sample(5, generator=torch.Generator().manual_seed(0)).shape == (5, 1, 2, 2)
        assert model.complete(images[:3], 1, generator=torch.Generator().manual_seed(0)).shape == (3, 1, 2, 2)


def fit(model: PixelModel, steps: int, **options: Any) -> pl.Trainer:
    trainer = quiet_trainer(steps, **options)
    trainer.fit(model, datamodule=DigitsDataModule("unused", batch_size=16, image_size=8))
    return trainer


def test_a_step_descends_the_bits_per_dimension_of_what_the_law_observes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("pixelcnn", (1, 8, 8), {"name": "bernoulli"}, gradient_clip_norm=0.01)
    model.optimizer_spec = {"name": "SGD", "lr": 1.0}
    before = [parameter.detach().clone() for parameter in model.network.parameters()]
    seen: list[Tensor] = []
    observe = model.law.observe

    def watched(images: Tensor, **options: Any) -> Tensor:
        seen.append(observe(images, **options))
        return seen[-1]

    monkeypatch.setattr(model.law, "observe", watched)
    losses: list[dict[str, Tensor]] = []
    iterate = model.training_iteration
    monkeypatch.setattr(model, "training_iteration", lambda batch: losses.append(iterate(batch)) or losses[-1])
    fit(model, 1)
    assert set(seen[0].unique().tolist()) == {-1, 1}

    after = [parameter.detach().clone() for parameter in model.network.parameters()]
    for parameter, value in zip(model.network.parameters(), before, strict=True):
        parameter.data.copy_(value)
    model.zero_grad()
    white = torch.sigmoid(model.network(seen[0]))
    likely = torch.where(seen[0] > 0, white, 1 - white)
    loss = -likely.log2().mean()
    assert losses[0]["bits_per_dim"].item() == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    gradients = [parameter.grad for parameter in model.network.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert norm > 0.01
    for old, new, gradient in zip(before, after, gradients, strict=True):
        torch.testing.assert_close(new, old - gradient * (0.01 / norm), rtol=1e-3, atol=1e-7)


def test_training_lowers_the_bits_of_held_out_digits() -> None:
    model = build("gated_pixelcnn", (1, 8, 8), {"name": "categorical", "levels": 17}, conditional=True, num_classes=10)
    data = DigitsDataModule("unused", batch_size=16, image_size=8)
    test = data.reference_set("test", 64)
    images = test.images.float() / 127.5 - 1

    def bits() -> float:
        with model.evaluation():
            return float(model.bits_per_dim(images, test.labels, generator=torch.Generator()).mean())

    before = bits()
    fit(model, 60)
    assert bits() < min(before, math.log2(17)) - 1


def test_combinations_that_mean_nothing_are_refused() -> None:
    options: dict[str, Any] = {"image_shape": (1, 8, 8), "network": NETWORKS["pixelcnn"], "optimizer": ADAM}
    with pytest.raises(UserError, match="has no classes"):
        PixelModel(**options, law={"name": "bernoulli"}, conditional=True)
    with pytest.raises(UserError, match="labelled_per_class"):
        PixelModel(**options, law={"name": "bernoulli"}, conditional=True, num_classes=10, labelled_per_class=5)
    with pytest.raises(UserError, match="bernoulli"):
        PixelModel(**options, law={"name": "bernouli"})
    with pytest.raises(UserError, match=r"model\.law"):
        PixelModel(**options, law={"name": "bernoulli", "levels": 4})
    with pytest.raises(UserError, match="not a PixelNetwork"):
        PixelModel(**{**options, "network": {"_target_": f"{PACKAGE}.dcgan.DCGANGenerator"}}, law={"name": "bernoulli"})
