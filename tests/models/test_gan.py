from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_gen.errors import UserError
from lightning_gen.models.base import frozen
from lightning_gen.models.capabilities import Latents, Reconstructs, Samples
from lightning_gen.models.gan import GAN, Fakes, Labelled
from tests.models.small import ADAM, fit, small_gan


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(before: dict[str, torch.Tensor], network: nn.Module) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Spy(pl.Callback):
    """Notes which networks each of the two steps changed."""

    def __init__(self, model: GAN) -> None:
        self.changed: dict[str, list[bool]] = {}
        for step, other in (("discriminator_step", model.generator), ("generator_step", model.discriminator)):
            self._watch(model, step, other)

    def _watch(self, model: GAN, step: str, other: nn.Module) -> None:
        original = getattr(model, step)
        own = model.generator if other is model.discriminator else model.discriminator

        def watched(*arguments: Any) -> Any:
            own_before, other_before = state(own), state(other)
            result = original(*arguments)
            self.changed.setdefault(step, []).append(equal(other_before, other) and not equal(own_before, own))
            return result

        setattr(model, step, watched)


def test_each_step_changes_its_own_network_and_nothing_of_the_other() -> None:
    model = small_gan()
    spy = Spy(model)
    fit(model, 3)
    assert spy.changed == {"discriminator_step": [True] * 3, "generator_step": [True] * 3}


def test_max_steps_counts_iterations_of_both_optimizers() -> None:
    model = small_gan()
    trainer = fit(model, 50)
    assert trainer.global_step == model.iteration == 50
    assert model.images_seen == 50 * 16
    for optimizer in trainer.optimizers:
        assert {int(entry["step"]) for entry in optimizer.state.values()} == {50}


PLAIN = {"_target_": "lightning_gen.networks.dcgan.DCGANDiscriminator", "base_channels": 2, "norm": "none"}


def test_several_discriminator_steps_on_parts_of_the_batch() -> None:
    model = small_gan(discriminator_steps=4)
    spy = Spy(model)
    trainer = fit(model, 5)
    assert spy.changed == {"discriminator_step": [True] * 20, "generator_step": [True] * 5}
    assert trainer.global_step == model.iteration == 5
    assert model.images_seen == 5 * 16
    discriminator, generator = trainer.optimizers
    assert {int(entry["step"]) for entry in discriminator.state.values()} == {20}
    assert {int(entry["step"]) for entry in generator.state.values()} == {5}


def test_each_discriminator_step_sees_other_images_and_the_generator_as_many_as_it_asks() -> None:
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"discriminator_step": [], "generator_step": []}
    for wanted, expected in ((None, 4), (4, 4), (10, 10)):
        for calls in seen.values():
            calls.clear()
        model = small_gan(discriminator_steps=4, generator_batch_size=wanted)
        for step in seen:
            original = getattr(model, step)

            def watched(real: Labelled, fake: Fakes, step: str = step, original: Any = original) -> Any:
                seen[step].append((real.images.clone(), fake.images.detach().clone()))
                return original(real, fake)

            setattr(model, step, watched)
        fit(model, 1)
        real, fake = (torch.cat(images) for images in zip(*seen["discriminator_step"], strict=True))
        assert len(real.flatten(1).unique(dim=0)) == len(fake.flatten(1).unique(dim=0)) == 16
        ((_, generated),) = seen["generator_step"]
        assert len(generated) == expected
        # The last discriminator step's images serve the generator too where sizes allow.
        assert torch.equal(generated, fake[-4:]) == (expected == 4)


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size=16 is no multiple of model\.discriminator_steps=5.*=15"):
        small_gan(discriminator_steps=5).check_batch_size(16)


def test_weights_are_clipped_after_each_discriminator_step() -> None:
    model = small_gan(regularizers={"weight_clip": {"limit": 0.005}}, loss="wasserstein")
    fit(model, 3)
    assert max(float(p.detach().abs().max()) for p in model.discriminator.parameters()) <= 0.005
    assert max(float(p.detach().abs().max()) for p in model.generator.parameters()) > 0.005


@pytest.mark.parametrize("loss", ["minimax", "least_squares", "wasserstein", "hinge", "relativistic"])
def test_every_loss_trains_with_every_penalty(loss: str) -> None:
    penalties = {"r1": 1.0, "r2": 1.0, "wgan_gp": 10.0, "zero_centered": 1.0, "dragan": 1.0}
    model = small_gan(loss=loss, regularizers=penalties, discriminator=PLAIN, discriminator_steps=2)
    spy = Spy(model)
    fit(model, 2)
    assert spy.changed == {"discriminator_step": [True] * 4, "generator_step": [True] * 2}


def test_a_penalty_is_logged_with_its_weight_and_moves_the_discriminator() -> None:
    light, heavy = (
        small_gan(regularizers={"r1": weight}, discriminator=PLAIN, discriminator_optimizer={"name": "SGD", "lr": 0.1})
        for weight in (0.0, 100.0)
    )
    logged = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
            logged.append(outputs)

    for model in (light, heavy):
        fit(model, 1, Losses())
    assert [entry["discriminator_r1"].item() > 0 for entry in logged] == [False, True]
    assert logged[0]["discriminator_loss"] == logged[1]["discriminator_loss"]
    assert not equal(state(light.discriminator), heavy.discriminator)


def test_a_compiled_discriminator_can_be_penalised(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_gan(regularizers={"wgan_gp": 10.0}, discriminator=PLAIN)
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)
    model.discriminator.compile(backend="aot_eager")
    fit(model, 1)


def test_combinations_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"batch norm.*model\.discriminator\.norm=none"):
        small_gan(regularizers={"wgan_gp": 10.0})
    with pytest.raises(UserError, match="compares images in pairs"):
        small_gan(loss="relativistic", generator_batch_size=8)
    with pytest.raises(UserError, match="Did you mean 'wgan_gp'"):
        small_gan(regularizers={"wgan-gp": 10.0}, discriminator=PLAIN)
    with pytest.raises(UserError, match=r"model\.discriminator_steps must be at least 1"):
        small_gan(discriminator_steps=0)


def test_schedules_are_stepped_once_an_iteration() -> None:
    schedule = {"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0, "total_iters": 10}
    trainer = fit(small_gan(generator_optimizer={**ADAM, "schedule": schedule}), 5)
    discriminator, generator = trainer.optimizers
    assert generator.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert discriminator.param_groups[0]["lr"] == 1e-3


def test_gradients_are_clipped_to_the_models_norm() -> None:
    class Norms(pl.Callback):
        norms: tuple[float, ...] = ()

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            self.norms += (float(torch.stack([g.norm() for g in gradients]).norm()),)

    norms = Norms()
    fit(small_gan(gradient_clip_norm=0.01), 2, norms)
    assert len(norms.norms) == 4
    assert max(norms.norms) <= 0.0101


def test_frozen_passes_gradients_but_takes_none_and_records_no_statistics() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    images = torch.randn(2, 1, 5, 5, requires_grad=True)
    before, free = state(network), network(images).detach()
    after_free = state(network)
    assert not torch.equal(before["1.running_mean"], after_free["1.running_mean"])
    with frozen(network):
        output = network(images)
        output.square().sum().backward()
    assert torch.equal(output, free), "the batch's own statistics are used"
    assert images.grad is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert equal(after_free, network)


def test_training_noise_is_made_of_seed_rank_and_images_seen() -> None:
    def losses(seed: int) -> list[float]:
        values: list[float] = []

        class Record(pl.Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
                values.append(float(outputs["generator_loss"]))
                torch.randn(7)  # whatever draws between iterations changes nothing

        model = small_gan()
        model.seed = seed
        fit(model, 4, Record())
        return values

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_evaluation_is_undone_to_the_bit() -> None:
    model = small_gan()
    model.add_average(half_life_images=100)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(0.1)
    model.generator.layers[1].eval()
    before = state(model)
    modes = [module.training for module in model.modules()]
    with model.evaluation():
        assert not any(module.training for module in model.modules())
        assert not torch.equal(model.generator.layers[0].weight, before["generator.layers.0.weight"])
        images = model.sample(2, generator=torch.Generator().manual_seed(0))
        assert not images.requires_grad
    assert equal(before, model)
    assert [module.training for module in model.modules()] == modes


def test_samples_come_from_the_generator_handed_in() -> None:
    model = small_gan().eval()
    global_state = torch.get_rng_state()
    first = model.sample(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, model.sample(3, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(first, model.sample(3, generator=torch.Generator().manual_seed(6)))
    assert torch.equal(torch.get_rng_state(), global_state)
    assert first.shape == (3, 1, 32, 32)


def test_capabilities() -> None:
    model = small_gan()
    assert isinstance(model, Samples)
    assert isinstance(model, Latents)
    assert not isinstance(model, Reconstructs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hing"}, "Unknown adversarial loss"),
        ({"generator": {"_target_": "lightning_gen.networks.dcgan.Nothing"}}, "Cannot find"),
        ({"generator": {"_target_": "os:system"}}, "not a Module"),
        ({"generator_optimizer": {"name": "Adamm", "lr": 1.0}}, "no optimizer 'Adamm'"),
        ({"generator_optimizer": {"name": "Adam", "rate": 1.0}}, "Optimizer Adam"),
        ({"generator_optimizer": {**ADAM, "schedule": {"name": "Linear"}}}, "no schedule 'Linear'"),
    ],
)
def test_mistakes_in_the_config_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        small_gan(**options).configure_optimizers()
    assert "\n" not in str(caught.value)


def test_a_lazy_penalty_counts_as_many_times_as_it_is_rare() -> None:
    logged: list[dict[str, Any]] = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
            logged.append(outputs)

    for every in (1, 3):
        fit(small_gan(regularizers={"r1": {"weight": 2.0, "every": every}}, discriminator=PLAIN), 4, Losses())
    always, lazy = logged[:4], logged[4:]
    assert ["discriminator_r1" in entry for entry in lazy] == [True, False, False, True]
    assert lazy[0]["discriminator_r1"].item() == pytest.approx(3 * always[0]["discriminator_r1"].item())
