"""Translators and discriminators with one number each, so that losses and steps can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gen.data.batches import PairBatch
from lightning_gen.models.base import GenerativeModel
from lightning_gen.networks.translator import DomainDiscriminator, Translator
from tests.trainers import quiet_trainer


class Multiply(nn.Module):
    """The input times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return self.factor * inputs


class Scale(Translator):
    """Images times ``weight``, and only those of shape (1, 2, 2)."""

    size_multiple = 1

    def __init__(self, input_shape: Any, image_shape: Any, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.weight * images


class Total(nn.Module):
    """``weight`` times the sum over channels."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, maps: Tensor) -> Tensor:
        return self.weight * maps.sum(1, keepdim=True)


class Judge(DomainDiscriminator):
    """Logits are 6 times ``weight`` times what it sees; its feature maps 2 and 6 times that."""

    def __init__(self, input_channels: int, weight: float = 0.25) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.blocks = nn.Sequential(Multiply(2.0), Multiply(3.0))
        self.head = Total(weight)


SGD = {"name": "SGD", "lr": 0.1}


def spec(network: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"tests.models.scalars.{network}", **options}


SCALARS: dict[str, Any] = {
    "image_shape": (1, 2, 2),
    "input_shape": (1, 2, 2),
    "generator": spec("Scale"),
    "discriminator": spec("Judge"),
    "generator_optimizer": SGD,
    "discriminator_optimizer": SGD,
}


def constant(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2).clone()


class Keep(pl.Callback):
    """Keeps the losses of every iteration."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.losses.append({name: value.item() for name, value in outputs.items()})


def fit(model: GenerativeModel, a: Tensor, b: Tensor, steps: int = 1) -> tuple[list[dict[str, float]], pl.Trainer]:
    """Train on one batch, again and again; the losses of every iteration."""
    keep = Keep()
    trainer = quiet_trainer(steps, keep)
    batches: Any = [PairBatch(a, b, None, None)] * steps
    trainer.fit(model, train_dataloaders=DataLoader(batches, batch_size=None))
    return keep.losses, trainer
