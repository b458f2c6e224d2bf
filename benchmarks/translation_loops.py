"""Training iterations of pix2pix and CycleGAN as one would write them by hand, for the benchmarks."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, softplus

from lightning_gen.configuration import compose_config
from lightning_gen.data import ImageDataModule
from lightning_gen.data.sets.derived import edges
from lightning_gen.models import GenerativeModel
from lightning_gen.registry import construct
from lightning_gen.training import build_model

DATA = {"pix2pix": "edges", "cyclegan": "inverted", "discogan": "inverted"}
"""Sets of two domains, made of digits, that the models are timed on."""

Iteration = Callable[[Tensor, Tensor], None]
"""Takes images of A and of B, (N, C, H, W) in [-1, 1], and trains on them."""


def translation_config(name: str, size: int, batch_size: int, *overrides: str) -> dict[str, Any]:
    """The config of a model of configs/model on one of ``DATA``, without a moving average or a schedule."""
    config = compose_config(
        [
            f"model={name}",
            f"data={DATA[name]}",
            "metrics=none",
            "ema=none",
            f"data.image_size={size}",
            f"data.batch_size={batch_size}",
            *overrides,
        ]
    )
    for player in ("generator", "discriminator"):
        config["model"][f"{player}_optimizer"]["schedule"] = None
    return config


def build(config: dict[str, Any]) -> tuple[GenerativeModel, ImageDataModule]:
    """Model and data of a config."""
    data = construct(config["data"], ImageDataModule)  # type: ignore[type-abstract]
    return build_model(config, data), data


class Batches:
    """Shuffled batches of both domains, made as the data module makes them.

    Args:
        name: of the model.
        data: its data module.
        device: where the images are.
    """

    def __init__(self, name: str, data: ImageDataModule, device: torch.device) -> None:
        self.name = name
        self.batch_size = data.batch_size
        splits = data.training_splits
        self.sets = [data.reference_set(split).images.to(device) for split in splits]
        self.orders = [torch.randperm(len(images), device=device) for images in self.sets]

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Images of A and of B."""
        drawn = []
        for place, images in enumerate(self.sets):
            first = iteration % (len(images) // self.batch_size) * self.batch_size
            if first == 0:
                self.orders[place] = torch.randperm(len(images), device=images.device)
            drawn.append(images[self.orders[place][first : first + self.batch_size]].float() / 127.5 - 1)
        return (edges(drawn[0]), drawn[0]) if len(drawn) == 1 else (drawn[1], drawn[0])


def pix2pix_iteration(model: Any, rates: dict[str, Any], autocast: Any) -> Iteration:
    """Discriminator, halved, then generator, on the same fake images."""
    generator, discriminator = model.generator, model.discriminator
    adam_g = torch.optim.Adam(generator.parameters(), **rates)
    adam_d = torch.optim.Adam(discriminator.parameters(), **rates)

    def iterate(a: Tensor, b: Tensor) -> None:
        with autocast:
            fake = generator(a)
            real_loss = softplus(-discriminator(b, a).logits).mean()
            loss = (real_loss + softplus(discriminator(fake.detach(), a).logits).mean()) / 2
        take_step(adam_d, loss)
        discriminator.requires_grad_(False)
        with autocast:
            loss = softplus(-discriminator(fake, a).logits).mean() + 100 * l1_loss(fake, b)
        take_step(adam_g, loss)
        discriminator.requires_grad_(True)

    return iterate


def cyclegan_iteration(model: Any, rates: dict[str, Any], autocast: Any) -> Iteration:
    """Both generators, then both discriminators on images from pools."""
    ab, ba, d_a, d_b = model.generator_ab, model.generator_ba, model.discriminator_a, model.discriminator_b
    adam_g = torch.optim.Adam(chain(ab.parameters(), ba.parameters()), **rates)
    adam_d = torch.optim.Adam(chain(d_a.parameters(), d_b.parameters()), **rates)
    pool_a: list[Tensor] = []
    pool_b: list[Tensor] = []

    def judge(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return ((discriminator(real).logits - 1).square().mean() + discriminator(fake).logits.square().mean()) / 2

    def iterate(a: Tensor, b: Tensor) -> None:
        for discriminator in (d_a, d_b):
            discriminator.requires_grad_(False)
        with autocast:
            fake_a, fake_b = ba(b), ab(a)
            loss = (d_b(fake_b).logits - 1).square().mean() + (d_a(fake_a).logits - 1).square().mean()
            loss = loss + 10 * (l1_loss(ba(fake_b), a) + l1_loss(ab(fake_a), b))
            loss = loss + 5 * (l1_loss(ba(a), a) + l1_loss(ab(b), b))
        take_step(adam_g, loss)
        for discriminator in (d_a, d_b):
            discriminator.requires_grad_(True)
        pooled_a, pooled_b = exchange(pool_a, fake_a.detach()), exchange(pool_b, fake_b.detach())
        with autocast:
            loss = judge(d_a, a, pooled_a) + judge(d_b, b, pooled_b)
        take_step(adam_d, loss)

    return iterate


def exchange(pool: list[Tensor], images: Tensor, size: int = 50) -> Tensor:
    """Images from the pool for half of the new ones."""
    given = []
    for image in images:
        if len(pool) < size:
            pool.append(image)
        elif random.random() < 0.5:
            place = random.randrange(size)
            pool[place], image = image, pool[place]
        given.append(image)
    return torch.stack(given)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step on a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


LOOPS = {"pix2pix": pix2pix_iteration, "cyclegan": cyclegan_iteration}
"""Of the models that `training_step.py` times."""
