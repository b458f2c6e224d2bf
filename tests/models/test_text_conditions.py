"""A diffusion model that is told of classes by captions, from its config to its checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_gen.models import load_model, read_checkpoint
from lightning_gen.models.diffusion import Diffusion
from lightning_gen.networks.text import TextCondition
from tests.models.test_family import build, fit

TEXTS = (
    "model.conditional=true",
    "model.label_drop=0.5",
    "model.guidance_scale=2",
    "model.optimizer.lr=0.01",
    "model.optimizer.schedule=null",
    "+model.network.condition._target_=lightning_gen.networks.text.TextCondition",
    "+model.network.condition.template='the digit {}'",
    "+model.network.cross_attention=true",
)


def test_a_model_of_captions_trains_and_draws_by_labels_and_by_free_texts(tmp_path: Path) -> None:
    model, data = build("ddpm", *TEXTS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, data, 5).save_checkpoint(tmp_path / "one.ckpt")
    learnt = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert "network.condition.encoder.table.weight" in learnt
    loaded = load_model(read_checkpoint(tmp_path / "one.ckpt"))
    assert isinstance(loaded, Diffusion)
    condition = loaded.network.condition
    assert isinstance(condition, TextCondition)
    assert condition.captions == [*(f"the digit {digit}" for digit in range(10)), ""]
    with loaded.evaluation():
        by_label, by_text, by_other_text = (
            loaded.sample(2, labels, generator=torch.Generator().manual_seed(0))
            for labels in (
                torch.tensor([7, 3]),
                condition.labels_of(["the digit 7", "the digit 3"]),
                condition.labels_of(["3 7 digit", "3"]),
            )
        )
    assert torch.equal(by_label, by_text)
    assert not torch.equal(by_label, by_other_text)
