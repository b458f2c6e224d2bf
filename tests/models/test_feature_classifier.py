"""Classifiers fitted at once to features: where features come from, what they are fitted to, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from lightning_gen.callbacks.fit_classifier import FitClassifier, training_blocks
from lightning_gen.configuration import compose_config
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.models.capabilities import Classifies, FitsFeatures, HasFeatures
from lightning_gen.models.feature_classifier import FeatureClassifier
from lightning_gen.models.feature_heads import GaussianMixtureHead, LinearHead
from lightning_gen.models.feature_sources import build_source, pooled
from lightning_gen.models.linear_probe import Probe
from lightning_gen.training import train
from tests.models.small import fit, small_gan
from tests.trainers import quiet_trainer

LINEAR = {"_target_": "lightning_gen.models.feature_heads.LinearHead"}
MIXTURE = {"_target_": "lightning_gen.models.feature_heads.GaussianMixtureHead"}
QUIET = ("logger=none", "trainer=cpu", "run_name=run", "experiment_name=tiny")


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule("unused", **{"image_size": 8, "labelled_per_class": 5, **options})


def classifier(head: dict[str, Any] = MIXTURE, **options: Any) -> FeatureClassifier:
    return FeatureClassifier((1, 8, 8), **{"source": {}, "head": head, "num_classes": 10, **options})


def blobs(number: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % classes
    return 2 * torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))[labels] + torch.randn(
        number, 6, generator=rng
    ), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("kind", "model"), [("svm", LinearSVC), ("logistic", LogisticRegression)])
def test_a_linear_head_has_the_decisions_of_scikit_learn(classes: int, kind: Any, model: Any) -> None:
    features, labels = blobs(80, classes)
    unseen, _ = blobs(300, classes, seed=1)
    head = LinearHead(6, classes, kind)
    # Labels that are hidden, and features without one, change nothing.
    facts = head.fit(torch.cat([features, unseen]), torch.cat([labels, torch.full((300,), -1)]), seed=3)
    probe = Probe(features, labels, 3, kind)
    assert facts == {"penalty": probe.penalty}
    logits = head(unseen).detach()
    assert torch.equal(logits.argmax(1), probe.predict(unseen))
    assert len(logits.argmax(1).unique()) == classes
    scale = 1 / features.double().square().sum(1).mean().sqrt()
    reference = model(C=probe.penalty, **({"random_state": 0} if kind == "svm" else {"max_iter": 1000}))
    reference.fit((features * float(scale)).numpy(), labels.numpy())
    decisions = reference.decision_function((unseen * float(scale)).numpy())
    found = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    np.testing.assert_allclose(found, decisions, atol=1e-4)
    if kind == "logistic":
        expected = reference.predict_proba((unseen * float(scale)).numpy())
        np.testing.assert_allclose(logits.softmax(1), expected, atol=1e-5)


def test_a_penalty_that_is_given_is_not_chosen() -> None:
    features, labels = blobs(4, 4)
    assert LinearHead(6, 4, penalty=0.5).fit(features, labels, seed=0) == {"penalty": 0.5}
    with pytest.raises(UserError, match=r"set data\.labelled_per_class to at least 2, or model\.head\.penalty"):
        LinearHead(6, 4).fit(features, labels, seed=0)


def test_a_fitted_head_is_in_the_state_dict() -> None:
    features, labels = blobs(200, 4)
    for make in (lambda: LinearHead(6, 4), lambda: GaussianMixtureHead(6, 4, 2, "tied")):
        head, other = make(), make()
        head.fit(features, labels, seed=0)
        assert all(not torch.equal(one, two) for one, two in zip(head.parameters(), other.parameters(), strict=True))
        other.load_state_dict(head.state_dict())
        assert torch.equal(head(features), other(features))
        assert head(features).dtype == torch.float32
        assert (head(features).argmax(1) == labels).double().mean() > 0.9


def test_a_class_without_labels_is_named() -> None:
    features, labels = blobs(20, 4)
    with pytest.raises(UserError, match="class 2 has no labelled training image"):
        GaussianMixtureHead(6, 4).fit(features, labels.masked_fill(labels == 2, -1), seed=0)


def test_it_is_fitted_to_the_training_images_with_the_labels_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits(validation_share=0.2, augmentation={"pad_crop": 2})
    seen: list[tuple[Tensor, Tensor]] = []
    original = FeatureClassifier.fit_images

    def watched(self: FeatureClassifier, blocks: Any) -> Any:
        seen.extend(blocks)
        return original(self, iter(seen))

    monkeypatch.setattr(FeatureClassifier, "fit_images", watched)
    model = classifier(pca=6)
    assert isinstance(model, FitsFeatures)
    quiet_trainer(1, FitClassifier(block_size=100)).fit(model, datamodule=data)
    images, labels = (torch.cat(each) for each in zip(*seen, strict=True))
    train, val = data.split("train"), data.split("val")
    assert isinstance(train, ImageSet)
    assert isinstance(val, ImageSet)
    assert len(seen) == -(-len(train) // 100)
    assert torch.equal(images, to_float(train.images)), "all of them, in order and not augmented"
    known = (labels >= 0).nonzero().flatten()
    assert torch.equal(known, data.labelled_indices)  # type: ignore[arg-type]
    assert train.labels is not None
    assert torch.equal(labels[known], train.labels[known])
    assert len(known) == 50
    assert model.fitted
    assert model.iteration == 1


def test_a_head_of_labels_alone_sees_no_other_image() -> None:
    data = digits()
    model = classifier(LINEAR)
    assert not model.uses_unlabelled
    assert classifier(LINEAR, pca=3).uses_unlabelled
    ((images, labels),) = training_blocks(data, model.uses_unlabelled, 100)
    assert len(images) == 50
    assert labels.min() == 0
    everything = digits(labelled_per_class=None)
    assert sum(len(labels) for _, labels in training_blocks(everything, False, 500)) == 1437


def test_the_labels_of_other_images_change_nothing() -> None:
    models = []
    for shift in (0, 1):
        data = digits()
        chosen, train = data.labelled_indices, data.split("train")
        assert chosen is not None
        assert train.labels is not None
        others = (train.labels + shift) % 10
        others[chosen] = train.labels[chosen]
        data._splits["train"] = train.with_labels(others)
        model = classifier(pca=6)
        quiet_trainer(1, FitClassifier()).fit(model, datamodule=data)
        models.append(model.state_dict())
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_principal_components_are_those_of_all_training_images() -> None:
    data = digits()
    model = classifier(pca=5)
    quiet_trainer(1, FitClassifier()).fit(model, datamodule=data)
    train, test = data.reference_set("train"), data.reference_set("test")
    reference = PCA(5).fit(to_float(train.images).flatten(1).double().numpy())
    found = model.features(to_float(test.images)).abs()
    expected = np.abs(reference.transform(to_float(test.images).flatten(1).double().numpy()))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_nothing_is_classified_without_a_fit() -> None:
    with pytest.raises(UserError, match=r"nothing fitted the classifier: set callbacks\.fit_classifier"):
        quiet_trainer(1).fit(classifier(pca=6), datamodule=digits())


@pytest.mark.parametrize(("experiment", "limit"), [("gaussian_mixture_digits", 8.0), ("svm_features_digits", 12.0)])
def test_a_run_of_a_moment_scores_and_comes_back(
    experiment: str, limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = train(compose_config([f"experiment={experiment}", *QUIET, f"paths.output_dir={tmp_path}"]))
    assert record is not None
    (score,) = record["scores"]
    assert score["name"] == "test_error"
    assert 2 < score["value"] < limit
    assert score["protocol"]["labels"]["number"] == 100
    assert record["iterations"] == 1
    checkpoint = tmp_path / "tiny" / "run" / "checkpoints" / "last.ckpt"
    model = load_model(read_checkpoint(checkpoint))
    assert isinstance(model, Classifies)
    test = DigitsDataModule("unused", image_size=8).reference_set("test")
    assert test.labels is not None
    wrong = (model.classify(to_float(test.images)).argmax(1) != test.labels).sum()
    assert 100 * int(wrong) / len(test) == pytest.approx(score["value"])

    # A run that goes on from it keeps the fit.
    monkeypatch.setattr(FeatureClassifier, "fit_images", None)
    again = compose_config([f"experiment={experiment}", *QUIET, f"paths.output_dir={tmp_path}", "resume=auto"])
    again["trainer"]["max_steps"] = 2
    resumed = train(again)
    assert resumed is not None
    assert resumed["iterations"] == 2
    assert resumed["scores"][0]["value"] == score["value"]


def images_of_32(number: int = 3) -> Tensor:
    return torch.rand(number, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_runs_features_are_its_models_and_travel_in_the_checkpoint(tmp_path: Path) -> None:
    gan = small_gan()
    gan_file, own_file = tmp_path / "gan.ckpt", tmp_path / "own.ckpt"
    fit(gan, 2).save_checkpoint(gan_file)
    gan.eval()
    with torch.no_grad():
        maps, last = pooled(gan.feature_maps(images_of_32())), gan.features(images_of_32())
    for which, expected in (("maps", maps), ("last", last)):
        model = FeatureClassifier((1, 32, 32), {"run": str(gan_file), "features": which}, LINEAR, num_classes=10)
        model.train()
        assert torch.equal(model.features(images_of_32()), expected)
        assert model.source.num_features == expected.shape[1]
    assert "generator" not in {name.split(".")[2] for name in model.state_dict() if name.startswith("source.")}
    before = {name: tensor.clone() for name, tensor in model.source.state_dict().items()}
    data = DigitsDataModule("unused", labelled_per_class=5)
    done = quiet_trainer(2, FitClassifier())
    done.fit(model, datamodule=data)
    done.save_checkpoint(own_file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.source.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.source.parameters())
    gan_file.unlink()
    again = load_model(read_checkpoint(own_file))
    assert isinstance(again, Classifies)
    assert torch.equal(again.classify(images_of_32()), model.eval().classify(images_of_32()))


def test_a_runs_features_are_those_of_its_averaged_weights(tmp_path: Path) -> None:
    config = ["model=vae_mlp", "model.encoder.hidden=[6]", "model.decoder.hidden=[6]", "data.image_size=8"]
    config += ["metrics=none", "trainer.max_steps=3", "model.importance_samples=1", "callbacks.samples=null"]
    quiet = ["callbacks.interpolation=null", "callbacks.reconstructions=null", f"paths.output_dir={tmp_path}"]
    train(compose_config([*config, *QUIET, *quiet]))
    run = tmp_path / "tiny" / "run"
    vae = load_model(read_checkpoint(run / "checkpoints" / "last.ckpt"))
    assert isinstance(vae, HasFeatures)
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    with vae.evaluation():
        averaged = vae.features(images)
    with vae.evaluation(use_average=False):
        raw = vae.features(images)
    found = build_source({"run": str(run)}, (1, 8, 8), "model.source")(images)
    assert torch.equal(found, averaged)
    assert not torch.equal(found, raw)


class Told(GenerativeModel):
    """Classifies by two linear layers and has no other features."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))

    def training_iteration(self, batch: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def classify(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Silent(GenerativeModel):
    """Has nothing to look at."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()

    def training_iteration(self, batch: Any) -> dict[str, Tensor]:
        raise NotImplementedError


def test_a_classifiers_features_are_what_its_last_layer_sees() -> None:
    spec = {"_target_": f"{__name__}.Told", "image_shape": [1, 8, 8]}
    source = build_source({"run": spec}, (1, 8, 8), "model.source")
    images = torch.rand(2, 1, 8, 8)
    layers = source.model.layers
    assert torch.equal(source(images), layers[1](images.flatten(1)).relu())
    assert source.num_features == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"run": "nowhere"}, "No checkpoint at nowhere"),
        ({"runs": "x"}, "model.source has no option 'runs'. Did you mean 'run'"),
        ({"run": "x", "torchvision": "resnet18"}, "has a run and a network of torchvision"),
        ({"features": "first"}, "model.source.features must be maps or last, not 'first'"),
        ({"torchvision": "resnet19"}, "torchvision has no classifier 'resnet19'. Did you mean 'resnet18'"),
        ({"torchvision": "squeezenet1_0"}, "SqueezeNet has no linear layer"),
        (
            {"run": {"_target_": f"{__name__}.Told", "image_shape": [3, 8, 8]}},
            r"model.source.run was trained on images of \(3, 8, 8\), not \(1, 8, 8\): set data.image_size",
        ),
        (
            {"run": {"_target_": f"{__name__}.Silent", "image_shape": [1, 8, 8]}},
            "model.source.run: Silent has no features",
        ),
    ],
)
def test_sources_that_mean_nothing_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_source(spec, (1, 8, 8), "model.source")


def test_networks_of_torchvision_take_weights_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet18
    from torchvision.transforms.functional import normalize

    torch.manual_seed(1)
    network = resnet18(num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    spec = {"torchvision": "resnet18", "weights": str(tmp_path / "weights.pth"), "size": None}
    source = build_source(spec, (1, 32, 32), "model.source")
    images = images_of_32(2)
    with torch.no_grad():
        found = source(images)
        assert found.shape == (2, 512)
        network.fc = nn.Identity()  # type: ignore[assignment]
        rgb = normalize((images.expand(-1, 3, -1, -1) + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(found, network(rgb))
    assert source.spec["weights"] is None, "a checkpoint holds them"
    for name, message in (("absent.pth", "there is no file"), ("other.pth", "does not hold the network's weights")):
        torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(UserError, match=message) as error:
            build_source({**spec, "weights": str(tmp_path / name)}, (1, 32, 32), "model.body")
        assert str(error.value).startswith(f"model.body.weights: {'there' if 'absent' in name else str(tmp_path)}")
        assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        UserError, match=r"no file .*checkpoints/resnet18-.*\.pth: download https://.*resnet18"
    ) as error:
        build_source({**spec, "weights": "DEFAULT"}, (1, 32, 32), "model.source")
    assert "\n" not in str(error.value)


def test_networks_of_torchvision_name_the_size_that_they_may_want(monkeypatch: pytest.MonkeyPatch) -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.Linear(4, 2))
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: small)
    with pytest.raises(UserError, match=r"=resnet18 cannot take images of \(1, 8, 8\).*set model\.source\.size=224"):
        build_source({"torchvision": "resnet18"}, (1, 8, 8), "model.source")
    small = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.Linear(4, 2))
    assert build_source({"torchvision": "resnet18", "size": 16}, (1, 8, 8), "model.source").num_features == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "the data set has none"),
        ({"pca": 65}, "model.pca=65 must be null or from 1 to the number of features, 64"),
        ({"head": {**LINEAR, "kind": "rbf"}}, "model.head.kind must be svm or logistic"),
        ({"head": {**LINEAR, "penalty": 0}}, "model.head.penalty must be above 0"),
        ({"head": {**MIXTURE, "covariance": "diagonal"}}, "covariance must be one of full, tied, diag, spherical"),
        ({"head": {**MIXTURE, "unlabelled_weight": 2}}, r"unlabelled_weight must be in \[0, 1\]"),
        ({"head": {**MIXTURE, "components_per_class": 0}}, "must be at least 1"),
        ({"head": {**MIXTURE, "tolerance": -1}}, "must not be negative"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        classifier(**options)


def test_more_components_than_images_and_empty_blocks_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.pca=20 is more than the 10 training images"):
        classifier(pca=20).fit_images(iter([(torch.rand(10, 1, 8, 8), torch.arange(10))]))
    with pytest.raises(UserError, match="block_size must be at least 1"):
        FitClassifier(block_size=0)
