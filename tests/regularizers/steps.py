"""Players and steps made by hand, for regularizers without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.networks.discriminator import Discriminator, DiscriminatorOutput, LinearHead
from lightning_gen.regularizers import Players, Regularizer, Step


class LinearDiscriminator(Discriminator):
    """A discriminator whose features are the pixels."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Flatten())
        self.set_head(num_features, LinearHead(num_features))


def players(**changes: Any) -> Players:
    known: dict[str, Any] = {
        "generator": nn.Linear(2, 3),
        "discriminator": LinearDiscriminator(3),
        "loss": "non_saturating",
        "num_classes": None,
        "draw_latents": lambda number: torch.randn(number, 2),
        "codes": (),
        "chosen": {},
        "image_shape": (1, 4, 4),
    }
    return Players(**{**known, **changes})


def output(logits: Any, features: Tensor | None = None, **heads: Tensor) -> DiscriminatorOutput:
    logits = torch.as_tensor(logits, dtype=torch.float32)
    return DiscriminatorOutput(logits, torch.zeros(len(logits), 1) if features is None else features, heads)


def step(real: DiscriminatorOutput | None, fake: DiscriminatorOutput, **changes: Any) -> Step:
    images = torch.zeros(len(fake.logits), 1, 4, 4)
    real_images = torch.zeros(len(real.logits), 1, 4, 4) if real is not None else images
    discriminate: Callable[[Tensor], DiscriminatorOutput] = lambda images: output(images.flatten(1).sum(1))  # noqa: E731
    known: dict[str, Any] = {
        "iteration": 0,
        "images_seen": 0,
        "latents": torch.zeros(len(fake.logits), 2),
        "labels": None,
        "real_labels": None,
        "clean_real_images": real_images,
        "clean_fake_images": images,
        "real_images": real_images,
        "fake_images": images,
        "see_real": None if real is None else lambda: real,
        "see_fake": lambda: fake,
        "discriminate": discriminate,
    }
    return Step(**{**known, **changes})


def follow(regularizer: Regularizer, made: Step, times: int = 1) -> None:
    """What a model calls in a discriminator step."""
    for _ in range(times):
        regularizer.discriminator_term(made)
        regularizer.after_discriminator_step(players(), made)
