"""Co-training: who teaches whom, the joint prediction, where it must help and where it must hurt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_gen.data.batches import SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.models.capabilities import Classifies, HasFeatures, LabelsPool
from lightning_gen.models.co_training import CoTraining
from tests.models.small_pools import KERNEL, LINEAR, SGD, SHAPE, PointSet, error, point_images, train, two_lines

ROUNDS = {"warmup_iterations": 4, "round_iterations": 4, "rounds": 10}
STEPS = 48


def co_training(**options: Any) -> CoTraining:
    torch.manual_seed(0)
    defaults = {
        **ROUNDS,
        "image_shape": SHAPE,
        "classifier": LINEAR,
        "optimizer": SGD,
        "num_classes": 2,
        "num_training_images": 200,
        "labelled_per_class": 1,
        "views": "top_bottom",
    }
    return CoTraining(**{**defaults, **options})


def independent_views(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each half shows one of four patterns of the class, drawn without regard to the other half's."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(200) % 2
    images = torch.zeros(200, 16, dtype=torch.uint8)
    for half in range(2):
        pattern = torch.randint(4, (200,), generator=rng)
        images[torch.arange(200), 8 * half + 4 * labels + pattern] = 255
    return images.view(200, *SHAPE), labels


@pytest.mark.parametrize("pool", ["shared", "separate"])
@pytest.mark.parametrize("seed", [0, 1])
def test_views_that_tell_nothing_of_one_another_teach_each_other(pool: str, seed: int, tmp_path: Path) -> None:
    # One image of each class is labelled: an image is told if one of its patterns is, 7 of 16, and guessed otherwise.
    images, labels = independent_views(seed)
    alone, model = co_training(warmup_iterations=2 * STEPS), co_training(pool=pool, relabel=False)
    train(alone, PointSet(images, labels, [0, 1], seed), STEPS, tmp_path / "alone")
    lines = train(model, PointSet(images, labels, [0, 1], seed), STEPS, tmp_path / "rounds")
    assert error(alone, images, labels) > 15
    assert error(model, images, labels) < 2
    assert len(lines[-1]["pools"]) == {"shared": 1, "separate": 2}[pool]


@pytest.mark.parametrize("pool", ["shared", "separate"])
def test_equal_views_that_both_mislead_make_it_worse(pool: str, tmp_path: Path) -> None:
    # Both halves show the same point, and its cluster contradicts its class (see the tests of self-training).
    images, labels = point_images(two_lines(0)), (torch.arange(200) % 100 >= 50).long()
    alone = co_training(classifier=KERNEL, warmup_iterations=2 * STEPS)
    model = co_training(classifier=KERNEL, pool=pool, relabel=False)
    train(alone, PointSet(images, labels, [17, 182]), STEPS, tmp_path / "alone")
    lines = train(model, PointSet(images, labels, [17, 182]), STEPS, tmp_path / "rounds")
    assert error(alone, images, labels) < 30
    assert error(model, images, labels) > 45
    assert lines[-1]["pools"][0]["wrong"] > 75


CONFIDENCES = torch.tensor([[0.9, 0.8, 0.6, 0.7], [0.6, 0.95, 0.9, 0.5]])
LABELS = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])
UNLABELLED = torch.tensor([1, 2, 3, 5])


def rounds_of(pool: str, **options: Any) -> CoTraining:
    return co_training(pool=pool, num_training_images=6, balance=False, rounds=2, last_share=1.0, **options)


def test_a_shared_pool_gets_what_both_chose() -> None:
    model = rounds_of("shared", first_share=0.5)
    model.iteration = 4
    given = model.label_pool(CONFIDENCES, LABELS, UNLABELLED)
    # One each: the first classifier's first image and the second one's second.
    assert model.pool_labels.tolist() == [[-1, 0, 1, -1, -1, -1]]
    torch.testing.assert_close(given, torch.tensor([[0.9, 0.95, torch.nan, torch.nan]]), equal_nan=True)
    model.iteration = 8
    model.label_pool(CONFIDENCES, LABELS, UNLABELLED)
    # Two each, the second image twice: the more confident one is followed.
    assert model.pool_labels.tolist() == [[-1, 0, 1, 0, -1, -1]]
    assert model.rounds_over


def test_each_of_separate_pools_gets_what_the_other_classifier_chose() -> None:
    model = rounds_of("separate", first_share=0.25, relabel=False)
    model.iteration = 4
    given = model.label_pool(CONFIDENCES, LABELS, UNLABELLED)
    assert model.pool_labels.tolist() == [[-1, -1, 1, -1, -1, -1], [-1, 0, -1, -1, -1, -1]]
    assert given.nan_to_num(0).tolist() == [[0, pytest.approx(0.95), 0, 0], [pytest.approx(0.9), 0, 0, 0]]
    model.iteration = 8
    model.label_pool(CONFIDENCES, LABELS, UNLABELLED)
    assert model.pool_labels.tolist() == [[-1, 1, 1, 0, -1, 0], [-1, 0, 0, 1, -1, 1]]


def test_each_classifier_sees_its_view_and_learns_its_pool() -> None:
    model = co_training(pool="separate", num_training_images=6)
    images, labelled, labels = torch.rand(3, *SHAPE), torch.rand(2, *SHAPE), torch.tensor([0, 1])
    model.batch_pool_labels = torch.tensor([[1, -1, -1], [-1, 0, 1]])
    found, pseudo = model.losses(SemiSupervisedBatch(images, torch.full((3,), -1), labelled, labels))
    top, bottom = model.classifier_a(images[:, :, :2]), model.classifier_b(images[:, :, 2:])
    expected = F.cross_entropy(top[:1], torch.tensor([1])) + 2 * F.cross_entropy(bottom[1:], torch.tensor([0, 1]))
    torch.testing.assert_close(pseudo, expected / 3)
    logits = model.classifier_a(labelled[:, :, :2]), model.classifier_b(labelled[:, :, 2:])
    torch.testing.assert_close(found, sum(F.cross_entropy(each, labels) for each in logits))
    model.batch_pool_labels = None
    assert not torch.equal(model.classifier_a.layers[0].weight, model.classifier_b.layers[0].weight)  # type: ignore


def test_a_class_is_told_by_the_product_of_both_posteriors() -> None:
    model = co_training()
    assert isinstance(model, LabelsPool)
    assert isinstance(model, Classifies)
    assert isinstance(model, HasFeatures)
    images = torch.rand(50, *SHAPE) * 2 - 1
    first, second = (logits.softmax(1) for logits in model.all_logits(images))
    torch.testing.assert_close((2 * model.classify(images)).exp(), first * second)
    assert len({tuple(each.argmax(1).tolist()) for each in (first, second, first * second)}) == 3
    assert model.features(images).shape == (50, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labelled_per_class": None}, r"model=co_training .* set data\.labelled_per_class"),
        ({"pool": "common"}, r"model\.pool must be shared or separate, not 'common'"),
        ({"views": "diagonal"}, r"model\.views must be top_bottom, left_right or specs of two views, not 'diagonal'"),
        ({"views": [{"_target_": "lightning_gen.networks.views.Pixels"}]}, r"model\.views must be two views, not 1"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        co_training(**options)


def test_views_may_be_any_two() -> None:
    specs = [{"_target_": f"lightning_gen.networks.views.{name}"} for name in ("Pixels", "Gradients")]
    model = co_training(views=specs)
    assert [logits.shape for logits in model.all_logits(torch.rand(3, *SHAPE))] == [(3, 2), (3, 2)]
    assert model.features(torch.rand(3, *SHAPE)).shape == (3, 16 + 32)
