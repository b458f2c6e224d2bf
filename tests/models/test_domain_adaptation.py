"""Domain classifier, DANN and ADDA: their steps against the objectives taken apart, and what adaptation is for."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lightning_gen.data.batches import DomainBatch, PairBatch
from lightning_gen.errors import UserError
from lightning_gen.models import GenerativeModel
from lightning_gen.models.adda import ADDA
from lightning_gen.models.dann import DANN
from lightning_gen.models.domain_classifier import DomainClassifier
from tests.models.test_family import build, fit, same, state
from tests.trainers import quiet_trainer

SHAPE = (1, 8, 8)
MLP = {"_target_": "lightning_gen.networks.encoders.MLPEncoder", "num_outputs": 6, "hidden": [16]}
CONV = {"_target_": "lightning_gen.networks.encoders.ConvEncoder", "num_outputs": 6, "base_channels": 4, "hidden": 8}
ADAM = {"name": "Adam", "lr": 1e-2}
COMMON: dict[str, Any] = {
    "image_shape": SHAPE,
    "input_shape": SHAPE,
    "body": MLP,
    "optimizer": ADAM,
    "classifier_hidden": [],
    "num_classes": 3,
    "labelled_per_class": 0,
}
ADVERSARIES = {"source_iterations": 2, "target_optimizer": ADAM, "discriminator_optimizer": ADAM}


def classifier(**options: Any) -> DomainClassifier:
    torch.manual_seed(0)
    return DomainClassifier(**{**COMMON, **options})


def dann(**options: Any) -> DANN:
    torch.manual_seed(0)
    return DANN(**{**COMMON, "total_iters": 10, "domain_hidden": [8], **options})


def adda(**options: Any) -> ADDA:
    torch.manual_seed(0)
    return ADDA(**{**COMMON, **ADVERSARIES, "discriminator_hidden": [8], **options})


def pairs(seed: int = 1, source: int = 5, target: int = 4) -> PairBatch:
    rng = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(number, *SHAPE, generator=rng) * 2 - 1 for number in (source, target))
    return PairBatch(a, b, torch.arange(source) % 3, torch.full((target,), -1))


def partly_labelled() -> DomainBatch:
    batch, more = pairs(), pairs(2)
    assert batch.labels_a is not None
    assert batch.labels_b is not None
    labels = torch.tensor([2, 2, 1])
    return DomainBatch(batch.images_a, batch.images_b, batch.labels_a, batch.labels_b, more.images_b[:3], labels)


def only_gradients(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "optimizer_list", lambda: [None])
    monkeypatch.setattr(model, "minimize", lambda loss, *_: loss.backward())


def gradients(loss: torch.Tensor, network: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))


def train(model: GenerativeModel, batches: list[Any], steps: int, *callbacks: pl.Callback) -> None:
    trainer = quiet_trainer(steps, *callbacks)
    trainer.fit(model, train_dataloaders=DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("train_on", "given"), [("source", 0), ("target", 5), ("both", 5)])
def test_a_classifier_learns_the_labels_that_it_names(
    train_on: Any, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = classifier(train_on=train_on, labelled_per_class=given), partly_labelled()
    only_gradients(model, monkeypatch)
    source = F.cross_entropy(model.classify(batch.images_a), batch.labels_a, reduction="sum")
    target = F.cross_entropy(model.classify(batch.labelled_images), batch.labelled_labels, reduction="sum")
    expected = {"source": source / 5, "target": target / 3, "both": (source + target) / 8}[train_on]
    torch.testing.assert_close(model.training_iteration(batch)["loss"], expected)


def test_where_all_labels_of_the_target_are_given_they_are_those_of_the_batch() -> None:
    model = classifier(train_on="target", labelled_per_class=None)
    batch = pairs()._replace(labels_b=torch.tensor([0, 1, 2, 0]))
    images, labels = model.labelled_images(batch)
    assert images is batch.images_b
    assert labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("train_on", ["source", "both"])
def test_a_step_of_dann_is_that_of_the_minimax_objective(train_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = 0 if train_on == "source" else 5
    model, batch = dann(train_on=train_on, labelled_per_class=given, domain_weight=0.7), partly_labelled()
    only_gradients(model, monkeypatch)
    model.iteration = 3
    # lambda at p = 0.3: 0.7 (2 / (1 + exp(-3)) - 1)
    reversal = 0.7 * 0.9051483
    logits = model.classify(batch.images_a)
    label_loss = F.cross_entropy(logits, batch.labels_a)
    if train_on == "both":
        logits = torch.cat([logits, model.classify(batch.labelled_images)])
        label_loss = F.cross_entropy(logits, torch.cat([batch.labels_a, batch.labelled_labels]))
    source, target = (model.domain_classifier(model.body(images)) for images in (batch.images_a, batch.images_b))
    bce = F.binary_cross_entropy_with_logits
    domain_loss = bce(source, torch.zeros(5, 1)) + bce(target, torch.ones(4, 1))
    expected = {
        "body": [
            first - reversal * second
            for first, second in zip(gradients(label_loss, model.body), gradients(domain_loss, model.body), strict=True)
        ],
        "classifier": gradients(label_loss, model.classifier),
        "domain_classifier": gradients(domain_loss, model.domain_classifier),
    }
    losses = model.training_iteration(batch)
    torch.testing.assert_close(losses["label_loss"], label_loss)
    torch.testing.assert_close(losses["domain_loss"], domain_loss)
    assert float(losses["reversal"]) == pytest.approx(reversal, rel=1e-6)
    for name, wanted in expected.items():
        found = [parameter.grad for parameter in model.networks()[name].parameters()]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


def test_the_reversal_grows_from_nothing_to_its_weight() -> None:
    model = dann(total_iters=100)
    found = []
    for model.iteration in (0, 10, 50, 100, 500):
        found.append(model.reversal)
    # 2 / (1 + exp(-10 p)) - 1 = tanh(5 p)
    assert found == pytest.approx([0, 0.46211716, 0.98661430, 0.99990920, 0.99990920], abs=1e-7)
    assert dann(domain_weight=0.0).reversal == 0
    slow = dann(gamma=2.0)
    slow.iteration = 5
    assert slow.reversal == pytest.approx(math.tanh(0.5))


class Watch(pl.Callback):
    """Keeps the networks' states before training and after each iteration."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.keep(pl_module)

    def keep(self, model: GenerativeModel) -> None:
        self.states.append({name: state(network) for name, network in model.networks().items()})


def test_addas_stages_change_what_is_theirs_and_nothing_else() -> None:
    model, watch = adda(body={**CONV, "norm": "batch"}), Watch()
    train(model, [pairs(seed) for seed in range(4)], 4, watch)
    states = watch.states
    assert len(states) == 5
    for stage, (before, after) in enumerate(pairwise(states)):
        changed = {name for name in before if not same(before[name], after[name])}
        first = {"body", "classifier", "target_body"}
        assert changed == (first if stage < 2 else {"target_body", "discriminator"})
        assert same(after["body"], after["target_body"]) == (stage < 2), "it is a copy until the second stage"


def test_the_second_stage_plays_on_features_with_inverted_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = adda(), pairs()
    model.iteration = 2
    with torch.no_grad():
        for parameter in model.target_body.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    seen: list[torch.Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    monkeypatch.setattr(model, "optimizer_list", lambda: ["source", "discriminator", "target"])
    steps: list[Any] = []

    def minimize(loss: torch.Tensor, optimizer: str, network: nn.Module, clip: Any) -> None:
        steps.append((optimizer, network))
        model.zero_grad()
        loss.backward()
        steps[-1] += ({name for name, each in model.networks().items() if has_gradient(each)},)

    monkeypatch.setattr(model, "minimize", minimize)
    losses = model.training_iteration(batch)
    source, target = model.body(batch.images_a), model.target_body(batch.images_b)
    assert [tuple(features.shape) for features in seen] == [(5, 6), (4, 6), (4, 6)]
    torch.testing.assert_close(seen, [source, target, target])
    bce = F.binary_cross_entropy_with_logits
    real, fake = model.discriminator(source), model.discriminator(target)
    discriminator_loss = bce(real, torch.ones(5, 1)) + bce(fake, torch.zeros(4, 1))
    torch.testing.assert_close(losses["discriminator_loss"], discriminator_loss)
    torch.testing.assert_close(losses["target_loss"], bce(fake, torch.ones(4, 1)))
    assert steps == [
        ("discriminator", model.discriminator, {"discriminator"}),
        ("target", model.target_body, {"target_body"}),
    ]


def has_gradient(network: nn.Module) -> bool:
    return any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters())


def test_adda_classifies_by_the_target_encoder_and_the_sources_classifier() -> None:
    model, images = adda(), pairs().images_b
    with torch.no_grad():
        for parameter in model.target_body.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(model.classify(images), model.classifier(model.target_body(images)))
    assert not torch.allclose(model.classify(images), model.classifier(model.body(images)))


@pytest.mark.parametrize("stopped_after", [2, 3])
def test_adda_resumed_at_and_after_the_change_of_stages_ends_with_the_same_bits(
    stopped_after: int, tmp_path: Path
) -> None:
    whole, data = build("adda")
    fit(whole, data, 4)
    stopped, data = build("adda")
    fit(stopped, data, stopped_after).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, data = build("adda")
    fit(resumed, data, 4, tmp_path / "stopped.ckpt")
    assert same(state(whole), state(resumed))
    assert not same(state(stopped), state(resumed))


def shifted(number: int, seed: int) -> tuple[PairBatch, torch.Tensor]:
    """Two domains of the same classes, the target's mean shifted; and the target's labels.

    Both halves of an image are dark in class 0 and bright in class 1, and the right half of the target is brighter
    altogether: by so much that a classifier of the source that looks at both halves takes class 0 for class 1.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (2, number), generator=rng)
    images = 0.3 * torch.randn(2, number, *SHAPE, generator=rng)
    images += (0.5 * labels - 0.25)[:, :, None, None, None]
    images[1, ..., 4:] += 0.8
    return PairBatch(images[0], images[1], labels[0], torch.full((number,), -1)), labels[1]


def toy_error(model: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> float:
    optimizers = model.configure_optimizers()[0]
    monkeypatch.setattr(model, "optimizer_list", lambda: optimizers)
    monkeypatch.setattr(model, "manual_backward", lambda loss: loss.backward())
    for model.iteration in range(steps):
        model.training_iteration(shifted(32, model.iteration)[0])
    test, labels = shifted(1000, 10**6)
    with model.evaluation():
        return float((model.classify(test.images_b).argmax(1) != labels).double().mean())


def test_adaptation_helps_where_the_domains_differ_by_a_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {**MLP, "hidden": [32], "num_outputs": 8}
    toy = {"num_classes": 2, "body": body, "optimizer": {**ADAM, "lr": 1e-3}}
    source_only = toy_error(classifier(**toy), 100, monkeypatch)
    adapted = dann(**toy, total_iters=200, domain_weight=3.0, domain_hidden=[32])
    imitating = adda(
        **{**toy, "optimizer": {**ADAM, "lr": 3e-3}, "source_iterations": 50, "discriminator_hidden": [32]},
        target_optimizer={**ADAM, "lr": 1e-3, "betas": [0.5, 0.999]},
        discriminator_optimizer={**ADAM, "lr": 3e-3, "betas": [0.5, 0.999]},
    )
    assert source_only > 0.4
    assert toy_error(adapted, 200, monkeypatch) < 0.05
    assert toy_error(imitating, 200, monkeypatch) < 0.05


def test_the_networks_of_the_average_are_those_that_classify() -> None:
    model = adda()
    model.add_average(half_life_images=10)
    assert model.average is not None
    raw = model.classify(pairs().images_b)
    for average in model.average.networks.values():
        for parameter in average.parameters():
            parameter.data.mul_(2)
    with model.evaluation():
        assert not torch.allclose(model.classify(pairs().images_b), raw)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (classifier, {"input_shape": None}, "the data set has one: set data=adaptation"),
        (classifier, {"input_shape": (3, 8, 8)}, r"domains of one shape, not \(3, 8, 8\) and \(1, 8, 8\)"),
        (classifier, {"num_classes": 0}, "the data set has none: choose another data set"),
        (classifier, {"train_on": "A"}, "model.train_on must be source, target or both, not 'A'"),
        (classifier, {"train_on": "target"}, "needs labels of the target: set data.labelled_per_class to 10"),
        (classifier, {"labelled_per_class": 10}, "leaves the target's labels unused: set .*data.labelled_per_class=0"),
        (classifier, {"labelled_per_class": None}, "leaves the target's labels unused"),
        (
            classifier,
            {"body": {"_target_": "lightning_gen.networks.encoders.MapEncoder", "num_outputs": 2}},
            r"model.body makes \(2, 2, 2\) of an image and not a vector",
        ),
        (dann, {"train_on": "target", "labelled_per_class": 5}, "set model.train_on to source or both"),
        (dann, {"total_iters": 0}, "model.total_iters must be at least 1, not 0: set trainer.max_steps"),
        (dann, {"domain_weight": -1.0}, "must not be negative"),
        (adda, {"source_iterations": 0}, "model.source_iterations must be at least 1, not 0"),
        (adda, {"loss": "relativistic"}, "set model.loss=non_saturating"),
        (adda, {"labelled_per_class": 5}, "leaves the target's labels unused"),
    ],
)
def test_what_means_nothing_is_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)
