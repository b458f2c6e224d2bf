"""Latent diffusion: standardized latents of a frozen first stage, from two commands and from one checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.configuration import compose_config
from lightning_gen.data.batches import ImageBatch
from lightning_gen.errors import UserError
from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.capabilities import (
    Denoises,
    Encodes,
    Guides,
    Latents,
    Likelihood,
    Reconstructs,
    Samples,
    TrainsOnLatents,
)
from lightning_gen.models.kl_autoencoder import VQGAN, KLAutoencoder
from lightning_gen.models.latent_diffusion import LatentDiffusion
from lightning_gen.training import train
from tests.models.small_latents import DIFFUSION, images, small_first_stage, small_latent_diffusion, spec


def seen_by_the_diffusion(model: Any, monkeypatch: pytest.MonkeyPatch, batch: ImageBatch) -> Any:
    seen: list[Any] = []
    monkeypatch.setattr(model.diffusion, "training_iteration", lambda given: seen.append(given) or {})
    model.training_iteration(batch)
    return seen[0]


@pytest.mark.parametrize("kind", [KLAutoencoder, VQGAN])
@pytest.mark.parametrize("latents", ["sample", "mean"])
def test_training_latents_have_mean_zero_and_deviation_one_in_every_channel(
    kind: Any, latents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small_first_stage(kind)
    with torch.no_grad():
        first.encoder.layers[-1].weight.mul_(5)
        first.encoder.layers[-1].bias.add_(torch.arange(len(first.encoder.layers[-1].bias)) * 0.3)
    model = small_latent_diffusion(first, latents=latents)
    batch = images(400)
    assert not model.measured
    model.measure_latents(model.moments(part) for part in batch.split([100, 300]))
    assert model.measured
    torch.manual_seed(0)
    found = seen_by_the_diffusion(model, monkeypatch, ImageBatch(batch, torch.arange(400) % 10))
    close = {"rtol": 0, "atol": 0.05 if latents == "sample" else 1e-4}
    torch.testing.assert_close(found.images.mean((0, 2, 3)), torch.zeros(3), **close)
    torch.testing.assert_close(found.images.std((0, 2, 3), correction=0), torch.ones(3), **close)
    assert torch.equal(found.labels, torch.arange(400) % 10)
    raw = first.law(first.moments(batch))[0]
    assert (raw.mean((0, 2, 3)) - raw.mean()).abs().max() > 0.1, "without it channels differ"
    torch.testing.assert_close(model.from_standard(model.to_standard(raw)), raw)


def test_a_channel_that_never_changes_is_not_divided_by_nothing() -> None:
    model = small_latent_diffusion(small_first_stage(), latents="mean")
    model.measure_latents(iter([torch.cat([torch.full((4, 3, 4, 4), 2.0), torch.zeros(4, 3, 4, 4)], 1)]))
    assert model.latent_means.flatten().tolist() == [2.0] * 3
    assert model.latent_deviations.flatten().tolist() == [1.0] * 3


def test_latents_are_drawn_anew_or_are_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_first_stage()
    for latents, deviation in (("sample", True), ("mean", False)):
        model = small_latent_diffusion(first, latents=latents)
        batch = ImageBatch(images(2000), None)
        means, log_variances = first.encoder(batch.images).chunk(2, 1)
        found = seen_by_the_diffusion(model, monkeypatch, batch)
        standard = (found.images - means) / (log_variances / 2).exp()
        assert standard.std().item() == pytest.approx(1.0, abs=0.01) if deviation else standard.abs().max() < 1e-5


def test_samples_are_those_of_the_diffusion_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_first_stage()
    model = small_latent_diffusion(first)
    model.measure_latents(iter([model.moments(images(50)) * 3 + 1]))
    with model.evaluation():
        latents = first.encode(images(3)).unflatten(1, (3, 4, 4))
        standard = (latents - model.latent_means) / model.latent_deviations
        for name, argument in (("sample", 3), ("decode", torch.zeros(3, 48))):
            monkeypatch.setattr(model.diffusion, name, lambda *_, **__: standard)
            options = {"generator": torch.Generator()} if name == "sample" else {}
            torch.testing.assert_close(getattr(model, name)(argument, **options), first.reconstruct(images(3)))


def test_a_conditional_one_follows_labels_and_guidance() -> None:
    options = {"conditional": True, "guidance_scale": 2.0}
    classes = {"num_classes": 10, "label_law": [0.1] * 10}
    model = small_latent_diffusion(small_first_stage(), options, **classes)
    assert model.label_law == [0.1] * 10
    assert model.sampler_settings()["guidance_scale"] == 2.0

    def draw(label: int, scale: float) -> Tensor:
        model.guidance_scale = scale
        labels = torch.full((2,), label)
        drawn: Tensor = model.sample(2, labels, generator=torch.Generator().manual_seed(0))
        return drawn

    with model.evaluation():
        assert not torch.equal(draw(1, 2.0), draw(2, 2.0))
        assert not torch.equal(draw(1, 2.0), draw(1, 1.0))
        assert torch.equal(draw(1, 0.0), draw(2, 0.0))


def test_what_it_can_do() -> None:
    model = small_latent_diffusion(small_first_stage())
    for capability in (Samples, Latents, Reconstructs, Encodes, TrainsOnLatents, Guides, Denoises):
        assert isinstance(model, capability)
    assert not isinstance(model, Likelihood)
    assert set(model.networks()) == {"network", "encoder", "decoder"}
    with model.evaluation():
        assert model.sample_latents(2, generator=torch.Generator()).shape == (2, 48)
    model.use_sampler("heun", 3)
    assert model.sampler_settings().items() >= {"sampler": "heun", "steps": 3, "evaluations": 5}.items()


def test_the_digest_is_of_the_encoder_and_its_weights() -> None:
    first = small_first_stage()
    digest = small_latent_diffusion(first).moments_digest
    with torch.no_grad():
        first.decoder.layers[-1].bias.add_(1)
    assert small_latent_diffusion(first).moments_digest == digest
    with torch.no_grad():
        first.encoder.layers[-1].bias[0].add_(1e-6)
    assert small_latent_diffusion(first).moments_digest != digest


def test_a_first_stage_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    def build(first_stage: Any, **options: Any) -> LatentDiffusion:
        return LatentDiffusion((1, 8, 8), first_stage, DIFFUSION, **options)

    with pytest.raises(UserError, match=r"set model\.first_stage to a run of model=kl_autoencoder or model=vq_gan"):
        build(None)
    with pytest.raises(UserError, match="No checkpoint at"):
        build(str(tmp_path / "none"))
    other = {**spec(small_first_stage()), "image_shape": (1, 16, 16)}
    with pytest.raises(UserError, match=r"images of \(1, 16, 16\), not \(1, 8, 8\)"):
        build(other)
    with pytest.raises(UserError, match=r"model\.latents must be sample or mean"):
        build(spec(small_first_stage()), latents="median")


TINY = ("experiment_name=tiny", "logger=none", "trainer=cpu", "trainer.max_steps=3", "metrics=random", "ema=default")
SAMPLED = ("metrics.num_samples=40", "metrics.block_size=20", "callbacks.samples.num_samples=4", "data.image_size=16")
FIRST = (
    "experiment=kl_autoencoder_digits",
    "run_name=first",
    "model.adversarial_start=1",
    "model.encoder.channels=4",
    "model.encoder.residual_channels=4",
    "model.discriminator={base_channels:4,num_layers:1}",
    "callbacks.likelihood.num_images=20",
)
SECOND = (
    "experiment=latent_diffusion_digits",
    "run_name=second",
    "model.diffusion.network={channels:8,multipliers:[1]}",
    "model.diffusion.sampler.steps=3",
)


def test_two_commands_train_both_stages_and_one_checkpoint_holds_both(tmp_path: Path) -> None:
    first_record = train(compose_config([*FIRST, *TINY, *SAMPLED]))
    first_run = tmp_path / "runs" / "tiny" / "first"
    record = train(compose_config([*SECOND, *TINY, *SAMPLED, f"model.first_stage={first_run}"]))
    assert record is not None
    assert first_record is not None
    fd, of_noise = (
        next(each for each in one["scores"] if each["name"] == "fd_random") for one in (record, first_record)
    )
    assert fd["protocol"].items() >= {"weights": "ema", "num_samples": 40}.items()
    assert fd["protocol"]["reference"] == of_noise["protocol"]["reference"], "both are scored alike"
    assert fd["protocol"]["sampler"]["steps"] == 3

    checkpoint = read_checkpoint(first_run / "checkpoints" / "last.ckpt")
    first = load_model(checkpoint)
    assert isinstance(first, KLAutoencoder)
    shutil.rmtree(first_run)
    second = load_model(read_checkpoint(tmp_path / "runs" / "tiny" / "second" / "checkpoints" / "last.ckpt"))
    assert isinstance(second, LatentDiffusion)
    assert second.measured
    assert second.average is not None
    assert not any("discriminator" in key for key in second.state_dict())
    pixels = torch.rand(4, 1, 16, 16) * 2 - 1
    with first.evaluation(), second.evaluation():
        averaged = first.reconstruct(pixels)
        assert torch.equal(second.reconstruct(pixels), averaged), "three iterations later not a bit has changed"
        drawn = second.sample(2, generator=torch.Generator())
        assert drawn.shape == (2, 1, 16, 16)
    with first.evaluation(use_average=False):
        assert not torch.equal(first.reconstruct(pixels), averaged)
    kept = second.state_dict()
    for name, tensor in first.average.networks.encoder.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(kept[f"first_stage.encoder.{name}"], tensor)
