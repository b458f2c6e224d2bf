"""Self-training: its objective and rounds by hand, where it must help, where it must hurt, and what it may not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_gen.data.batches import ImageBatch, SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.models.capabilities import Classifies, HasFeatures, LabelsPool
from lightning_gen.models.classifier import Classifier
from lightning_gen.models.self_training import SelfTraining
from tests.models.small_pools import KERNEL, LINEAR, SGD, SHAPE, PointSet, error, point_images, train, two_lines

COMMON = {"image_shape": SHAPE, "classifier": KERNEL, "optimizer": SGD, "num_classes": 2}
ROUNDS = {"warmup_iterations": 4, "round_iterations": 4, "rounds": 10}
STEPS = 48
LINE = torch.arange(200) // 100
SIDE = (torch.arange(200) % 100 >= 50).long()


def self_training(**options: Any) -> SelfTraining:
    torch.manual_seed(0)
    defaults = {**COMMON, **ROUNDS, "num_training_images": 200, "labelled_per_class": 1}
    return SelfTraining(**{**defaults, **options})


def linear(**options: Any) -> SelfTraining:
    return self_training(**{"classifier": LINEAR, "num_training_images": 6, **options})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_follows_clusters_that_are_classes(seed: int, tmp_path: Path) -> None:
    # The left end of one line and the right end of the other are labelled: the nearest label tells two thirds.
    images, labelled = point_images(two_lines(seed)), [0, 199]
    alone, model = Classifier(**COMMON), self_training()
    train(alone, PointSet(images, LINE, labelled, seed), STEPS, tmp_path / "alone")
    lines = train(model, PointSet(images, LINE, labelled, seed), STEPS, tmp_path / "rounds")
    assert 25 < error(alone, images, LINE) < 45
    assert error(model, images, LINE) < 2
    assert [line["pools"][0]["images"] for line in lines] == [20, 40, 58, 78, 98, 118, 138, 158, 178, 198]
    assert lines[-1]["pools"][0]["wrong"] == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_follows_clusters_that_contradict_the_classes(seed: int, tmp_path: Path) -> None:
    # Both lines are cut in the middle: the nearest label tells three quarters, that of the line a half.
    images, labelled = point_images(two_lines(seed)), [17, 182]
    alone, model = Classifier(**COMMON), self_training()
    train(alone, PointSet(images, SIDE, labelled, seed), STEPS, tmp_path / "alone")
    lines = train(model, PointSet(images, SIDE, labelled, seed), STEPS, tmp_path / "rounds")
    assert error(alone, images, SIDE) < 30
    assert error(model, images, SIDE) > 45
    assert lines[-1]["pools"][0]["wrong"] >= 90


def test_hidden_labels_change_nothing_but_what_the_reader_is_told(tmp_path: Path) -> None:
    images, labelled = point_images(two_lines(0)), [0, 199]
    garbled = 1 - LINE
    garbled[labelled] = LINE[labelled]
    models = [self_training(), self_training()]
    true, false = (
        train(model, PointSet(images, labels, labelled), STEPS, tmp_path / str(place))
        for place, (model, labels) in enumerate(zip(models, (LINE, garbled), strict=True))
    )
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [line["pools"][0]["wrong"] for line in true] == [0] * 10
    assert false[-1]["pools"][0]["wrong"] == 198
    assert (models[0].pool_labels[0, labelled] == -1).all(), "what is labelled is in no pool"


def test_the_objective_is_done_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = linear(pseudo_weight=0.5), []
    monkeypatch.setattr(model, "step", steps.append)
    images, labelled, labels = torch.rand(4, *SHAPE), torch.rand(3, *SHAPE), torch.tensor([0, 1, 1])
    batch = SemiSupervisedBatch(images, torch.full((4,), -1), labelled, labels)
    model.batch_pool_labels = torch.tensor([[1, -1, 0, -1]])
    losses = model.training_iteration(batch)
    log_p = model.classify(images).log_softmax(1)
    torch.testing.assert_close(losses["labelled"], F.cross_entropy(model.classify(labelled), labels))
    torch.testing.assert_close(losses["pseudo"], -(log_p[0, 1] + log_p[2, 0]) / 4)
    torch.testing.assert_close(steps[0], losses["labelled"] + 0.5 * losses["pseudo"])
    model.batch_pool_labels = torch.full((1, 4), -1)
    assert float(model.training_iteration(batch)["pseudo"]) == 0


def test_rounds_come_after_the_warmup_and_at_a_period() -> None:
    model = self_training(warmup_iterations=3, round_iterations=2, rounds=3)
    due = {}
    for model.iteration in range(12):
        due[model.iteration] = model.round_due()
    assert {iteration: number for iteration, number in due.items() if number} == {3: 1, 5: 2, 7: 3}
    model.iteration = 3
    model.rounds_over.fill_(True)
    assert not model.round_due()


def make_round(model: SelfTraining, number: int, confidences: list[float], labels: list[int]) -> list[float]:
    model.iteration = model.warmup_iterations + (number - 1) * model.round_iterations
    given = model.label_pool(torch.tensor([confidences]), torch.tensor([labels]), torch.tensor([0, 2, 3, 5]))
    return [round(float(value), 3) for value in given[0].nan_to_num(0)]


def test_labels_are_given_anew_in_every_round() -> None:
    model = linear(rounds=3, first_share=0.5, last_share=1.0, balance=False)
    assert make_round(model, 1, [0.6, 0.9, 0.7, 0.8], [0, 1, 0, 1]) == [0, 0.9, 0, 0.8]
    assert model.pool_labels.tolist() == [[-1, -1, 1, -1, -1, 1]]
    assert make_round(model, 2, [0.9, 0.6, 0.8, 0.7], [0, 0, 0, 0]) == [0.9, 0, 0.8, 0.7]
    assert model.pool_labels.tolist() == [[0, -1, -1, 0, -1, 0]]
    assert not model.rounds_over
    make_round(model, 3, [0.9, 0.6, 0.8, 0.7], [0, 0, 0, 0])
    assert model.pool_labels.tolist() == [[0, -1, 0, 0, -1, 0]]
    assert model.rounds_over, "there are no more"


def test_labels_stay_where_they_may_not_be_given_anew() -> None:
    model = linear(rounds=3, first_share=0.5, last_share=1.0, balance=False, relabel=False)
    make_round(model, 1, [0.6, 0.9, 0.7, 0.8], [0, 1, 0, 1])
    assert make_round(model, 2, [0.9, 0.95, 0.8, 0.7], [1, 0, 0, 0]) == [0.9, 0, 0, 0]
    assert model.pool_labels.tolist() == [[1, -1, 1, -1, -1, 1]]


def test_rounds_end_with_one_that_changes_nothing_unless_the_pool_is_empty() -> None:
    model = linear(rounds=9, first_share=1.0, threshold=0.65, balance=False)
    make_round(model, 1, [0.6, 0.6, 0.6, 0.6], [0, 1, 0, 1])
    assert not model.rounds_over, "it may yet become confident"
    make_round(model, 2, [0.6, 0.9, 0.7, 0.6], [0, 1, 0, 1])
    assert not model.rounds_over
    make_round(model, 3, [0.6, 0.7, 0.9, 0.6], [1, 1, 0, 0])
    assert model.pool_labels.tolist() == [[-1, -1, 1, 0, -1, -1]]
    assert model.rounds_over
    model.forget_pool()
    assert not model.rounds_over
    assert (model.pool_labels == -1).all()


def test_candidates_are_replaced_when_they_are_chosen() -> None:
    model = self_training(rounds=4, first_share=0.25, relabel=False, balance=False, candidates=30)
    unlabelled = torch.arange(1, 199)
    seen: list[set[int]] = []
    waiting: set[int] = set()
    for number in range(1, 5):
        model.iteration = 4 * number
        before = model.pool_labels[0].clone()
        free = model._free(before[None, unlabelled], unlabelled)[0]
        assert int(free.sum()) == min(30, int((before[unlabelled] == -1).sum()))
        seen.append(set(unlabelled[free].tolist()))
        model.label_pool(torch.rand(1, 198), torch.zeros(1, 198, dtype=torch.int64), unlabelled)
        added = set(((model.pool_labels[0] != -1) & (before == -1)).nonzero().flatten().tolist())
        assert added <= seen[-1]
        assert waiting <= seen[-1], "those that were not chosen wait"
        waiting = seen[-1] - added
    assert seen[0] != set(range(1, 31))
    other = self_training(relabel=False, candidates=30)
    other.seed = 1
    free = other._free(other.pool_labels[:, unlabelled], unlabelled)[0]
    assert set(unlabelled[free].tolist()) != seen[0]


def test_what_it_can_do() -> None:
    model = linear()
    assert isinstance(model, LabelsPool)
    assert isinstance(model, Classifies)
    assert isinstance(model, HasFeatures)
    images = torch.rand(5, *SHAPE)
    confidences, labels = model.propose_labels(images)
    assert torch.equal(labels, model.classify(images).argmax(1)[None])
    torch.testing.assert_close(confidences, model.classify(images).softmax(1).amax(1)[None])
    assert model.features(images).shape == (5, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "model=self_training learns classes, and the data set has none"),
        ({"labelled_per_class": None}, r"set data\.labelled_per_class"),
        ({"rounds": 0}, r"model\.rounds must be at least 1, not 0"),
        ({"round_iterations": 0}, r"model\.round_iterations must be at least 1"),
        ({"warmup_iterations": 0}, r"model\.warmup_iterations must be at least 1"),
        ({"first_share": 0.5, "last_share": 0.4}, r"model\.first_share=0\.5 and model\.last_share=0\.4"),
        ({"last_share": 1.1}, r"must be in \[0, 1\]"),
        ({"threshold": 1.5}, r"model\.threshold must be a probability in \[0, 1\], not 1\.5"),
        ({"pseudo_weight": -1}, r"model\.pseudo_weight must not be negative"),
        ({"candidates": 10}, r"model\.candidates=10 .* model\.relabel=false"),
        ({"candidates": 0, "relabel": False}, r"at least 1"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        self_training(**options)


def test_training_without_rounds_is_refused() -> None:
    model = linear()
    with pytest.raises(UserError, match=r"set data\.labelled_per_class"):
        model.training_iteration(ImageBatch(torch.rand(2, *SHAPE), None))
    model.iteration = model.warmup_iterations
    images, labels = torch.rand(2, *SHAPE), torch.tensor([0, 1])
    with pytest.raises(UserError, match=r"set callbacks\.pseudo_labels as in configs/callbacks/default\.yaml"):
        model.training_iteration(SemiSupervisedBatch(images, labels, images, labels))
