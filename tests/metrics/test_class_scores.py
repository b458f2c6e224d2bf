from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from lightning_gen.callbacks.scores import evaluate_model
from lightning_gen.errors import UserError
from lightning_gen.metrics.base import ScoringPlan, score_metrics
from lightning_gen.metrics.class_scores import ClassAccuracy
from lightning_gen.metrics.evaluator import Evaluator
from lightning_gen.metrics.extractors import FeatureExtractor, Features
from lightning_gen.metrics.reference import Reference
from lightning_gen.models import GenerativeModel

CLASSES = 4


class Brightness(FeatureExtractor):
    """The class of an image is its level over 64, which is its only feature."""

    name = "brightness"
    num_features = 1
    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Features:
        level = images[:, :1, 0, 0].float()
        return Features(level, nn.functional.one_hot(level[:, 0].long() // 64, CLASSES).float())

    def protocol(self) -> dict[str, Any]:
        return {"name": self.name}

    def check_image_shape(self, image_shape: tuple[int, int, int]) -> None:
        del image_shape


class Painter(GenerativeModel):
    """Makes images of the class that it is asked for, but paints class 3 as class 0 and draws noise first."""

    def __init__(self, law: list[float] | None) -> None:
        super().__init__()
        self.label_law = law
        self.asked_for: list[Tensor | None] = []

    def training_iteration(self, batch: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def sample(self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator) -> Tensor:
        self.asked_for.append(labels)
        torch.randn(num_samples, generator=generator)
        classes = torch.zeros(num_samples, dtype=torch.int64) if labels is None else labels % 3
        return ((classes * 64 + 32) / 127.5 - 1)[:, None, None, None].expand(-1, 1, 8, 8)


def evaluator(tmp_path: Path, *metrics: str, **options: Any) -> Evaluator:
    made = Evaluator({"name": "random"}, metrics, cache_dir=tmp_path, **{"num_samples": 200, **options})
    made.extractor = Brightness()
    return made


def levels(counts: list[int]) -> Tensor:
    """uint8 images, so many of each class."""
    classes = torch.arange(CLASSES).repeat_interleave(torch.tensor(counts))
    return (classes * 64 + 32).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)


def histogram_score(name: str, samples: list[int], reference: list[int]) -> float:
    counts = torch.tensor(reference)
    metric = score_metrics[name](Brightness(), sum(samples), Reference(class_counts=counts))
    images = levels(samples)
    for indices in torch.arange(len(images)).split(16):
        metric.update(Brightness()(images[indices]), indices)
    return metric.compute().value


def test_accuracy_is_the_share_of_samples_of_the_class_asked_for() -> None:
    metric = ClassAccuracy(Brightness(), 6, None)
    features = Brightness()(levels([2, 2, 1, 1]))  # classes 0 0 1 1 2 3
    metric.update(features, torch.arange(6), torch.tensor([0, 1, 1, 1, 3, 2]))
    assert metric.compute().value == 3 / 6
    with pytest.raises(ValueError, match="labels"):
        metric.update(features, torch.arange(6))


def test_samples_are_asked_for_by_the_law_and_compared_with_what_was_asked_for(tmp_path: Path) -> None:
    painter = Painter([0.5, 0.25, 0, 0.25])
    (score,) = evaluate_model(evaluator(tmp_path, "class_accuracy"), painter)
    assert all(labels is not None for labels in painter.asked_for)
    asked_for = torch.cat([labels for labels in painter.asked_for if labels is not None])
    counts = asked_for.bincount(minlength=CLASSES)
    assert counts[0].item() == pytest.approx(100, abs=25)
    assert counts[2] == 0
    assert (score.name, score.value) == ("class_accuracy_brightness", 1 - counts[3].item() / 200)
    assert score.protocol["labels"] == {"law": [0.5, 0.25, 0, 0.25]}
    assert not score.lower_is_better
    assert score.protocol["reference"] is None


def test_a_model_without_classes_is_asked_for_none(tmp_path: Path) -> None:
    painter = Painter(None)
    (score,) = evaluate_model(evaluator(tmp_path, "inception_score"), painter)
    assert painter.asked_for == [None] * 4
    assert score.protocol["labels"] is None


def test_accuracy_is_refused_before_training_where_it_means_nothing(tmp_path: Path) -> None:
    made = evaluator(tmp_path, "class_accuracy")
    made.check((1, 8, 8), 100, label_classes=CLASSES)
    with pytest.raises(UserError, match=r"model\.conditional=true"):
        made.check((1, 8, 8), 100)
    with pytest.raises(UserError, match=r"has 10 classes.*predicts 4"):
        made.check((1, 8, 8), 100, label_classes=10)
    made.extractor.num_classes = None
    for name in ("class_accuracy", "class_kl", "missing_modes"):
        with pytest.raises(UserError, match="class logits"):
            evaluator(tmp_path, name).metric_classes[name].check(ScoringPlan(made.extractor, 9, "train", 100, CLASSES))


@pytest.mark.parametrize("samples", [[10, 20, 30, 40], [25, 25, 25, 25], [0, 0, 50, 50], [100, 0, 0, 0]])
def test_divergence_of_class_histograms_agrees_with_scipy(samples: list[int]) -> None:
    reference = [10, 20, 30, 40]
    assert histogram_score("class_kl", samples, reference) == pytest.approx(entropy(samples, reference), abs=1e-12)


def test_divergence_of_known_cases() -> None:
    assert histogram_score("class_kl", [5, 10, 15, 20], [10, 20, 30, 40]) == pytest.approx(0, abs=1e-12)
    assert histogram_score("class_kl", [40, 0, 0, 0], [10, 10, 10, 10]) == pytest.approx(np.log(4), rel=1e-12)
    # Three classes that the reference never shows count as half an image each: 21.5 in all.
    expected = 0.5 * np.log(0.5 / (20 / 21.5)) + 0.5 * np.log(0.5 / (0.5 / 21.5))
    assert histogram_score("class_kl", [8, 8, 0, 0], [20, 0, 0, 0]) == pytest.approx(expected, rel=1e-12)


def test_classes_below_a_tenth_of_their_share_are_missing() -> None:
    assert histogram_score("missing_modes", [100, 100, 100, 100], [10, 10, 10, 10]) == 0
    assert histogram_score("missing_modes", [200, 200, 0, 0], [10, 10, 10, 10]) == 2
    assert histogram_score("missing_modes", [300, 80, 10, 10], [10, 10, 10, 10]) == 0  # a tenth of 1/4 exactly
    assert histogram_score("missing_modes", [301, 80, 10, 9], [10, 10, 10, 10]) == 1
    assert histogram_score("missing_modes", [40, 0, 0, 0], [20, 0, 0, 0]) == 0
    assert histogram_score("missing_modes", [1, 0, 0, 999], [1, 0, 0, 999]) == 0


def test_the_reference_histogram_is_of_the_extractors_predictions(tmp_path: Path) -> None:
    made = evaluator(tmp_path, "class_kl", "missing_modes")
    made.set_reference("levels", levels([70, 10, 20, 0]))
    painter = Painter([0.7, 0.1, 0.2, 0])
    divergence, missing = evaluate_model(made, painter)
    asked_for = torch.cat([labels for labels in painter.asked_for if labels is not None]).bincount(minlength=CLASSES)
    assert divergence.name == "class_kl_brightness"
    assert missing.name == "missing_modes_brightness"
    # The class without images counts as half of one.
    assert divergence.value == pytest.approx(entropy(asked_for, [70, 10, 20, 0.5]), rel=1e-9)
    assert missing.value == 0
    made.set_reference("levels", levels([70, 10, 20, 50]))
    assert evaluate_model(made, Painter([0.7, 0.1, 0.2, 0]))[1].value == 1
