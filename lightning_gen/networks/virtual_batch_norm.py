"""Virtual batch norm (Salimans et al. 2016, section 3.5): the layer, and networks that carry a reference batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.networks.discriminator import Discriminator, DiscriminatorOutput
from lightning_gen.networks.minibatch_discrimination import MinibatchDiscrimination


class VirtualBatchNorm(nn.Module):
    """Normalizes a sample by statistics of n reference samples and of itself, weighted n / (n + 1) and 1 / (n + 1).

    The reference samples, at the beginning of every batch, are normalized by their own statistics. The same in training
    and evaluation; a sample's output depends on no other but the reference.

    Args:
        norm: the batch norm whose gain, bias and epsilon this takes over.
        reference_size: n.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, reference_size: int) -> None:
        super().__init__()
        self.eps = norm.eps
        self.reference_size = reference_size
        self.weight = norm.weight
        self.bias = norm.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalized (n + N, C) or (n + N, C, ...) of inputs of that shape, the first n of which are the reference."""
        maps = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        maps = maps.unsqueeze(2) if maps.ndim == 2 else maps
        places = tuple(range(2, maps.ndim))
        size = self.reference_size
        reference, batch = maps[:size], maps[size:]
        reference_var, reference_mean = torch.var_mean(reference, (0, *places), correction=0, keepdim=True)
        own_var, own_mean = torch.var_mean(batch, places, correction=0, keepdim=True)
        mean = (size * reference_mean + own_mean) / (size + 1)
        # The variance of the mixture as squared distances from its mean, which cancels no digits.
        var = size * (reference_var + (reference_mean - mean).square()) + own_var + (own_mean - mean).square()
        normalized = torch.cat(
            [
                (reference - reference_mean) * torch.rsqrt(reference_var + self.eps),
                (batch - mean) * torch.rsqrt(var / (size + 1) + self.eps),
            ]
        )
        if self.weight is not None:
            shape = (1, -1, *(1 for _ in places))
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.view(inputs.shape).to(inputs.dtype)


class ReferenceGenerator(nn.Module):
    """A generator with virtual batch norm and the latents of its reference batch.

    Args:
        network: latents, labels or None -> images; its batch norms are replaced.
        latents: (n, D) of the reference.
        labels: (n,) int64 of the reference, or None for a generator without classes.

    Raises:
        UserError: a network without batch norm, or with a kind that cannot be virtual.
    """

    reference_latents: Tensor
    reference_labels: Tensor | None

    def __init__(self, network: nn.Module, latents: Tensor, labels: Tensor | None) -> None:
        super().__init__()
        replace_batch_norms(network, len(latents))
        self.network = network
        self.register_buffer("reference_latents", latents)
        self.register_buffer("reference_labels", labels)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of latents (N, D) and labels (N,) int64 or None."""
        size = len(self.reference_latents)
        inputs = torch.cat([self.reference_latents.to(latents.dtype), latents])
        if labels is None:
            return self.network(inputs)[size:]
        assert self.reference_labels is not None
        return self.network(inputs, torch.cat([self.reference_labels, labels]))[size:]


class ReferenceDiscriminator(Discriminator):
    """A discriminator with virtual batch norm and the images of its reference batch, which are zero until given.

    Its blocks and heads are the wrapped network's own, where they take the reference before the batch.

    Args:
        network: its batch norms are replaced.
        images: (n, C, H, W) in [-1, 1], the reference.
        labels: (n,) int64 of the reference, or None for a discriminator without classes.

    Raises:
        UserError: a network without batch norm, or with a kind that cannot be virtual.
    """

    reference_images: Tensor
    reference_labels: Tensor | None

    _OF_NETWORK = ("blocks", "head", "heads", "num_features", "num_classes", "batch_features")

    def __init__(self, network: Discriminator, images: Tensor, labels: Tensor | None) -> None:
        # What Discriminator.__init__ makes is the wrapped network's here: see `__getattr__`.
        nn.Module.__init__(self)
        replace_batch_norms(network, len(images))
        for module in network.modules():
            if isinstance(module, MinibatchDiscrimination):
                module.reference_size = len(images)
        self.network = network
        self.register_buffer("reference_images", images)
        self.register_buffer("reference_labels", labels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name) if name in self._OF_NETWORK else super().__getattr__(name)

    def set_reference(self, images: Tensor, labels: Tensor | None) -> None:
        """Take other images (n, C, H, W) in [-1, 1] and, for a discriminator with classes, labels (n,) int64."""
        self.reference_images.copy_(images)
        if self.reference_labels is not None:
            assert labels is not None
            self.reference_labels.copy_(labels)

    def initialize(self, network: nn.Module) -> None:
        """As the wrapped network does."""
        self.network.initialize(network)

    def feature_maps(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """The outputs of all blocks for the images (N, C, H, W), without those for the reference."""
        size = len(self.reference_images)
        return [maps[size:] for maps in self.network.feature_maps(*self._with_reference(images, labels))]

    def forward(self, images: Tensor, labels: Tensor | None = None) -> DiscriminatorOutput:
        """All outputs for the images (N, C, H, W) and labels (N,) int64 or None, without those for the reference."""
        size = len(self.reference_images)
        logits, features, heads = self.network(*self._with_reference(images, labels))
        cut = {name: outputs[size:] for name, outputs in heads.items()}
        return DiscriminatorOutput(logits[size:], features[size:], cut)

    def _with_reference(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if labels is not None and self.reference_labels is not None:
            labels = torch.cat([self.reference_labels, labels])
        return torch.cat([self.reference_images.to(images.dtype), images]), labels


def replace_batch_norms(network: nn.Module, reference_size: int) -> None:
    """Replace every ``nn.BatchNorm1d`` and ``nn.BatchNorm2d`` inside ``network`` by a `VirtualBatchNorm`.

    Raises:
        UserError: there is none, or another kind of batch norm.
    """
    norms = {name: module for name, module in network.named_modules() if "BatchNorm" in type(module).__name__}
    if not norms:
        raise UserError(
            f"model.regularizers.virtual_batch_norm: {type(network).__name__} has no batch norm: "
            "leave it out of model.regularizers.virtual_batch_norm.networks"
        )
    for name, norm in norms.items():
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise UserError(
                f"model.regularizers.virtual_batch_norm: {type(norm).__name__} in {type(network).__name__} cannot be "
                "virtual: leave it out of model.regularizers.virtual_batch_norm.networks"
            )
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, VirtualBatchNorm(norm, reference_size))
