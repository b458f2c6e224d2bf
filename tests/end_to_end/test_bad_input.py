"""Mistakes give one clear line before the first iteration and leave earlier runs untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from lightning_gen.configuration import compose_config
from lightning_gen.errors import UserError
from lightning_gen.models.gan import GAN
from lightning_gen.training import train
from tests.conftest import SMALL, run_command
from tests.data.test_sets import truncate, write_idx


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refuses(
    train_here: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Try a run beside an earlier one; returns its one-line error after checking that nothing was touched."""
    train_here("trainer.max_steps=2", "run_name=earlier")
    runs = tmp_path / "runs"

    def attempt(*overrides: str) -> str:
        before = snapshot(runs)
        monkeypatch.delenv("LIGHTNING_GEN_RUN", raising=False)
        monkeypatch.setattr(GAN, "training_iteration", lambda *_: pytest.fail("an iteration ran"))
        with pytest.raises(UserError) as caught:
            train(compose_config([*SMALL, *overrides]))
        assert snapshot(runs) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return attempt


def test_unknown_config_key(refuses: Callable[..., str]) -> None:
    assert "Did you mean 'trainer.max_steps'" in refuses("trainer.max_stepz=3")
    assert "latent_dims" in refuses("+model.latent_dims=3")


def test_wrong_image_size(refuses: Callable[..., str]) -> None:
    assert "data.image_size" in refuses("data.image_size=28")
    assert "data.image_size" in refuses("data.image_size=64", "metrics=digits", "metrics.num_samples=100")


def test_unwritable_output_directory(refuses: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "paths.output_dir" in refuses(f"paths.output_dir={tmp_path}/file/runs")


def test_missing_inception_weights_without_network(
    refuses: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    assert "metrics.extractor.weights" in refuses("metrics=inception")


def test_corrupt_mnist_file(refuses: Callable[..., str], tmp_path: Path) -> None:
    write_idx(tmp_path / "data")
    truncate(tmp_path / "data" / "train-images-idx3-ubyte")
    assert "train-images-idx3-ubyte is damaged" in refuses("data=mnist", f"paths.data_dir={tmp_path}/data")


def test_trainer_options_that_do_nothing_in_manual_optimization(refuses: Callable[..., str]) -> None:
    assert "model.gradient_clip_norm" in refuses("trainer.gradient_clip_val=1.0")
    assert "accumulate_grad_batches" in refuses("trainer.accumulate_grad_batches=2")
    assert "bf16-mixed" in refuses("trainer.precision=16-mixed", "model.gradient_clip_norm=1.0")
    assert "never end" in refuses("trainer.max_steps=-1")


def test_resume_with_another_model(refuses: Callable[..., str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny" / "earlier"
    assert "model.latent_dim was 8, is 16" in refuses("model.latent_dim=16", f"resume={run}")
    assert "model.latent_dim was 8, is 16" in refuses("model.latent_dim=16", "resume=auto", "run_name=earlier")
    assert "seed was 0, is 1" in refuses("seed=1", "resume=auto", "run_name=earlier")


def test_too_few_reference_images(refuses: Callable[..., str]) -> None:
    assert "metrics.minimum_reference" in refuses("metrics=digits", "metrics.num_reference=50")
    assert "holds 360 images" in refuses("metrics.num_reference=361")


def test_a_taken_name(refuses: Callable[..., str]) -> None:
    assert "resume=auto" in refuses("run_name=earlier")


def test_a_checkpoint_to_start_from_that_does_not_fit(refuses: Callable[..., str], tmp_path: Path) -> None:
    checkpoint = tmp_path / "runs" / "tiny" / "earlier" / "checkpoints" / "last.ckpt"
    assert "does not fit" in refuses(f"ckpt_path={checkpoint}", "model.latent_dim=16")
    assert "No checkpoint" in refuses(f"ckpt_path={tmp_path}/none.ckpt")


def test_a_trainer_that_this_machine_cannot_serve(refuses: Callable[..., str]) -> None:
    assert "trainer:" in refuses("trainer.accelerator=tpu")
    assert "trainer:" in refuses("+trainer.max_stepz=3")


def test_a_batch_larger_than_the_set(refuses: Callable[..., str]) -> None:
    assert "data.batch_size" in refuses("data.batch_size=2000")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("modle=dcgan",), "error: Unknown config key 'modle'. Did you mean 'model'?"),
        (("model.loss=hing",), "error: Unknown adversarial loss 'hing'"),
    ],
)
def test_the_command_prints_one_line(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    result = run_command("train.py", *SMALL, *overrides, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
