"""VQ-VAE: what it minimizes, its indices, and the prior that a second run learns of them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_gen.configuration import compose_config
from lightning_gen.data.batches import ImageBatch
from lightning_gen.errors import UserError
from lightning_gen.images import from_levels
from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.vq_prior import VQPrior
from lightning_gen.models.vqvae import VQVAE
from lightning_gen.training import train
from tests.models.small_vae import ADAM

MAPS = {"channels": 4, "residual_channels": 4}


def small_vqvae(**options: Any) -> VQVAE:
    torch.manual_seed(0)
    networks = {
        "encoder": {"_target_": "lightning_gen.networks.encoders.MapEncoder", **MAPS},
        "decoder": {"_target_": "lightning_gen.networks.decoders.MapDecoder", **MAPS},
    }
    model = VQVAE(**{"image_shape": (1, 8, 8), "optimizer": ADAM, "num_codes": 6, "code_dim": 3, **networks, **options})
    model.quantizer.codes.normal_(0, 0.1)
    return model


def images(number: int) -> Tensor:
    return torch.rand(number, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_loss_is_the_error_a_dimension_and_the_weighted_commitment(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vqvae(beta=0.7, law={"name": "bernoulli", "binarize": "threshold"})
    steps: list[Tensor] = []
    monkeypatch.setattr(model, "step", steps.append)
    binary = images(5).sign()
    vectors = model.encoder(binary)
    codes = model.quantizer.codes.clone()
    indices = torch.cdist(vectors.movedim(1, -1).reshape(-1, 3), codes).argmin(1).view(5, 2, 2)
    chosen = codes[indices].movedim(-1, 1)
    nats = F.binary_cross_entropy_with_logits(model.decoder(chosen), (binary + 1) / 2)
    expected = nats + 0.7 * (vectors - chosen).square().mean()
    losses = model.training_iteration(ImageBatch(binary, None))
    torch.testing.assert_close(steps[0], expected)
    torch.testing.assert_close(losses["distortion"], nats)


def test_images_go_through_their_indices_and_back() -> None:
    model = small_vqvae()
    with model.evaluation():
        indices = model.encode_indices(images(5))
        assert indices.shape == (5, 2, 2)
        assert indices.dtype == torch.int64
        assert torch.equal(indices, model.quantizer(model.encoder(images(5))).indices)
        decoded = model.decode_indices(indices)
        assert torch.equal(model.reconstruct(images(5)), decoded)
        assert model.features(images(5)).shape == (5, 12)
        assert not torch.equal(decoded, model.decode_indices((indices + 1) % 6))


def small_prior(first_stage: Any, **options: Any) -> VQPrior:
    network = {"_target_": "lightning_gen.networks.gated_pixelcnn.GatedPixelCNN", "channels": 4, "layers": 1}
    prior = {"network": {**network, "head_channels": 6}, "optimizer": ADAM, "law": {}, "conditional": False}
    prior["_target_"] = "lightning_gen.models.pixel_model.PixelModel"
    return VQPrior((1, 8, 8), first_stage, {**prior, **options})


def spec(model: VQVAE) -> dict[str, Any]:
    return {"_target_": "lightning_gen.models.vqvae.VQVAE", **model.hparams}


def built_on(first: VQVAE) -> VQPrior:
    model = small_prior(spec(first))
    model.first_stage.load_state_dict(first.state_dict())
    return model


def test_the_prior_learns_the_index_maps_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_vqvae()
    model, seen = built_on(first), []
    monkeypatch.setattr(model.prior, "training_iteration", lambda batch: seen.append(batch) or {})
    labels = torch.arange(5)
    model.training_iteration(ImageBatch(images(5), labels))
    assert torch.equal(seen[0].images[:, 0], from_levels(first.encode_indices(images(5)), 6))
    assert torch.equal(seen[0].labels, labels)


def test_samples_of_the_prior_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_vqvae()
    model = built_on(first)
    indices = first.encode_indices(images(3))
    monkeypatch.setattr(model.prior, "sample", lambda *_, **__: from_levels(indices, 6)[:, None])
    with model.evaluation():
        assert torch.equal(model.sample(3, generator=torch.Generator()), first.decode_indices(indices))


def test_its_bound_is_that_of_the_codes_and_of_the_image_given_them() -> None:
    first = small_vqvae(law={"name": "discretized_logistic", "levels": 4})
    model = built_on(first)
    observed = first.law.observe(images(4))
    with model.evaluation():
        found = model.bits_per_dim(images(4), generator=torch.Generator())
        indices = first.encode_indices(observed)
        logits = model.prior.network(from_levels(indices, 6)[:, None], None)
        codes = F.cross_entropy(logits, indices, reduction="none").sum((1, 2))
        pixels = -first.law.log_prob(first.decoder(first.quantizer.look_up(indices)), observed).sum((1, 2))
    torch.testing.assert_close(found, (codes + pixels) / (64 * math.log(2)))


def test_the_prior_learns_which_index_follows_which() -> None:
    """Indices name codes: a map whose next index is a fixed permutation of the one before is learnt to the end."""
    torch.manual_seed(0)
    model = small_prior(spec(small_vqvae()))
    follower = torch.tensor([3, 5, 1, 4, 0, 2])
    first = torch.randint(6, (256, 2, 1))
    maps = from_levels(torch.cat([first, follower[first]], 2), 6)[:, None]
    optimizer = torch.optim.Adam(model.prior.network.parameters(), 0.03)
    for _ in range(200):
        loss = -model.prior.law.log_prob(model.prior.network(maps), maps).flatten(1).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 2 * math.log(6) + 0.1, "only the first index of each of the two rows is free"


def test_only_the_prior_trains_and_the_first_stage_stays_in_evaluation_mode() -> None:
    model = built_on(small_vqvae()).train()
    assert model.prior.training
    assert not any(module.training for module in model.first_stage.modules())
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"prior"}


TINY = (
    "experiment_name=tiny",
    "logger=none",
    "trainer=cpu",
    "trainer.max_steps=3",
    "metrics=none",
    "callbacks=density",
    "callbacks.likelihood.num_images=20",
    "data.image_size=16",
)
FIRST = (
    "model=vqvae",
    "run_name=first",
    "model.num_codes=8",
    "model.code_dim=3",
    *(f"model.{part}.{key}=4" for part in ("encoder", "decoder") for key in MAPS),
)
SECOND = (
    "model=vq_prior",
    "run_name=second",
    *(f"model.prior.network.{key}" for key in ("channels=6", "layers=2", "head_channels=8")),
    "model.prior.conditional=true",
)


def test_a_second_run_takes_the_averaged_first_stage_into_its_checkpoints(tmp_path: Path) -> None:
    train(compose_config([*TINY, *FIRST]))
    first_run = tmp_path / "runs" / "tiny" / "first"
    record = train(compose_config([*TINY, *SECOND, f"model.first_stage={first_run}"]))
    assert record is not None
    assert [each["name"] for each in record["scores"]] == ["bits_per_dim", "nll", "reconstruction_error"]
    first = load_model(read_checkpoint(first_run / "checkpoints" / "last.ckpt"))
    shutil.rmtree(first_run)
    second = load_model(read_checkpoint(tmp_path / "runs" / "tiny" / "second" / "checkpoints" / "last.ckpt"))
    assert isinstance(first, VQVAE)
    assert isinstance(second, VQPrior)
    pixels = torch.rand(4, 1, 16, 16) * 2 - 1
    with first.evaluation(), second.evaluation():
        averaged = first.reconstruct(pixels)
        assert torch.equal(second.reconstruct(pixels), averaged)
        assert second.sample(2, generator=torch.Generator()).shape == (2, 1, 16, 16)
    assert second.label_law is not None
    with first.evaluation(use_average=False):
        assert not torch.equal(first.reconstruct(pixels), averaged)


def test_a_first_stage_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set model\.first_stage to a run of model=vqvae"):
        small_prior(None)
    with pytest.raises(UserError, match="No checkpoint at"):
        small_prior(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"images of \(1, 16, 16\), not \(1, 8, 8\)"):
        small_prior(spec(small_vqvae(image_shape=(1, 16, 16))))
    with pytest.raises(UserError, match=r"model\.beta must not be negative"):
        small_vqvae(beta=-1.0)
