"""First stages of latent diffusion: what they minimize, the adversary's weight and start, isolation of both players."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from lightning_gen.data.batches import ImageBatch
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.losses.pixel_laws import build_law
from lightning_gen.models import perceptual
from lightning_gen.models.capabilities import Encodes, HasPosterior, Latents, Reconstructs, Samples
from lightning_gen.models.first_stage import FirstStage, adaptive_weight, last_weight
from lightning_gen.models.kl_autoencoder import VQGAN, KLAutoencoder
from lightning_gen.networks.decoders import MapDecoder
from lightning_gen.networks.residual_maps import ResidualMapDecoder, ResidualMapEncoder
from tests.models.small_latents import ADAM, DISCRIMINATOR, images, small_first_stage
from tests.trainers import quiet_trainer

State = dict[str, Tensor]


def fit(model: FirstStage, steps: int, start: Path | None = None) -> pl.Trainer:
    trainer = quiet_trainer(steps)
    data = DigitsDataModule("unused", batch_size=16, image_size=8)
    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    return trainer


def state(network: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: State, other: State) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def minimized(model: FirstStage, monkeypatch: pytest.MonkeyPatch, batch: Tensor) -> tuple[list[Tensor], Any]:
    """What each player's step minimizes on a batch, no step taken, and the logs."""
    found: list[Tensor] = []
    monkeypatch.setattr(model, "minimize", lambda loss, *_: found.append(loss))
    monkeypatch.setattr(model, "optimizer_list", lambda: [None] * len(model.optimizer_specs))
    torch.manual_seed(3)
    return found, model.training_iteration(ImageBatch(batch, None))


def kl_parts(model: KLAutoencoder, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The decoder's outputs for the noise of `minimized`, and the KL divergence of each image."""
    means, log_variances = model.encoder(batch).chunk(2, 1)
    torch.manual_seed(3)
    deviations = (log_variances / 2).exp()
    outputs = model.decoder(means + deviations * torch.randn_like(means))
    return outputs, kl_divergence(Normal(means, deviations), Normal(0.0, 1.0)).sum((1, 2, 3))


def test_the_loss_is_l1_with_lpips_and_the_weighted_kl_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_first_stage(discriminator=None, kl_weight=0.3, perceptual_weight=0.2)
    monkeypatch.setattr(model, "_perceptual", lambda one, other: (one - other).square().mean((1, 2, 3)))
    (loss,), losses = minimized(model, monkeypatch, images(5))
    outputs, kl = kl_parts(model, images(5))
    distance = (outputs - images(5)).square().mean()
    l1 = (outputs - images(5)).abs().sum((1, 2, 3)).mean()
    torch.testing.assert_close(loss, l1 + 64 * 0.2 * distance + 0.3 * kl.mean())
    torch.testing.assert_close(losses["distortion"], l1)
    torch.testing.assert_close(losses["rate"], kl.mean())


def test_a_law_of_pixels_takes_the_place_of_l1(monkeypatch: pytest.MonkeyPatch) -> None:
    law = {"name": "discretized_logistic", "levels": 4}
    model = small_first_stage(discriminator=None, kl_weight=0.0, law=law)
    (loss,), _ = minimized(model, monkeypatch, images(5))
    outputs, _ = kl_parts(model, images(5))
    exact = build_law(law)
    expected = -exact.log_prob(outputs, exact.observe(images(5))).sum((1, 2)).mean()
    torch.testing.assert_close(loss, expected)
    assert model.reconstruct(images(5)).shape == (5, 1, 8, 8)


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms_and_bounded() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    distortion = 3 * weight[0] + 4 * weight[1]
    adversarial = -0.5 * weight[1]
    assert adaptive_weight(distortion, adversarial, weight).item() == pytest.approx(5 / (0.5 + 1e-4))
    assert adaptive_weight(distortion, 1e-9 * adversarial, weight).item() == 1e4
    assert not adaptive_weight(distortion, adversarial, weight).requires_grad


def test_the_adversarial_term_has_the_norm_of_half_the_distortions_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against separate backward passes to the decoder's last weight; the gradient of the KL term takes no part."""
    model = small_first_stage(kl_weight=7.0)
    (discriminator_loss, loss), losses = minimized(model, monkeypatch, images(5))
    outputs, kl = kl_parts(model, images(5))
    l1 = (outputs - images(5)).abs().sum((1, 2, 3)).mean()
    real, fake = model.discriminator(images(5)).logits, model.discriminator(outputs).logits
    norms = []
    for term in (l1, -fake.mean()):
        model.zero_grad()
        term.backward(retain_graph=True)
        norms.append(model.decoder.layers[-1].weight.grad.norm())
    weight = 0.5 * norms[0] / (norms[1] + 1e-4)
    torch.testing.assert_close(losses["adaptive_weight"], weight)
    torch.testing.assert_close(loss, l1 + 7.0 * kl.mean() - weight * fake.mean())
    hinge = (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()) / 2
    torch.testing.assert_close(discriminator_loss, hinge)


@pytest.mark.parametrize("decoder", [MapDecoder, ResidualMapDecoder])
def test_the_last_weight_is_that_of_the_convolution_that_makes_the_images(decoder: type[nn.Module]) -> None:
    options = {"multipliers": (1, 2), "channels": 4} if decoder is ResidualMapDecoder else {"halvings": 1}
    network = decoder(image_shape=(1, 8, 8), latent_dim=3, num_outputs=1, **options)
    outputs = network(torch.randn(2, 3, 4, 4))
    with torch.no_grad():
        last_weight(network).zero_()
    silent = network(torch.randn(2, 3, 4, 4))
    assert outputs.std() > 0
    assert silent.flatten().unique().numel() == 1


def test_each_step_changes_its_own_player_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_first_stage()
    seen: dict[str, tuple[bool, bool, bool]] = {}

    def watch(step: str) -> Callable[..., Any]:
        original = getattr(model, step)

        def watched(*arguments: Any) -> Any:
            networks = (model.encoder, model.decoder, model.discriminator)
            before = [state(network) for network in networks]
            result = original(*arguments)
            unchanged = [same(each, state(network)) for each, network in zip(before, networks, strict=True)]
            seen[step] = (unchanged[0], unchanged[1], unchanged[2])
            return result

        return watched

    for step in ("discriminator_step", "autoencoder_step"):
        monkeypatch.setattr(model, step, watch(step))
    trainer = fit(model, 1)
    assert seen == {"discriminator_step": (True, True, False), "autoencoder_step": (False, False, True)}
    assert trainer.global_step == model.iteration == 1


def test_before_it_plays_the_discriminator_is_silent_and_changes_nothing() -> None:
    alone, waiting = small_first_stage(discriminator=None), small_first_stage(adversarial_start=2)
    untouched = state(waiting.discriminator)
    fit(alone, 2)
    fit(waiting, 2)
    assert same(state(alone), state(waiting))
    assert same(untouched, state(waiting.discriminator))


def test_it_plays_from_the_iteration_that_is_named(tmp_path: Path) -> None:
    """Counted in iterations, not in optimizer steps, and through a resume."""
    alone, playing = small_first_stage(discriminator=None), small_first_stage(adversarial_start=2)
    fit(playing, 2).save_checkpoint(tmp_path / "two.ckpt")
    untouched = state(playing.discriminator)
    fit(alone, 3)
    whole, resumed = small_first_stage(adversarial_start=2), small_first_stage(adversarial_start=2)
    fit(whole, 3)
    fit(resumed, 3, tmp_path / "two.ckpt")
    assert same(state(whole), state(resumed))
    assert not same(untouched, state(whole.discriminator))
    assert not same(state(alone), state(whole))


def test_vq_latents_are_quantized_on_the_way_to_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_first_stage(VQGAN, discriminator=None, beta=0.7)
    model.quantizer.codes.normal_(0, 0.1)
    codes = model.quantizer.codes.clone()
    vectors = model.encoder(images(5))
    indices = torch.cdist(vectors.movedim(1, -1).reshape(-1, 3), codes).argmin(1).view(5, 4, 4)
    chosen = codes[indices].movedim(-1, 1)
    with model.evaluation():
        torch.testing.assert_close(model.encode(images(5)), vectors.flatten(1))
        torch.testing.assert_close(model.reconstruct(images(5)), model.decoder(chosen).clamp(-1, 1))
    outputs = model.decoder(chosen)
    (loss,), losses = minimized(model, monkeypatch, images(5))
    l1 = (outputs - images(5)).abs().sum((1, 2, 3)).mean()
    torch.testing.assert_close(loss, l1 + 64 * 0.7 * (vectors - chosen).square().mean())
    assert losses["perplexity"] > 1


def test_what_first_stages_can_do() -> None:
    kl, vq = small_first_stage(), small_first_stage(VQGAN)
    for model in (kl, vq):
        assert isinstance(model, Reconstructs)
        assert isinstance(model, Encodes)
        assert model.latent_shape == (3, 4, 4)
    assert isinstance(kl, HasPosterior)
    assert isinstance(kl, Samples)
    assert isinstance(kl, Latents)
    assert not isinstance(vq, Samples)
    with kl.evaluation():
        rng = torch.Generator().manual_seed(0)
        noise = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
        decoded = kl.decoder(noise.view(2, 3, 4, 4)).clamp(-1, 1)
        assert torch.equal(kl.sample(2, generator=rng), decoded)


def test_residual_maps_have_the_papers_depths() -> None:
    """Two blocks at each of three sizes and two in the middle; the decoder has one more at each size."""
    shape = (1, 16, 16)
    options = {"channels": 8, "multipliers": (1, 2, 2)}
    encoder = ResidualMapEncoder(shape, 6, **options)
    decoder = ResidualMapDecoder(shape, 3, 1, **options)
    assert [sum(type(layer).__name__ == "NormalizedBlock" for layer in each.layers) for each in (encoder, decoder)] == [
        8,
        11,
    ]
    assert encoder(torch.randn(2, *shape)).shape == (2, 6, 4, 4)
    assert decoder(torch.randn(2, 3, 4, 4)).shape == (2, *shape)
    norms = [module for module in encoder.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {2, 4}
    with pytest.raises(UserError, match=r"model\.encoder\.halvings=2: images of 10x10"):
        ResidualMapEncoder((1, 10, 10), 6, **options)


def test_lpips_without_its_weights_is_refused_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setenv("LIGHTNING_GEN_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    model = small_first_stage(perceptual_weight=1.0)
    with pytest.raises(UserError, match=r"^model\.perceptual_weight needs LPIPS: set it to 0, or get the weights: "):
        model.prepare_training()
    small_first_stage().prepare_training()


def test_lpips_is_no_part_of_the_model_and_passes_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubling(nn.Module):
        def forward(self, seen: Tensor) -> Any:
            return type("Output", (), {"features": 2 * seen.flatten(1)})

    monkeypatch.setattr(perceptual, "create_extractor", lambda name, size: Doubling())
    model = small_first_stage(perceptual_weight=1.0)
    keys = set(model.state_dict())
    model.prepare_training()
    assert set(model.state_dict()) == keys
    moved = images(2).requires_grad_()
    distance = model._perceptual(moved, torch.zeros(2, 1, 8, 8))
    torch.testing.assert_close(distance, 4 * images(2).square().sum((1, 2, 3)))
    distance.sum().backward()
    assert moved.grad is not None
    torch.testing.assert_close(moved.grad, 8 * images(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_channels": 0}, r"model\.latent_channels must be at least 1"),
        ({"perceptual_weight": -1.0}, r"model\.perceptual_weight must not be negative"),
        ({"adversarial_start": -1}, r"model\.adversarial_start must not be negative"),
        ({"kl_weight": -1.0}, r"model\.kl_weight must not be negative"),
        ({"loss": "relativistic"}, r"set model\.loss=hinge"),
        ({"discriminator_optimizer": None}, r"model\.discriminator needs model\.discriminator_optimizer"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_first_stage(**{"discriminator": DISCRIMINATOR, "discriminator_optimizer": ADAM, **options})
