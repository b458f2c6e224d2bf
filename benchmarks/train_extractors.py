"""Train the LeNet extractors that ship with the package and write their weights beside their module.

    python benchmarks/train_extractors.py digits
    python benchmarks/train_extractors.py mnist --data-dir FOLDER

The weight file's metadata holds the digest of the training images, the accuracy on the test split, seed and epochs.
"""

from __future__ import annotations

import argparse
import json

import torch
from safetensors.torch import save_file
from torch import nn

from lightning_gen.data import ImageDataModule, ImageSet
from lightning_gen.data.sets.digits import DigitsDataModule
from lightning_gen.data.sets.mnist import MNISTDataModule
from lightning_gen.files import atomic_path
from lightning_gen.images import to_float
from lightning_gen.metrics.extractors.lenet import WEIGHTS_DIR, LeNet

DATA: dict[str, type[ImageDataModule]] = {"digits": DigitsDataModule, "mnist": MNISTDataModule}
EPOCHS = {"digits": 60, "mnist": 12}
BATCH_SIZE = 64


def train(images: ImageSet, epochs: int, seed: int) -> LeNet:
    """A LeNet trained with Adam, a one-cycle rate and random shifts of up to two pixels."""
    torch.manual_seed(seed)
    network = LeNet()
    steps = epochs * (len(images) // BATCH_SIZE)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    assert images.labels is not None
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE):
            indices = order[start : start + BATCH_SIZE]
            down, right = torch.randint(-2, 3, (2,)).tolist()
            batch = torch.roll(to_float(images.images[indices]), (down, right), (2, 3))
            loss = nn.functional.cross_entropy(network(batch).logits, images.labels[indices], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def accuracy(network: LeNet, images: ImageSet) -> float:
    """Share of images that are classified right."""
    assert images.labels is not None
    predictions = torch.cat([network(to_float(batch)).logits.argmax(1) for batch in images.images.split(1000)])
    return (predictions == images.labels).double().mean().item()


def main() -> None:
    """Train one extractor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    module = DATA[arguments.data](arguments.data_dir)
    train_set, test_set = module.split("train"), module.split("test")
    network = train(train_set, EPOCHS[arguments.data], arguments.seed)
    record = {
        "data": module.name,
        "train_digest": train_set.digest,
        "train_size": len(train_set),
        "test_size": len(test_set),
        "test_accuracy": round(accuracy(network, test_set), 4),
        "epochs": EPOCHS[arguments.data],
        "seed": arguments.seed,
    }
    path = WEIGHTS_DIR / f"{arguments.data}.safetensors"
    metadata = {key: json.dumps(value) for key, value in record.items()}
    with atomic_path(path) as temporary:
        save_file(network.state_dict(), temporary, metadata=metadata)
    print(json.dumps({"file": path.name, **record}))


if __name__ == "__main__":
    main()
