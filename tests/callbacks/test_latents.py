"""The first stage's outputs on disk: the same training with and without them, whole files, and who makes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, distributed

from lightning_gen.callbacks.latents import FirstStageLatents, load_moments
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from tests.conftest import forked
from tests.models.small_latents import small_first_stage, small_latent_diffusion
from tests.trainers import quiet_trainer


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule("unused", image_size=8, batch_size=32, **options)


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the model encodes, call by call."""
    calls: list[int] = []
    original: Callable[[Tensor], Tensor] = model.moments
    monkeypatch.setattr(model, "moments", lambda batch: calls.append(len(batch)) or original(batch))
    return calls


def fit(
    model: Any, data: DigitsDataModule, steps: int, *callbacks: pl.Callback, start: Path | None = None
) -> pl.Trainer:
    trainer = quiet_trainer(steps, *callbacks)
    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    return trainer


def weights(model: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.diffusion.parameters()])


def test_training_is_the_same_with_and_without_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the end of an epoch of 44 iterations. The latents are drawn anew from cached means and variances."""
    first = small_first_stage()
    found = {}
    for use_cache in (True, False):
        model = small_latent_diffusion(first)
        calls = counted(model, monkeypatch)
        fit(model, digits(), 50, FirstStageLatents(tmp_path / str(use_cache), use_cache))
        assert sum(calls) == 1437 + (0 if use_cache else 50 * 32)
        found[use_cache] = weights(model)
    torch.testing.assert_close(found[True], found[False], rtol=0, atol=1e-5)
    assert (found[True] - weights(small_latent_diffusion(first))).abs().max() > 0.1


def test_a_resumed_run_goes_on_with_the_same_images_to_the_bit(tmp_path: Path) -> None:
    first = small_first_stage()
    whole, stopped, resumed = (small_latent_diffusion(first) for _ in range(3))
    fit(whole, digits(), 8, FirstStageLatents(tmp_path))
    fit(stopped, digits(), 5, FirstStageLatents(tmp_path)).save_checkpoint(tmp_path / "five.ckpt")
    fit(resumed, digits(), 8, FirstStageLatents(tmp_path), start=tmp_path / "five.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert not torch.equal(weights(stopped), weights(resumed))


@pytest.mark.parametrize("options", [{"augmentation": {"horizontal_flip": True}}, {"dequantize": True}])
def test_images_that_change_from_epoch_to_epoch_are_encoded_as_they_come(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_latent_diffusion(small_first_stage())
    calls = counted(model, monkeypatch)
    fit(model, digits(**options), 2, FirstStageLatents(tmp_path))
    assert sum(calls) == 1437 + 2 * 32
    plain = small_latent_diffusion(small_first_stage())
    fit(plain, digits(), 1, FirstStageLatents(tmp_path))
    assert torch.equal(model.latent_deviations, plain.latent_deviations), "measured on the images themselves"
    assert model.latent_deviations.flatten().tolist() != [1.0] * 3


def test_a_part_measures_and_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_latent_diffusion(small_first_stage())
    calls = counted(model, monkeypatch)
    fit(model, digits(), 2, FirstStageLatents(tmp_path, num_images=100))
    assert sum(calls) == 100 + 2 * 32
    assert model.measured


def test_training_on_latents_that_nobody_measured_is_refused() -> None:
    with pytest.raises(UserError, match=r"set callbacks\.latents as in .*, or model\.standardize=false"):
        fit(small_latent_diffusion(small_first_stage()), digits(), 1)
    fit(small_latent_diffusion(small_first_stage(), standardize=False), digits(), 1)


def test_the_file_is_found_by_its_content_and_a_damaged_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small_first_stage()
    model = small_latent_diffusion(first)
    chosen = digits().reference_set("train", 20)
    expected = model.moments(to_float(chosen.images))
    calls = counted(model, monkeypatch)
    found = load_moments(model, chosen, tmp_path, "digits-train", 7)
    torch.testing.assert_close(found, expected)
    assert calls == [7, 7, 6]
    again = load_moments(model, chosen, tmp_path, "digits-train", 7).clone()
    assert torch.equal(found, again)
    assert len(calls) == 3

    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-5])
    assert torch.equal(load_moments(model, chosen, tmp_path, "digits-train", 7), again)
    assert len(calls) == 6

    load_moments(model, digits().reference_set("train", 21), tmp_path, "digits-train", 7)
    with torch.no_grad():
        first.encoder.layers[-1].bias.add_(1)
    load_moments(small_latent_diffusion(first), chosen, tmp_path, "digits-train", 7)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_failure_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_latent_diffusion(small_first_stage())

    def fail(batch: Tensor) -> Tensor:
        if len(batch) < 7:
            raise OSError("No space left on device")
        return torch.zeros(len(batch), 6, 4, 4)

    monkeypatch.setattr(model, "moments", fail)
    with pytest.raises(UserError, match=r"No space left on device.*: set paths\.cache_dir to a folder with room"):
        load_moments(model, digits().reference_set("train", 20), tmp_path, "digits-train", 7)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def train_in(folder: str, rank: int) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    where = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    model = small_latent_diffusion(small_first_stage())
    data = digits()
    data.trainer = None
    trainer = type("Two", (), {"datamodule": data, "world_size": 2})
    trainer.train_dataloader = data.train_dataloader()  # type: ignore[attr-defined]
    # A cache of each process's own, as on nodes that share no disk; rank 1 would measure other numbers.
    if rank:
        model.first_stage.encoder.layers[-1].weight.data.mul_(1 + 1e-4)
    callback = FirstStageLatents(Path(folder) / str(rank))
    callback.on_train_start(trainer, model)  # type: ignore[arg-type]
    torch.save([model.latent_means, model.latent_deviations, model.measured], Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_all_ranks_standardize_by_rank_zeros_numbers(tmp_path: Path) -> None:
    processes = [forked(train_in, str(tmp_path), rank) for rank in range(2)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first[2] == 1
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"callbacks\.latents\.block_size=0"):
        FirstStageLatents("unused", block_size=0)
