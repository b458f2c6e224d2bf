import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors import FeatureExtractor, Features, create_extractor
from lightning_gen.metrics.inception_score import InceptionScore


def score(logits: torch.Tensor, order: torch.Tensor | None = None) -> tuple[float, float | None]:
    extractor = create_extractor("random")
    extractor.num_classes = logits.shape[1]
    metric = InceptionScore(extractor, len(logits), None)
    order = torch.arange(len(logits)) if order is None else order
    for indices in order.split(7):
        metric.update(Features(torch.empty(len(indices), 1), logits[indices]), indices)
    return metric.compute()


def test_certain_and_balanced_predictions_score_the_number_of_classes() -> None:
    logits = 1000 * torch.eye(4).repeat(25, 1)  # every split of 10 holds 4 classes two or three times
    balanced = 1000 * torch.eye(5).repeat(20, 1)  # every split holds 5 classes twice
    value, std = score(balanced)
    assert value == pytest.approx(5, rel=1e-9)
    assert std == pytest.approx(0, abs=1e-9)
    assert 3.8 < score(logits)[0] < 4


def test_equal_predictions_score_one() -> None:
    assert score(torch.randn(1, 6).repeat(50, 1))[0] == pytest.approx(1, rel=1e-9)


def test_agrees_with_torch_fidelity_in_any_order_of_arrival() -> None:
    logits = torch.randn(203, 10) * 3
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    value, std = score(logits)
    assert value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-5)
    shuffled = score(logits, torch.from_numpy(np.random.default_rng(0).permutation(203)))
    assert shuffled[0] == pytest.approx(value, rel=1e-12)


def test_needs_classes_and_samples() -> None:
    class Classless(FeatureExtractor):
        name = "classless"
        num_features = 3

    with pytest.raises(UserError, match="class logits"):
        InceptionScore(Classless(), 100, None)
    with pytest.raises(UserError, match="num_samples"):
        InceptionScore(create_extractor("random"), 5, None)
