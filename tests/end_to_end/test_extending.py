"""What docs/extending.md promises: a second model, metric or callback is one class and its name in the config."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule, ImageSet
from lightning_gen.metrics.base import ScoreMetric, ScoreValue, score_metrics
from lightning_gen.metrics.extractors import Features
from lightning_gen.models.base import GenerativeModel
from lightning_gen.models.optimizers import build_optimizer
from lightning_gen.registry import construct
from lightning_gen.regularizers import Regularizer, regularizers
from lightning_gen.training import train
from tests.conftest import ROOT, SMALL


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module made of the guide's examples."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    assert len(examples) == 3
    module = types.ModuleType("guide")
    module.__dict__.update(
        {"GenerativeModel": GenerativeModel, "build_optimizer": build_optimizer, "construct": construct, "nn": nn},
        ImageDataModule=ImageDataModule,
        ImageSet=ImageSet,
        Regularizer=Regularizer,
        regularizers=regularizers,
        torch=torch,
    )
    list(regularizers)  # discovered before the copy: what a first look-up finds inside it is lost with it
    monkeypatch.setattr(regularizers, "_entries", dict(regularizers._entries))
    for code in examples:
        exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, "guide", module)
    return "guide"


class Flat(nn.Module):
    """The smallest autoencoder."""

    def __init__(self, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        size = image_shape[1] * image_shape[2] * image_shape[0]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Linear(width, size))
        self.image_shape = image_shape

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).unflatten(1, self.image_shape)


def test_the_guides_model_trains_and_is_recorded(guide: str, tmp_path: Path) -> None:
    config = compose_config([*SMALL, "trainer.max_steps=30", "ema=none", "metrics.metrics=[frechet_distance]"])
    spec = {"_target_": "tests.end_to_end.test_extending.Flat", "width": 16}
    optimizer = {"name": "Adam", "lr": 1e-3}
    model = {"_target_": f"{guide}:Autoencoder", "network": spec, "optimizer": optimizer}
    record = train({**config, "model": model, "metrics": None, "experiment_name": "autoencoder"})
    assert record is not None
    assert (record["status"], record["iterations"]) == ("completed", 30)
    assert record["parameters"] == {"network": 2 * 1024 * 16 + 16 + 1024}
    checkpoints = tmp_path / "runs" / "autoencoder" / record["run_name"] / "checkpoints"
    assert (checkpoints / "last.ckpt").is_file()


def test_the_guides_data_set_trains_and_is_recorded(guide: str) -> None:
    config = compose_config([*SMALL, "trainer.max_steps=3", "data.labelled_per_class=4", "data.residency=stream"])
    record = train({**config, "data": {**config["data"], "_target_": f"{guide}:CheckersDataModule"}, "metrics": None})
    assert record is not None
    assert (record["status"], record["data"], record["images_seen"]) == ("completed", "checkers", 96)


def test_the_guides_regularizer_joins_any_gan(guide: str) -> None:
    record = train(compose_config([*SMALL, "trainer.max_steps=3", "+model.regularizers.drift=0.001"]))
    assert record is not None
    assert record["status"] == "completed"


def test_a_metric_is_one_registered_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class MeanFeature(ScoreMetric):
        lower_is_better = False

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.values: list[float] = []

        @staticmethod
        def score_name(extractor_name: str) -> str:
            return f"mean_{extractor_name}"

        def update(self, features: Features, indices: Tensor, labels: Tensor | None = None) -> None:
            self.values += features.features.mean(1).tolist()

        def compute(self) -> ScoreValue:
            return ScoreValue(sum(self.values) / len(self.values))

    monkeypatch.setitem(score_metrics._entries, "mean_feature", MeanFeature)
    record = train(compose_config([*SMALL, "trainer.max_steps=3", "metrics.metrics=[mean_feature, frechet_distance]"]))
    assert record is not None
    assert [score["name"] for score in record["scores"]] == ["mean_random", "fd_random"]
    assert record["scores"][0]["lower_is_better"] is False
    assert record["scores"][0]["protocol"]["reference"] is None


def test_any_lightning_callback_can_be_named() -> None:
    timer = "+callbacks.timer={_target_:pytorch_lightning.callbacks.Timer,duration:{minutes:10}}"
    record = train(compose_config([*SMALL, "trainer.max_steps=3", timer]))
    assert record is not None
    assert record["status"] == "completed"
