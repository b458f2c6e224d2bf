"""Transfer: what is trained when, at which rate, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_gen.configuration import compose_config
from lightning_gen.data.batches import ImageBatch, SemiSupervisedBatch
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.capabilities import Classifies, HasFeatures
from lightning_gen.models.transfer import Transfer
from lightning_gen.training import train
from tests.models.small import ADAM, fit, small_gan
from tests.trainers import quiet_trainer

GAN_SPEC = {
    "_target_": "lightning_gen.models.gan.GAN",
    "image_shape": [1, 32, 32],
    "latent_dim": 4,
    "generator": {"_target_": "lightning_gen.networks.dcgan.DCGANGenerator", "base_channels": 2},
    "discriminator": {"_target_": "lightning_gen.networks.dcgan.DCGANDiscriminator", "base_channels": 2},
    "generator_optimizer": ADAM,
    "discriminator_optimizer": ADAM,
}
"""Its discriminator has three convolutions, the last two of them with batch norm, and a head that no feature sees."""

SPECTRAL = {**GAN_SPEC, "regularizers": {"spectral_norm": {}}}
BLOCKS = "body.model.discriminator.blocks"


def transfer(body: dict[str, Any] | None = None, **options: Any) -> Transfer:
    torch.manual_seed(0)
    spec = {"run": GAN_SPEC, "features": "last"} if body is None else body
    return Transfer((1, 32, 32), **{"body": spec, "optimizer": ADAM, "num_classes": 10, **options})


def fit_transfer(model: Transfer, steps: int, *callbacks: Callback) -> Trainer:
    trainer = quiet_trainer(steps, *callbacks)
    data = DigitsDataModule("unused", batch_size=16, labelled_per_class=5)
    trainer.fit(model, datamodule=data)
    return trainer


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


class Watch(Callback):
    """Notes which tensors each iteration changed, and evaluates in between as other callbacks do."""

    def __init__(self) -> None:
        self.changed: list[set[str]] = []
        self.before: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, Transfer)
        with pl_module.evaluation():
            pl_module.classify(torch.zeros(2, 1, 32, 32))
        self.before = state(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.changed.append(changed(self.before, pl_module))


@pytest.mark.parametrize("spec", [GAN_SPEC, SPECTRAL], ids=["batch norm", "spectral norm"])
@pytest.mark.parametrize("which", ["last", "maps"])
def test_freezing_changes_no_parameter_and_no_buffer_of_the_body(spec: dict[str, Any], which: str) -> None:
    model = transfer({"run": spec, "features": which}, hidden=[6])
    model.add_average(half_life_images=10)
    body, head, average = state(model.body), state(model.head), state(model.average)  # type: ignore[arg-type]
    fit_transfer(model, 5, Watch())
    assert changed(body, model.body) == set()
    assert changed(head, model.head) == set(head)
    assert {name.split(".")[1] for name in changed(average, model.average)} == {"head"}  # type: ignore[arg-type]
    assert any("running_mean" in name for name in body)
    assert not any(parameter.requires_grad for parameter in model.body.parameters())


def test_finetuning_changes_every_parameter_that_the_features_see_and_the_statistics() -> None:
    model = transfer(mode="finetune")
    before = state(model)
    fit_transfer(model, 3, Watch())
    assert changed(before, model) == {name for name in before if "discriminator.head" not in name}
    assert any("discriminator.head" in name for name in before)


def test_layers_join_one_by_one_from_the_last_on() -> None:
    model, watch = transfer(mode="finetune", unfreeze_every=2), Watch()
    fit_transfer(model, 8, watch)
    head = {"head.0.weight", "head.0.bias"}
    norm = ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    third = {f"{BLOCKS}.2.{name}" for name in ["0.weight", *norm]}
    second = {f"{BLOCKS}.1.{name}" for name in ["0.weight", *norm]}
    first = {f"{BLOCKS}.0.0.weight"}
    expected = [head, head | third, head | third | second, head | third | second | first]
    assert watch.changed == [names for names in expected for _ in range(2)]


def test_a_layer_is_a_weight_with_its_parametrization_and_the_norm_behind_it() -> None:
    model = transfer({"run": SPECTRAL, "features": "last"}, mode="finetune", unfreeze_every=1)
    watch = Watch()
    fit_transfer(model, 4, watch)
    layers = [{name.removeprefix(f"{BLOCKS}.")[0] for name in names if BLOCKS in name} for names in watch.changed]
    assert layers == [set(), {"2"}, {"2", "1"}, {"2", "1", "0"}]
    # Power iterations are those of layers that train; the first layer's has converged.
    vectors = [
        {name.removeprefix(f"{BLOCKS}.")[0] for name in names if name.endswith("._u")} for names in watch.changed
    ]
    assert vectors == [set(), {"2"}, {"2", "1"}, {"2", "1"}]


def test_only_trained_layers_use_the_statistics_of_the_batch() -> None:
    model = transfer(mode="finetune", unfreeze_every=1)
    modes = []

    class Modes(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            norms = [module for module in model.body.modules() if isinstance(module, nn.BatchNorm2d)]
            modes.append([norm.training and norm.track_running_stats for norm in norms])

    fit_transfer(model, 4, Modes())
    assert modes == [[False, False], [False, True], [True, True], [True, True]]


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"mode": "freeze"}, [1e-3]),
        ({"mode": "finetune"}, [1e-3, 1e-4]),
        ({"mode": "finetune", "body_lr_factor": 0.5}, [1e-3, 5e-4]),
        ({"mode": "scratch"}, [1e-3, 1e-3]),
    ],
)
def test_the_bodys_rate_is_lower_and_follows_the_schedule(options: dict[str, Any], rates: list[float]) -> None:
    schedule = {"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.5, "total_iters": 2}
    model = transfer(optimizer={**ADAM, "schedule": schedule}, **options)
    (optimizer,), _ = model.configure_optimizers()  # type: ignore[misc]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)
    (optimizer,) = fit_transfer(model, 2).optimizers
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate / 2 for rate in rates])
    groups = [{id(parameter) for parameter in group["params"]} for group in optimizer.param_groups]
    assert groups[0] == {id(parameter) for parameter in model.head.parameters()}
    trained = {id(p) for name, p in model.body.named_parameters() if "discriminator.blocks" in name}
    assert groups[1:] == ([] if options["mode"] == "freeze" else [trained])


def test_a_step_of_the_body_is_as_long_as_its_rate() -> None:
    # Plain gradient descent, the first step: change = rate * gradient.
    model = transfer(mode="finetune", optimizer={"name": "SGD", "lr": 0.5}, body_lr_factor=0.01)
    gradients: dict[str, Tensor] = {}
    original = model.minimize

    def watched(loss: Tensor, *arguments: Any) -> None:
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        gradients.update(zip(parameters, found, strict=True))
        original(loss, *arguments)

    model.minimize = watched  # type: ignore[method-assign, assignment]
    before = state(model)
    fit_transfer(model, 1)
    for name, gradient in gradients.items():
        rate = 0.5 if name.startswith("head") else 0.005
        torch.testing.assert_close(model.state_dict()[name], before[name] - rate * gradient)
    assert len(gradients) == 2 + 3 + 4


def test_the_loss_is_of_labelled_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = transfer()
    monkeypatch.setattr(model, "optimizer_list", lambda: [None])
    monkeypatch.setattr(model, "minimize", lambda *_: None)
    images, labels = torch.rand(6, 1, 32, 32), torch.tensor([3, 1])
    partly = SemiSupervisedBatch(images, torch.full((6,), -1), images[:2], labels)
    expected = cross_entropy(model.classify(images[:2]), labels)
    torch.testing.assert_close(model.training_iteration(partly)["classification"], expected)
    whole = ImageBatch(images[:2], labels)
    torch.testing.assert_close(model.training_iteration(whole)["classification"], expected)


@pytest.fixture
def gan_file(tmp_path: Path) -> Path:
    fit(small_gan(), 2).save_checkpoint(tmp_path / "gan.ckpt")
    return tmp_path / "gan.ckpt"


def test_modes_begin_from_the_run_or_from_a_new_draw(gan_file: Path) -> None:
    trained = load_model(read_checkpoint(gan_file))
    assert isinstance(trained, HasFeatures)
    images = torch.rand(3, 1, 32, 32)
    body = {"run": str(gan_file), "features": "last"}
    for mode in ("freeze", "finetune"):
        assert torch.equal(transfer(body, mode=mode).eval().features(images), trained.features(images))
    first, second = (transfer(body, mode="scratch") for _ in range(2))
    known = {name.removeprefix("model."): tensor for name, tensor in first.body.state_dict().items()}
    old = trained.state_dict()
    weights = [name for name in known if name.endswith("0.weight")]
    assert len(weights) == 3
    for name in weights:
        assert known[name].shape == old[name].shape
        assert not torch.equal(known[name], old[name])
    assert same_state(first.body, second.body), "drawn from the run's seed"


def same_state(one: nn.Module, other: nn.Module) -> bool:
    return not changed(state(one), other)


@pytest.mark.parametrize("mode", ["freeze", "finetune", "scratch"])
def test_a_checkpoint_needs_no_other_run(gan_file: Path, tmp_path: Path, mode: Any) -> None:
    model = transfer({"run": str(gan_file), "features": "last"}, mode=mode)
    fit_transfer(model, 2).save_checkpoint(tmp_path / "own.ckpt")
    gan_file.unlink()
    again = load_model(read_checkpoint(tmp_path / "own.ckpt"))
    assert isinstance(again, Classifies)
    images = torch.rand(3, 1, 32, 32)
    assert torch.equal(again.classify(images), model.eval().classify(images))
    assert isinstance(again, Transfer)
    # Its own body can be transferred again.
    next_one = transfer({"run": str(tmp_path / "own.ckpt"), "features": "last"}, mode="finetune")
    assert torch.equal(next_one.eval().features(images), model.features(images))
    before = state(next_one.body)
    fit_transfer(next_one, 2, Watch())
    assert {name for name in changed(before, next_one.body) if name.endswith("0.weight")} == {
        f"model.{BLOCKS}.{place}.0.weight" for place in range(3)
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transfer({}), r"model\.body is not set: set model\.body\.run"),
        (lambda: transfer({"run": "nowhere"}), "No checkpoint at nowhere"),
        (lambda: transfer(num_classes=0), "the data set has none"),
        (lambda: transfer(mode="thaw"), r"model\.mode must be freeze, finetune or scratch, not 'thaw'"),
        (lambda: transfer(body_lr_factor=0), r"body_lr_factor must be above 0, not 0: set model\.mode=freeze"),
        (lambda: transfer(unfreeze_every=0), r"unfreeze_every must be null or at least 1"),
        (
            lambda: Transfer((3, 32, 32), {"run": GAN_SPEC}, ADAM, num_classes=2),
            r"model\.body\.run was trained on images of \(1, 32, 32\), not \(3, 32, 32\): set data\.image_size",
        ),
        (
            lambda: Transfer((1, 28, 28), {"run": GAN_SPEC}, ADAM, num_classes=2),
            r"model\.body\.run was trained on images of \(1, 32, 32\), not \(1, 28, 28\)",
        ),
    ],
)
def test_what_means_nothing_is_refused(make: Callable[[], Transfer], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_run_on_other_classes_from_its_config(gan_file: Path, tmp_path: Path) -> None:
    options = [f"model.body.run={gan_file}", "trainer.max_steps=2", "model.mode=finetune", "logger=none", "trainer=cpu"]
    record = train(compose_config(["experiment=transfer_digits", *options, f"paths.output_dir={tmp_path}"]))
    assert record is not None
    (score,) = record["scores"]
    assert score["protocol"]["labels"]["number"] == 25
    test = DigitsDataModule("unused", classes=[5, 6, 7, 8, 9]).reference_set("test")
    assert score["protocol"]["reference"]["size"] == len(test) < 200
    assert score["protocol"]["reference"]["digest"] == test.digest
    assert record["parameters"]["head"] == 5 * (record["parameters"]["head"] // 5)
