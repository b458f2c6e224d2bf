"""M2: its objectives against sums over classes done one by one, its likelihood, and what it learns few labels for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_gen.data.batches import ImageBatch, SemiSupervisedBatch
from lightning_gen.errors import UserError
from lightning_gen.losses.variational import gaussian_kl, reparameterize
from lightning_gen.models.m2 import M2
from tests.models.small_vae import ADAM, DECODER, ENCODER, MLP

K = 3


def small_m2(**options: Any) -> M2:
    torch.manual_seed(0)
    networks = {
        "classifier": {"_target_": ENCODER, **MLP},
        "encoder": {"_target_": ENCODER, **MLP},
        "decoder": {"_target_": DECODER, **MLP},
    }
    defaults = {"image_shape": (1, 8, 8), "latent_dim": 2, "optimizer": ADAM, "num_classes": K, "labelled_per_class": 2}
    return M2(**{**defaults, **networks, **options})


def binary(number: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(number, 1, 8, 8, generator=rng).round() * 2 - 1


def test_the_unlabelled_objective_is_the_sum_over_classes_done_by_hand() -> None:
    model, images = small_m2(), binary(4)
    found = model.unlabelled_objective(images, torch.Generator().manual_seed(2))
    noise = torch.randn(4 * K, 2, generator=torch.Generator().manual_seed(2)).view(4, K, 2)
    probabilities = model.classifier(images).softmax(1).detach()
    for row in range(4):
        total = 0.0
        for label in range(K):
            image, told = images[row : row + 1], torch.tensor([label])
            means, log_variances = model.encoder(image, told).chunk(2, 1)
            latents = reparameterize(means, log_variances, noise[row, label])
            logits = model.decoder(latents, told)
            nats = F.binary_cross_entropy_with_logits(logits, (image + 1) / 2, reduction="sum")
            bound = nats + math.log(K) + gaussian_kl(means, log_variances).sum()
            q = float(probabilities[row, label])
            total += q * float(bound) + q * math.log(q)
        assert float(found[row]) == pytest.approx(total, rel=1e-5)


def test_the_objective_is_the_weighted_sum_of_its_three_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_m2(labelled_weight=0.5, classification_weight=3.0)
    steps: list[torch.Tensor] = []
    monkeypatch.setattr(model, "step", steps.append)
    labels = torch.tensor([0, 2])
    losses = model.training_iteration(SemiSupervisedBatch(binary(4), torch.full((4,), -1), binary(2), labels))
    expected = losses["unlabelled"] + 0.5 * losses["labelled"] + 3.0 * losses["classification"]
    torch.testing.assert_close(steps[0], expected)
    torch.testing.assert_close(losses["classification"], F.cross_entropy(model.classifier(binary(2)), labels))


def test_its_likelihood_is_that_of_images_and_bounds_the_objective_from_above() -> None:
    model, images = small_m2(importance_samples=20), binary(60)
    with model.evaluation():
        objective = -model.unlabelled_objective(images, torch.Generator().manual_seed(2))
        bound = model.evidence_bound(images, None, 20, torch.Generator().manual_seed(3))
        bits = model.bits_per_dim(images, torch.zeros(60, dtype=torch.int64), generator=torch.Generator())
        other = model.bits_per_dim(images, None, generator=torch.Generator())
    assert float((bound - objective).mean()) > 0.05
    assert torch.equal(bits, other), "labels are not looked at"
    assert model.likelihood_settings["conditional"] is False


def test_its_likelihood_is_the_sum_over_classes_and_latents() -> None:
    # Two latents on a fine grid: log sum_y p(y) integral p(z) p(x | y, z) dz.
    model, images = small_m2(), binary(3)
    axis = torch.linspace(-5, 5, 101)
    grid = torch.cartesian_prod(axis, axis)
    with model.evaluation():
        # Estimates of p(x) of 200 copies of each image, whose mean has 200 times as many draws.
        copies = model.evidence_bound(images.repeat(200, 1, 1, 1), None, 400, torch.Generator().manual_seed(0))
        bound = torch.logsumexp(copies.view(200, 3), 0) - math.log(200)
        total = []
        for label in range(K):
            labels = torch.full((len(grid),), label)
            prior = -0.5 * grid.square().sum(1) - math.log(2 * math.pi) + 2 * math.log(0.1)
            rows = [model.log_likelihood(image.expand(len(grid), -1, -1, -1), grid, labels) for image in images]
            total.append(torch.stack([torch.logsumexp(row + prior, 0) for row in rows]) - math.log(K))
    np.testing.assert_allclose(bound, torch.logsumexp(torch.stack(total), 0), atol=0.02)


def test_the_baseline_trains_the_classifier_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_m2(supervised_only=True)
    monkeypatch.setattr(model, "step", lambda loss: loss.backward())
    batch = SemiSupervisedBatch(binary(4), torch.full((4,), -1), binary(2), torch.tensor([0, 2]))
    assert set(model.training_iteration(batch)) == {"classification"}
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"classifier"}


def test_images_without_labels_are_encoded_as_the_class_that_is_told() -> None:
    model, images = small_m2(), binary(5)
    with model.evaluation():
        told = model.classify(images).argmax(1)
        assert torch.equal(model.features(images), model.encode(images, told))
        assert not torch.equal(model.features(images), model.encode(images, (told + 1) % K))
        assert torch.equal(model.reconstruct(images), model.decode(model.encode(images, told), told))
        drawn = model.sample(9, torch.arange(9) % K, generator=torch.Generator())
    assert drawn.shape == (9, 1, 8, 8)
    assert model.label_law == [1 / K] * K


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "the data set has none"),
        ({"labelled_per_class": None}, r"set data\.labelled_per_class"),
        ({"labelled_weight": -1.0}, "must not be negative"),
        ({"encoder": {"_target_": ENCODER.replace("MLP", "Map")}}, r"model\.encoder=.* takes no labels"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_m2(**options)


def test_batches_without_a_labelled_part_are_refused() -> None:
    with pytest.raises(UserError, match=r"set data\.labelled_per_class"):
        small_m2().training_iteration(ImageBatch(binary(2), None))
