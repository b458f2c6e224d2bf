"""Sets of points, written as images, on which self- and co-training must help or must hurt, and models for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.callbacks.pseudo_labels import PseudoLabels
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.models.classifier import Classifier
from lightning_gen.models.co_training import CoTraining
from lightning_gen.models.self_training import SelfTraining
from lightning_gen.tracking.run_directory import RunDirectory
from tests.trainers import quiet_trainer

SHAPE = (1, 4, 4)
SGD = {"name": "SGD", "lr": 1.0}
LINEAR = {"_target_": "lightning_gen.networks.encoders.MLPEncoder", "hidden": []}
KERNEL = {"_target_": "tests.models.small_pools.KernelClassifier"}


class KernelClassifier(nn.Module):
    """Logits that are sums of bumps on a grid over the first two pixels: sure near what it learned, and nowhere else.

    By gradient descent from zero it is a kernel method, whose far predictions are those of the nearest label.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_outputs: int, width: float = 0.15) -> None:
        super().__init__()
        axis = torch.linspace(-1, 1, 13)
        self.centers = nn.Buffer(torch.cartesian_prod(axis, axis))
        self.width = width
        self.last = nn.Linear(len(self.centers), num_outputs, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, images: Tensor) -> Tensor:
        squares = (images.flatten(1)[:, None, :2] - self.centers).square().sum(2)
        return self.last(torch.exp(-squares / (2 * self.width**2)))


class PointSet(ImageDataModule):
    """A given set, all of whose training images but some have no label; its test images are the training images."""

    name = "points"
    class_names = ("0", "1")
    image_channels = 1

    def __init__(self, images: Tensor, labels: Tensor, labelled: Sequence[int], seed: int = 0) -> None:
        super().__init__("unused", image_size=4, batch_size=50, seed=seed, labelled_per_class=1)
        self.whole = ImageSet(images, labels)
        self.labelled_indices = torch.tensor(labelled)
        self.labelled_batch_size = len(labelled)

    def load(self, split: str) -> ImageSet:
        return self.whole


def point_images(points: Tensor) -> Tensor:
    """Images (N, 1, 4, 4) uint8 of points (N, 2) in [-1, 1]: the same two pixels in the upper and the lower half."""
    images = torch.full((len(points), 1, 4, 4), 128, dtype=torch.uint8)
    images[:, 0, 0, :2] = images[:, 0, 2, :2] = ((points + 1) * 127.5).round().to(torch.uint8)
    return images


def train(model: Classifier | SelfTraining | CoTraining, data: PointSet, steps: int, run: Path) -> list[dict[str, Any]]:
    """Train; returns the lines of ``rounds.jsonl``."""
    model.seed = data.seed
    run.mkdir(parents=True, exist_ok=True)
    trainer = quiet_trainer(steps, PseudoLabels(RunDirectory(run)))
    trainer.fit(model, datamodule=data)
    return RunDirectory(run).read_rounds()


def error(model: Classifier | SelfTraining | CoTraining, images: Tensor, labels: Tensor) -> float:
    """Percent of uint8 images that get another class than their label."""
    with model.evaluation():
        return 100 * float((model.classify(images.float() / 127.5 - 1).argmax(1) != labels).double().mean())


def two_lines(seed: int) -> Tensor:
    """Points (200, 2) in [-1, 1]: an upper and a lower line, each from the left to the right."""
    across = torch.linspace(-0.9, 0.9, 100)
    points = torch.cat([torch.stack([across, torch.full((100,), height)], 1) for height in (0.5, -0.5)])
    return points + 0.02 * torch.randn(200, 2, generator=torch.Generator().manual_seed(seed))
