"""The recipes that train a `Classifier` on labelled images, epoch by epoch, so that a stopped training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.files import atomic_path
from lightning_gen.images import to_float
from lightning_gen.metrics.extractors.classifiers import ARCHITECTURES, Classifier
from lightning_gen.seeds import make_rng

Augment = Callable[[Tensor, torch.Generator], Tensor]
MINIMUM_UPDATES = 1500


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        architecture: a name in `ARCHITECTURES`.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adam``.
        epochs: passes over the training images.
        batch_size: images in a batch; a shorter last batch is left out.
        learning_rate: the highest, reached after a fifth of the updates; linear up to it and down to zero.
        weight_decay: of convolutions and dense layers, not of biases and batch norms.
        label_smoothing: share of each target that is spread over all classes (Szegedy et al. 2016, section 7).
        shift: images are moved by up to this share of their side, their border reflected.
        flip: every other image or so is mirrored.
        precision: ``32``, or ``bf16`` for autocast to bfloat16.
        seed: of the weights, the order and the augmentation.
    """

    architecture: str
    optimizer: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    shift: float
    flip: bool
    precision: str = "32"
    seed: int = 0


def make_recipe(architecture: str, num_images: int, epochs: int | None = None, **options: Any) -> Recipe:
    """The recipe of an architecture; sets of less than 2,048 (LeNet) or 8,192 images (ResNet) get smaller batches.

    Args:
        architecture: a name in `ARCHITECTURES`.
        num_images: training images.
        epochs: passes over them; None for 12 (LeNet) or 16 (ResNet), and more where that is less than 1,500 updates.
        options: ``flip``, ``precision`` and ``seed`` of the `Recipe`.

    Raises:
        UserError: an unknown architecture or precision, or no epochs.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(f"--architecture must be one of {', '.join(ARCHITECTURES)}, not {architecture!r}")
    if options.get("precision", "32") not in ("32", "bf16"):
        raise UserError(f"--precision must be 32 or bf16, not {options['precision']!r}")
    if epochs is not None and epochs < 1:
        raise UserError(f"--epochs must be at least 1, not {epochs}")
    lenet = architecture == "lenet"
    batch_size = min(64 if lenet else 256, max(16, num_images // 32), num_images)
    least = math.ceil(MINIMUM_UPDATES / (num_images // batch_size))
    return Recipe(
        architecture=architecture,
        optimizer="adam" if lenet else "sgd",
        epochs=epochs or max(12 if lenet else 16, least),
        batch_size=batch_size,
        learning_rate=2e-3 if lenet else 0.2 * batch_size / 256,
        weight_decay=0.0 if lenet else 5e-4,
        label_smoothing=0.05 if lenet else 0.1,
        shift=1 / 16 if lenet else 1 / 8,
        **{"flip": False, **options},
    )


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    recipe: Recipe,
    augment: Augment,
    checkpoint: Path,
    device: torch.device,
    *,
    digest: str = "",
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Classifier:
    """Train a classifier from the first epoch, or from where ``checkpoint`` left off.

    Every epoch draws from generators of its own, so a training that was stopped gives the same weights as one that
    was not.

    Args:
        images: (N, C, S, S) uint8, N >= batch size, already in the size of the network.
        labels: (N,) int64 in [0, num_classes).
        num_classes: K.
        recipe: how.
        augment: float images in [-1, 1] and a generator on the CPU to images that are changed at random.
        checkpoint: a file that is written after every epoch; the caller removes it.
        device: to train on.
        digest: of the training set, so that no checkpoint of another set is taken up.
        progress: called after every epoch with its number from 1 and its mean loss.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: the checkpoint is of another training.
    """
    settings = {**asdict(recipe), "images": list(images.shape), "num_classes": num_classes, "digest": digest}
    torch.manual_seed(recipe.seed)
    network = ARCHITECTURES[recipe.architecture](images.shape[1], num_classes, images.shape[-1])
    network.to(device)
    network.to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, recipe)
    first = _resume(checkpoint, settings, network, optimizer)
    steps = len(images) // recipe.batch_size
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    for epoch in range(first, recipe.epochs):
        rng = make_rng("extractor", recipe.seed, epoch)
        order = torch.randperm(len(images), generator=rng)
        total = 0.0
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _triangle((epoch * steps + step + 0.5) / (recipe.epochs * steps))
            indices = order[step * recipe.batch_size :][: recipe.batch_size]
            batch = augment(to_float(images[indices].to(device)), rng)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                logits = network(batch).logits
            loss = loss_function(logits.float(), labels[indices].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        with atomic_path(checkpoint) as temporary:
            torch.save({"settings": settings, "epoch": epoch + 1, **state}, temporary)
        progress(epoch + 1, total / steps)
    return network.cpu().eval()


@torch.inference_mode()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (N, C, S, S), in the size of the network, that it classifies as ``labels`` (N,) say."""
    right = 0
    for block, truth in zip(images.split(500), labels.split(500), strict=True):
        right += int((network(to_float(block)).logits.argmax(1) == truth).sum())
    return right / len(images)


def _triangle(position: float, peak: float = 0.2) -> float:
    """Linear from 0 to 1 at ``peak`` and back to 0, for a position in [0, 1]."""
    return position / peak if position < peak else (1 - position) / (1 - peak)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


def _resume(checkpoint: Path, settings: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint if there is one; the number of epochs that it has behind it."""
    if not checkpoint.exists():
        return 0
    remedy = f"delete {checkpoint} to begin anew"
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if saved["settings"] != settings:
            changed = next(key for key in settings if saved["settings"].get(key) != settings[key])
            raise UserError(f"{checkpoint} is of a training with another {changed}: repeat that, or {remedy}")
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        return int(saved["epoch"])
    except UserError:
        raise
    # Whatever a file that is no checkpoint makes of the unpickler.
    except Exception as error:
        raise UserError(f"{checkpoint} cannot be read: {remedy}") from error
