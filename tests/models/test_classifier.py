"""The plain classifier: what it learns from, and what its features are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_gen.data.batches import ImageBatch, SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.models.capabilities import Classifies, HasFeatures, LabelsPool
from lightning_gen.models.classifier import Classifier, hidden_features

ENCODERS = "lightning_gen.networks.encoders."
CONV = {"_target_": f"{ENCODERS}ConvEncoder", "base_channels": 2, "hidden": 5, "norm": "batch"}


def small_classifier(**options: Any) -> Classifier:
    torch.manual_seed(0)
    defaults = {"image_shape": (1, 8, 8), "classifier": CONV, "optimizer": {"name": "Adam"}, "num_classes": 3}
    return Classifier(**{**defaults, **options})


@pytest.mark.parametrize("few", [True, False])
def test_it_learns_from_the_labelled_images_alone(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = small_classifier(), []
    monkeypatch.setattr(model, "step", steps.append)
    images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    batch: Any = ImageBatch(images, labels)
    if few:
        batch = SemiSupervisedBatch(torch.full((4, 1, 8, 8), torch.nan), torch.full((4,), -1), images, labels)
    loss = model.training_iteration(batch)["loss"]
    torch.testing.assert_close(loss, F.cross_entropy(model.classify(images), labels))
    assert steps == [loss]


@pytest.mark.parametrize("name", ["MLPEncoder", "ConvEncoder", "ResNetEncoder"])
def test_its_logits_are_linear_in_its_features(name: str) -> None:
    model = small_classifier(classifier={"_target_": ENCODERS + name})
    assert isinstance(model, Classifies)
    assert isinstance(model, HasFeatures)
    assert not isinstance(model, LabelsPool)
    images = torch.rand(4, 1, 8, 8)
    with model.evaluation():
        features, logits = model.features(images), model.classify(images)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(last(features), logits)
    assert not last._forward_pre_hooks, "nothing is left behind"


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="model=classifier learns classes, and the data set has none"):
        small_classifier(num_classes=0)
    with pytest.raises(UserError, match="the batch has none"):
        small_classifier().training_iteration(ImageBatch(torch.rand(2, 1, 8, 8), None))
    with pytest.raises(UserError, match="Flatten has no linear layer"):
        hidden_features(nn.Flatten(), torch.rand(2, 1, 8, 8))
