from itertools import product

import pytest
import torch
from torch.nn.functional import adaptive_max_pool2d

from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.models import linear_probe
from lightning_gen.models.feature_sources import pooled
from lightning_gen.models.linear_probe import PENALTIES, Probe
from lightning_gen.tools import probe as tool
from lightning_gen.tools.probe import model_embedding, probe


def levels(labels: torch.Tensor, seed: int) -> ImageSet:
    """Images of 2x2 whose first pixel tells the class and whose others are noise."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 1, 2, 2), generator=rng, dtype=torch.uint8)
    images[:, 0, 0, 0] = (labels * 250).to(torch.uint8)
    return ImageSet(images, labels)


def test_maps_are_max_pooled_to_4x4_flattened_and_concatenated() -> None:
    large = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    small = torch.arange(2 * 5 * 2 * 2.0).reshape(2, 5, 2, 2)
    vector = torch.arange(2 * 7.0).reshape(2, 7)
    uneven = torch.randn(2, 1, 6, 3, generator=torch.Generator().manual_seed(0))
    features = pooled([large, small, vector, uneven])
    assert features.shape == (2, 3 * 16 + 5 * 4 + 7 + 4 * 3)
    # The largest of a 2x2 window of increasing numbers is its last one.
    assert torch.equal(features[:, :48].reshape(2, 3, 4, 4), large[:, :, 1::2, 1::2])
    assert torch.equal(features[:, 48:68], small.flatten(1))
    assert torch.equal(features[:, 68:75], vector)
    assert torch.equal(features[:, 75:], adaptive_max_pool2d(uneven, (4, 3)).flatten(1))


def test_separable_features_are_classified_without_a_mistake() -> None:
    train = levels(torch.arange(40) % 2, 0)
    test = levels(torch.arange(30) % 2, 1)
    draws = [torch.arange(20), torch.arange(20, 40)]
    found = probe(lambda images: images[:, 0, 0, :1].float(), train, test, draws, seed=0)
    assert found.accuracies == [1.0, 1.0]
    assert found.num_features == 1
    assert (found.mean, found.std) == (1.0, 0.0)


def test_features_that_tell_nothing_are_at_chance() -> None:
    train = levels(torch.arange(200) % 2, 0)
    test = levels(torch.arange(400) % 2, 1)
    found = probe(lambda images: images[:, 0, 1].float(), train, test, [torch.arange(200)], seed=0)
    assert 0.4 < found.mean < 0.6
    assert found.std is None


def test_accuracy_is_the_share_of_test_images_that_are_right() -> None:
    train = levels(torch.arange(40) % 2, 0)
    labels = torch.arange(40) % 2
    labels[:10] = 1 - labels[:10]
    mislabelled = ImageSet(levels(torch.arange(40) % 2, 1).images, labels)
    found = probe(lambda images: images[:, 0, 0, :1].float(), train, mislabelled, [torch.arange(40)], seed=0)
    assert found.accuracies == [30 / 40]


def test_only_the_drawn_labels_are_used_for_fitting() -> None:
    train = levels(torch.arange(40) % 2, 0)
    assert train.labels is not None
    hidden = train.labels.clone()
    hidden[20:] = 1 - hidden[20:]
    test = levels(torch.arange(30) % 2, 1)
    draws = [torch.arange(20)]
    found = probe(tool.pixel_embedding, train, test, draws, seed=0)
    assert probe(tool.pixel_embedding, train.with_labels(hidden), test, draws, seed=0) == found
    assert probe(tool.pixel_embedding, train.with_labels(1 - train.labels), test, draws, seed=0) != found


def test_the_labels_of_the_test_images_change_no_c_and_no_prediction() -> None:
    train, test = levels(torch.arange(40) % 2, 0), levels(torch.arange(60) % 2, 1)
    assert test.labels is not None
    draws = [torch.arange(6), torch.arange(6, 20)]
    found = probe(lambda images: images.flatten(1).float(), train, test, draws, seed=0)
    flipped = probe(lambda images: images.flatten(1).float(), train, test.with_labels(1 - test.labels), draws, seed=0)
    assert flipped.penalties == found.penalties
    assert flipped.accuracies == pytest.approx([1 - accuracy for accuracy in found.accuracies])


def test_c_is_the_smallest_of_those_that_are_best_on_a_stratified_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[int, float, int]] = []

    class Spy:
        """Right on 5 of 10 held-out images at C=1 and C=10, on 2 elsewhere."""

        def __init__(self, penalty: float) -> None:
            self.penalty = penalty

        def score(self, features: object, labels: torch.Tensor) -> float:
            assert sorted(labels.tolist()) == [0] * 5 + [1] * 5
            return 0.5 if self.penalty in (1.0, 10.0) else 0.2

    def fit(features: torch.Tensor, labels: torch.Tensor, penalty: float, kind: str) -> Spy:
        assert kind == "svm"
        fits.append((len(features), penalty, int(labels.sum())))
        return Spy(penalty)

    monkeypatch.setattr(linear_probe, "_fit", fit)
    fitted = Probe(torch.randn(40, 3), torch.arange(40) % 2, seed=0)
    assert fitted.penalty == 1.0
    assert fits == [(30, penalty, 15) for penalty in PENALTIES] + [(40, 1.0, 20)]


def test_the_scale_of_the_features_changes_nothing() -> None:
    train, test = levels(torch.arange(40) % 2, 0), levels(torch.arange(60) % 2, 1)
    noisy = tool.pixel_embedding
    found = [
        probe(lambda images, scale=scale: scale * noisy(images), train, test, [torch.arange(16)], seed=0)
        for scale in (1.0, 1024.0, 2.0**-20)
    ]
    assert found[0] == found[1] == found[2]


def test_one_label_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="--labels-per-class"):
        Probe(torch.randn(2, 3), torch.tensor([0, 1]), seed=0)


def test_a_few_labels_leave_one_of_each_class_for_validation() -> None:
    for classes, number in product((3, 10), (2, 3)):
        labels = torch.arange(classes * number) % classes
        features = torch.eye(classes)[labels]
        assert torch.equal(Probe(features, labels, seed=0).predict(features), labels)


def test_models_without_features_are_refused() -> None:
    with pytest.raises(UserError, match="Linear has no features"):
        model_embedding(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
