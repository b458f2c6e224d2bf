"""Diffusion models: training, guidance, sampling, latents and likelihoods around a network that is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.diffusion.schedules import Level
from lightning_gen.errors import UserError
from lightning_gen.models.capabilities import Denoises, Guides, Latents, Likelihood, Samples
from lightning_gen.models.diffusion import Diffusion
from tests.diffusion.laws import gaussian_denoise
from tests.models.small_diffusion import LABELS, SHAPE, known, small_diffusion

SCHEDULES = ["linear", "cosine", "sigmoid", "edm", "straight"]
TARGETS = ["noise", "image", "v", "velocity", "edm"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(number: int, seed: int = 0) -> Tensor:
    return torch.rand(number, *SHAPE, generator=rng(seed)) * 2 - 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "noise"])
def test_the_network_sees_noisy_images_and_the_loss_is_its_error(schedule: str, target: str) -> None:
    model = small_diffusion(schedule={"name": schedule}, target={"name": target})
    images = images_of(2000)
    torch.manual_seed(0)
    loss = model.loss(images)
    torch.manual_seed(0)
    noise = torch.randn_like(images).double()
    levels = model.schedule.at(model.times.draw(2000, model.schedule))
    level = Level(*(part.view(-1, 1, 1, 1) for part in levels))
    (seen, told, labels) = known(model).calls[0]
    noisy = level.alpha * images + level.sigma * noise
    expected = (model.target.input_scale(level.alpha, level.sigma) * noisy).float()
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(told, levels.noise_level.float(), rtol=1e-6, atol=1e-4)
    assert labels is None
    errors = 0.1 * expected - model.target.of(images, noise, level)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(errors.square().mean().item(), rel=1e-4)
    assert 0.05 < seen.square().mean() < 1.5, "inputs are of the order of 1"


def test_errors_are_weighted_by_their_levels() -> None:
    model = small_diffusion(weight={"name": "min_snr"}, network={"scale": 0.0})
    images = images_of(1500)
    torch.manual_seed(0)
    loss = model.loss(images)
    torch.manual_seed(0)
    noise = torch.randn_like(images).double()
    levels = model.schedule.at(model.times.draw(1500, model.schedule))
    ratios = (levels.alpha / levels.sigma).square()
    weights = ratios.clamp(max=5) / (ratios + 1)
    level = Level(*(part.view(-1, 1, 1, 1) for part in levels))
    errors = (level.alpha * noise - level.sigma * images).square().mean((1, 2, 3))
    assert loss.item() == pytest.approx((weights * errors).mean().item(), rel=1e-4)
    assert weights.std() > 0.1


def test_training_pairs_noise_by_the_coupling_within_classes() -> None:
    model = small_diffusion(
        schedule={"name": "straight"}, coupling={"name": "optimal_transport"}, label_drop=0.0, **LABELS
    )
    images, labels = images_of(12), torch.arange(12) % 3
    torch.manual_seed(0)
    model.loss(images, labels)
    torch.manual_seed(0)
    noise = torch.randn_like(images)
    times = model.times.draw(12, model.schedule).float().view(-1, 1, 1, 1)
    (seen, _, given) = known(model).calls[0]
    used = (seen - (1 - times) * images) / times
    paired = model.coupling.pair(images, noise, labels)
    assert given is not None
    assert torch.equal(given, labels)
    assert not torch.equal(paired, noise)
    torch.testing.assert_close(used, paired, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_labels_are_hidden_one_by_one_at_the_rate(rate: float) -> None:
    model = small_diffusion(label_drop=rate, **LABELS)
    labels = torch.arange(6000) % 3
    torch.manual_seed(0)
    model.loss(images_of(6000), labels)
    given = known(model).calls[0][2]
    assert given is not None
    hidden = given == 3
    assert torch.equal(given[~hidden], labels[~hidden])
    assert hidden.double().mean().item() == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 6000))
    if 0 < rate < 1:
        shares = hidden.view(60, 100).double().mean(1)
        assert shares.std().item() == pytest.approx(math.sqrt(rate * (1 - rate) / 100), rel=0.4), "each by itself"


def test_a_model_without_labels_gives_none_to_its_network() -> None:
    model = small_diffusion(num_classes=3, label_law=[0.5, 0.3, 0.2])
    assert model.network.num_classes is None
    assert model.label_law is None
    model.loss(images_of(4), torch.arange(4) % 3)
    model.sample(3, generator=rng())
    assert all(labels is None for _, _, labels in known(model).calls)


def test_mixed_precision_reaches_the_network_alone() -> None:
    model = small_diffusion(network={"_target_": "lightning_gen.networks.unet.UNet", "channels": 8, "multipliers": [1]})
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(images_of(8))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, -0.5])
def test_guidance_goes_on_from_the_unconditional_estimate_through_the_conditional(scale: float) -> None:
    model = small_diffusion(clip=False, **LABELS)
    noisy, labels = images_of(3), torch.tensor([0, 1, 2])
    network = known(model)
    estimates = {}
    for name, used in (("conditional", labels), ("unconditional", torch.full((3,), 3))):
        output = network.scale * noisy + network.shifts[used].view(-1, 1, 1, 1)
        level = Level(*(part.item() for part in model.schedule.at(torch.tensor([0.3], dtype=torch.float64))))
        estimates[name] = model.target.image_of(output, noisy, level)
    expected = estimates["unconditional"] + scale * (estimates["conditional"] - estimates["unconditional"])
    found = model.denoise(noisy, 0.3, labels, scale)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    # Two estimates are one call on twice the images.
    assert [len(call[0]) for call in network.calls] == [3 if scale in (0, 1) else 6]
    torch.testing.assert_close(model.denoise(noisy, torch.full((3,), 0.3), labels, scale), found, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.denoise(noisy, 0.3), estimates["unconditional"], rtol=0, atol=1e-6)


def test_guidance_of_1_and_0_are_the_conditional_and_the_unconditional_model() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    model = small_diffusion(**LABELS)

    def drawn(scale: float, given: Tensor) -> Tensor:
        model.guidance_scale = scale
        return model.sample(4, given, generator=rng(1))

    assert not torch.equal(drawn(1.0, labels), drawn(1.0, labels.roll(1)))
    assert torch.equal(drawn(0.0, labels), drawn(0.0, labels.roll(1)))
    assert torch.equal(drawn(0.0, labels), drawn(1.0, torch.full((4,), 3)))
    for scale in (0.0, 1.0):
        torch.testing.assert_close(drawn(scale + 1e-6, labels), drawn(scale, labels), rtol=0, atol=1e-5)


def test_labels_that_are_not_given_are_drawn_by_their_law() -> None:
    model = small_diffusion(sampler={"name": "ddim", "steps": 1}, **LABELS)
    model.sample(5000, generator=rng())
    labels = known(model).calls[0][2]
    assert labels is not None
    counts = labels.bincount(minlength=3) / 5000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.2]), rtol=0, atol=0.03)
    model.sample(3, torch.tensor([2, 2, 1]), generator=rng())
    given = known(model).calls[1][2]
    assert given is not None
    assert given.tolist() == [2, 2, 1]


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler", "heun", "dpm_solver_pp_2m", "ode"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_settings_count_the_calls_of_the_network(name: str, scale: float) -> None:
    model = small_diffusion(guidance_scale=scale, **LABELS)
    model.use_sampler(name)
    settings = model.sampler_settings()
    model.sample(2, generator=rng())
    calls = known(model).calls
    assert settings["guidance_scale"] == scale
    assert settings["sampler"] == name
    assert settings["clip"] is True
    assert {len(images) for images, _, _ in calls} == {2 if scale == 1 else 4}
    if name == "ode":
        assert "evaluations" not in settings
    else:
        assert settings["evaluations"] == len(calls)
        assert settings["steps"] == 4
    assert "guidance_scale" not in small_diffusion().sampler_settings()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["ddpm", "heun", "dpm_solver_pp_2m"])
def test_any_schedule_target_and_sampler_draw_images(schedule: str, target: str, name: str) -> None:
    options = {"schedule": {"name": schedule}, "target": {"name": target}, "sampler": {"name": name, "steps": 3}}
    if schedule == "straight" and target == "noise":
        with pytest.raises(UserError, match=r"model.target.name=noise .* set it to velocity or v"):
            small_diffusion(**options)
        return
    images = small_diffusion(**options).sample(5, generator=rng())
    assert images.shape == (5, *SHAPE)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1


def test_maps_of_any_shape_and_range_are_drawn_where_nothing_is_clipped() -> None:
    shape = (4, 5, 7)
    data = 3 * torch.randn(6, *shape)
    model = small_diffusion(image_shape=shape, clip=False, target={"name": "image"}, network={"scale": 5.0})
    assert model.loss(data).isfinite()
    assert model.sample(3, generator=rng()).abs().max() > 1
    assert (
        small_diffusion(image_shape=shape, target={"name": "image"}, network={"scale": 5.0})
        .sample(3, generator=rng())
        .abs()
        .max()
        <= 1
    )


def test_latents_are_noise_and_decode_to_the_same_images_each_time() -> None:
    model = small_diffusion(**LABELS)
    labels = torch.tensor([0, 1, 2, 0])
    latents = model.sample_latents(4, generator=rng(3))
    assert latents.shape == (4, 16)
    decoded = model.decode(latents, labels)
    assert torch.equal(decoded, model.sample(4, labels, generator=rng(3)))
    assert torch.equal(decoded, model.decode(latents, labels))
    model.use_sampler("ddpm")
    assert not torch.equal(decoded, model.sample(4, labels, generator=rng(3)))
    assert torch.equal(decoded, model.decode(latents, labels)), "DDIM stands in for DDPM"
    everything = model.sample_latents(4000, generator=rng(4))
    assert everything.std().item() == pytest.approx(1, abs=0.01)


def test_another_sampler_or_number_of_steps_may_be_chosen() -> None:
    model = small_diffusion(sampler={"name": "ddim", "steps": 4, "eta": 0.5, "float64": True})
    model.use_sampler(steps=7)
    assert model.sampler_settings() == {
        **{"sampler": "ddim", "steps": 7, "evaluations": 7, "float64": True, "eta": 0.5, "clip": True}
    }
    model.use_sampler("heun")
    assert (model.sampler.name, model.sampler.steps, model.sampler.options) == ("heun", 7, {})
    with pytest.raises(UserError, match="21 steps are more than the 20 of the schedule"):
        model.use_sampler(steps=21)
    with pytest.raises(UserError, match="chooses its own steps: leave --steps out"):
        model.use_sampler("ode", 5)
    assert model.sampler.name == "heun"
    model.use_sampler("ode")
    assert model.sampler.name == "ode"


def test_it_can_do_what_it_says() -> None:
    model = small_diffusion()
    for capability in (Samples, Latents, Likelihood, Guides, Denoises):
        assert isinstance(model, capability)
    assert not model.likelihood_is_exact


def gaussian(model: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a model know that every pixel is N(0.3, 0.5^2), and nothing of labels."""

    def predict(noisy: Tensor, level: Level[float], labels: Tensor | None) -> Tensor:
        images = gaussian_denoise(noisy, level)
        of_image, of_noise = model.target.coefficients(level.alpha, level.sigma)
        return of_image * images + of_noise * (noisy - level.alpha * images) / level.sigma

    monkeypatch.setattr(model, "_predict", predict)


@pytest.mark.parametrize("name", ["variational_bound", "ode"])
@pytest.mark.parametrize("schedule", ["linear", "edm", "straight"])
def test_bits_are_those_of_a_known_law_and_above_them_for_the_bound(
    name: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_diffusion(schedule={"name": schedule}, likelihood={"name": name}, clip=False)
    gaussian(model, monkeypatch)
    images = torch.full((300, *SHAPE), 0.2)
    found = model.bits_per_dim(images, generator=rng())
    exact = torch.distributions.Normal(0.3, 0.5).log_prob(torch.tensor(0.2)).add(math.log(2 / 255)).div(-math.log(2))
    assert found.shape == (300,)
    if name == "ode":
        assert found.mean().item() == pytest.approx(exact.item(), abs=0.02)
    else:
        assert exact < found.mean() < exact + 1
    assert torch.equal(found, model.bits_per_dim(images, generator=rng()))


def test_bits_without_labels_are_of_the_mean_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_diffusion(guidance_scale=3.0, **LABELS)
    nats = {0: 4.0, 1: 5.0, 2: 7.0}

    def known_nats(images: Tensor, labels: Tensor, generator: Any) -> Tensor:
        return torch.tensor([nats[int(label)] for label in labels])

    monkeypatch.setattr(model, "_nats", known_nats)
    found = model.bits_per_dim(images_of(2), generator=rng())
    total = sum(share * math.exp(-nats[label]) for label, share in enumerate(LABELS["label_law"]))
    assert found.tolist() == pytest.approx([-math.log(total) / (16 * math.log(2))] * 2, rel=1e-6)
    labelled = model.bits_per_dim(images_of(2), torch.tensor([2, 0]), generator=rng())
    assert labelled.tolist() == pytest.approx([7 / (16 * math.log(2)), 4 / (16 * math.log(2))], rel=1e-6)


def test_likelihoods_are_of_the_labels_given_without_guidance() -> None:
    model = small_diffusion(guidance_scale=3.0, likelihood={"name": "variational_bound", "steps": 5}, **LABELS)
    labels = torch.tensor([2, 0])
    model.bits_per_dim(images_of(2), labels, generator=rng())
    given = [each for _, _, each in known(model).calls]
    assert 3 <= len(given) <= 5
    assert all(each is not None and torch.equal(each, labels) for each in given)
    assert model.likelihood_settings == {"likelihood": "variational_bound", "steps": 5, "conditional": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditional": True}, "model.conditional=true needs labels"),
        ({**LABELS, "labelled_per_class": 5}, "set data.labelled_per_class to null"),
        ({**LABELS, "label_drop": 1.5}, r"model.label_drop must be from 0 to 1, not 1.5"),
        ({**LABELS, "label_drop": 0.0, "guidance_scale": 2.0}, r"trained with model.label_drop above 0"),
        ({"guidance_scale": 2.0}, r"set model.conditional=true"),
        ({"sampler": {"name": "ddim", "steps": 21}}, "21 steps are more than the 20 of the schedule"),
        ({"target": {"name": "eps"}}, "Unknown target 'eps'"),
        ({"coupling": {"name": "ot"}}, "Unknown coupling 'ot'"),
        ({"likelihood": {"name": "exact"}}, "Unknown diffusion likelihood 'exact'"),
        ({"network": {"depth": 3}}, "depth"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        small_diffusion(**options)
    assert "\n" not in str(caught.value)


def test_guidance_may_be_set_where_the_model_was_trained_for_it() -> None:
    model = small_diffusion(**LABELS)
    model.guidance_scale = 3.0
    assert model.sampler_settings()["guidance_scale"] == 3.0
    with pytest.raises(UserError, match=r"a guidance scale of 2 needs a model with labels"):
        small_diffusion().guidance_scale = 2.0
