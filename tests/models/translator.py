"""A translating model that is small enough to be understood: one convolution of a pixel in each direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.models import GenerativeModel

TARGET = f"{__name__}.Translator"


class Translator(GenerativeModel):
    """Begins as the identity (grey from colour: the mean), and learns to make each domain of the other.

    Args:
        image_shape: of domain B.
        input_shape: of domain A.
        directions: see `Translates`.
        noise: standard deviation of what is added to translations.
        size_multiple: see `Translates`.
    """

    network_names = averaged_networks = ("a_to_b", "b_to_a")

    def __init__(
        self,
        image_shape: Sequence[int],
        input_shape: Sequence[int],
        directions: Sequence[str] = ("AtoB", "BtoA"),
        noise: float = 0.0,
        size_multiple: int = 4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.directions = tuple(directions)
        self.domain_shapes: Mapping[str, Any] = {"A": tuple(input_shape), "B": tuple(image_shape)}
        self.noise = noise
        self.multiple = size_multiple
        self.a_to_b = nn.Conv2d(input_shape[0], image_shape[0], 1)
        self.b_to_a = nn.Conv2d(image_shape[0], input_shape[0], 1)
        for network in (self.a_to_b, self.b_to_a):
            if network.in_channels == network.out_channels:
                nn.init.dirac_(network.weight)
            else:
                nn.init.constant_(network.weight, 1 / network.in_channels)
            nn.init.zeros_(network.bias)
        self.sizes: list[tuple[int, ...]] = []

    @property
    def size_multiple(self) -> int:
        return self.multiple

    def sampler_settings(self) -> dict[str, Any]:
        return {"noise": self.noise}

    def translate(self, images: Tensor, direction: str = "AtoB", *, generator: torch.Generator) -> Tensor:
        assert direction in self.directions
        assert not any(side % self.multiple for side in images.shape[2:])
        self.sizes.append(tuple(images.shape))
        outputs = (self.a_to_b if direction == "AtoB" else self.b_to_a)(images)
        drawn = torch.randn(outputs.shape, generator=generator).to(outputs)
        return (outputs + self.noise * drawn).clamp(-1, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_iteration(self, batch: Any) -> dict[str, Tensor]:
        (optimizer,) = self.optimizer_list()
        loss = (self.a_to_b(batch.images_a) - batch.images_b).square().mean()
        loss = loss + (self.b_to_a(batch.images_b) - batch.images_a).square().mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return {"loss": loss}
