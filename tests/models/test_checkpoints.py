from pathlib import Path

import pytest
import torch

from lightning_gen.errors import UserError
from lightning_gen.models import load_model, read_checkpoint
from tests.models.test_gan import fit, small_gan


def test_a_model_comes_back_with_average_and_counters(tmp_path: Path) -> None:
    model = small_gan()
    model.add_average(half_life_images=50, rampup_ratio=None)
    trainer = fit(model, 3)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_model(read_checkpoint(tmp_path / "a.ckpt"))
    assert (loaded.iteration, loaded.images_seen) == (3, 48)
    assert loaded.average is not None
    assert (loaded.average.half_life_images, loaded.average.rampup_ratio) == (50, None)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    model = small_gan()
    fit(model, 1).save_checkpoint(tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "torn.ckpt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"a": 1}, tmp_path / "other.ckpt")
    torch.save({"generative_model": print}, tmp_path / "code.ckpt")
    for name in ("missing", "torn", "empty", "other", "code"):
        with pytest.raises(UserError, match=name) as caught:
            read_checkpoint(tmp_path / f"{name}.ckpt")
        assert "\n" not in str(caught.value)


def test_a_checkpoint_cannot_name_any_class(tmp_path: Path) -> None:
    fit(small_gan(), 1).save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    checkpoint["generative_model"]["class"] = "subprocess:Popen"
    with pytest.raises(UserError, match="not a GenerativeModel"):
        load_model(checkpoint)
