"""Train the extractor of a data set, measure it, and write the file that tells of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lightning_gen.data import ImageDataModule
from lightning_gen.data.augmentation import Augmentation
from lightning_gen.data.image_set import ImageSet
from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors.base import sha256_of_file
from lightning_gen.metrics.extractors.trained import fit, network_size, stored_weights, write_extractor
from lightning_gen.metrics.extractors.training import Recipe, accuracy, make_recipe, train_classifier
from lightning_gen.tracking.record import package_versions


def train_extractor(
    name: str,
    data: ImageDataModule,
    path: Path,
    options: Mapping[str, Any],
    device: torch.device,
    progress: Callable[[Recipe, int, float], None] = lambda recipe, epoch, loss: None,
) -> dict[str, Any]:
    """Train a classifier on the training split and write it with its record; goes on where a stopped one left off.

    The accuracy is that of the weights as the file holds them, on the test split, or on ``val`` for a set without.

    Args:
        name: of the extractor.
        data: a labelled set.
        path: of the file; the checkpoint of the training is beside it until the file is written.
        options: ``architecture`` and the options of `make_recipe`.
        device: to train on.
        progress: called after every epoch with its number from 1 and its mean loss.

    Returns:
        The record, with ``output`` and ``weights_sha256``.

    Raises:
        UserError: data without labels, without a split to measure on, or of a size that no network takes; or what
            `make_recipe` and `train_classifier` raise.
    """
    size = network_size(options["architecture"], data.image_size)
    train_set = _labelled(data, "train")
    test_split = "test" if "test" in data.splits else "val"
    if test_split == "val" and not data.validation_share:
        raise UserError(f"{data.name} has no test split to measure the accuracy on: set data.validation_share=0.1")
    test_set = _labelled(data, test_split)
    assert train_set.labels is not None
    assert test_set.labels is not None
    num_classes = max(data.num_classes, 1 + int(train_set.labels.max()))
    recipe = make_recipe(num_images=len(train_set), **options)
    checkpoint = path.with_name(f".{path.stem}.training")
    network = train_classifier(
        fit(train_set.images, size),
        train_set.labels,
        num_classes,
        recipe,
        Augmentation(recipe.flip, round(recipe.shift * size)),
        checkpoint,
        device,
        digest=train_set.digest,
        progress=lambda epoch, loss: progress(recipe, epoch, loss),
    )
    weights = stored_weights(network)
    network.load_state_dict(weights)
    record = {
        "name": name,
        **asdict(recipe),
        "image_shape": list(data.image_shape),
        "num_classes": num_classes,
        "class_names": list(data.class_names),
        "data": data.name,
        "train_digest": train_set.digest,
        "train_size": len(train_set),
        "test_split": test_split,
        "test_size": len(test_set),
        "test_accuracy": round(accuracy(network, fit(test_set.images, size), test_set.labels), 4),
        "versions": package_versions(),
    }
    write_extractor(path, weights, record)
    checkpoint.unlink(missing_ok=True)
    return {"output": str(path), **record, "dimension": network.num_features, "weights_sha256": sha256_of_file(path)}


def _labelled(data: ImageDataModule, split: str) -> ImageSet:
    images = data.reference_set(split)
    if images.labels is None or not len(images) or int(images.labels.min()) < 0:
        raise UserError(f"{data.name} has images without labels in its {split} split: choose labelled data")
    return images
