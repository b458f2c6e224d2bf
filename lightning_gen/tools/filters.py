"""What the channels of a network respond to, by guided backpropagation (Springenberg et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_gen.errors import UserError
from lightning_gen.images import to_uint8
from lightning_gen.models.capabilities import HasFeatureMaps

BLOCK_SIZE = 64


class Filters(NamedTuple):
    """The strongest responses of some channels.

    Attributes:
        patches: (channels, top, C, H', W') uint8, the parts of images that each channel responds to most, strongest
            first.
        gradients: (channels, top, C, H', W') uint8, the guided gradient of that response; grey is 0, and each is
            scaled by its largest magnitude.
    """

    patches: Tensor
    gradients: Tensor


@contextmanager
def guided(network: nn.Module) -> Iterator[None]:
    """Within the context gradients that come back to a ReLU or LeakyReLU pass only where they are positive.

    With the unit's own derivative this is guided backpropagation (Springenberg et al. 2015, figure 1); a LeakyReLU
    keeps its slope for negative inputs. Activations that are no modules stay as they are.

    Raises:
        UserError: there is no such module.
    """
    units = [module for module in network.modules() if isinstance(module, nn.ReLU | nn.LeakyReLU)]
    if not units:
        raise UserError(f"{type(network).__name__} has no ReLU or LeakyReLU modules to guide gradients by")
    inplace = [unit.inplace for unit in units]
    handles = [unit.register_forward_hook(_guide) for unit in units]
    for unit in units:
        # A unit that overwrote its input would change what an earlier hook, or a feature map, holds.
        unit.inplace = False
    try:
        yield
    finally:
        for unit, was_inplace, handle in zip(units, inplace, handles, strict=True):
            unit.inplace = was_inplace
            handle.remove()


def filters(model: HasFeatureMaps, images: Tensor, block: int, channels: Sequence[int], top: int) -> Filters:
    """The parts of images with the strongest response of each channel, and the guided gradient of that response.

    A channel's response to an image is its largest activation over all positions.

    Args:
        model: a module in evaluation mode.
        images: (N, C, H, W) float in [-1, 1], to choose from.
        block: which feature map, negative from the last.
        channels: of that map.
        top: images of each channel.

    Raises:
        UserError: no such block or channel, or no unit to guide by.
    """
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        maps = [_pick(model.feature_maps(part), block) for part in images.split(BLOCK_SIZE)]
        responses = torch.cat([part.flatten(2).amax(2) if part.ndim > 2 else part for part in maps])
    if max(channels) >= responses.shape[1]:
        raise UserError(f"Block {block} has {responses.shape[1]} channels: lower --channels")
    strongest = responses[:, list(channels)].topk(min(top, len(images)), dim=0).indices.T
    gradients = [
        guided_gradient(model, images[chosen], block, channel)
        for channel, chosen in zip(channels, strongest, strict=True)
    ]
    scaled = torch.cat(
        [gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30) for gradient in gradients]
    )
    patches, shown = crop_to_response(images[strongest.flatten()], scaled)
    shape = (len(channels), -1, *patches.shape[1:])
    return Filters(to_uint8(patches).reshape(shape).cpu(), to_uint8(shown).reshape(shape).cpu())


def crop_to_response(images: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """The windows, all of one size, of images and gradients (N, C, H, W) outside which the gradients are 0."""
    touched = gradients.ne(0).any(1)
    bounds = [_bounds(touched.any(2)), _bounds(touched.any(1))]
    sizes = [int((last - first).max()) + 1 for first, last in bounds]
    windows = []
    for tensor in (images, gradients):
        for index, image in enumerate(tensor):
            for axis, ((first, last), size) in enumerate(zip(bounds, sizes, strict=True), start=1):
                # In the middle, and moved inwards at the border of the image.
                start = int(first[index] + last[index] + 1 - size) // 2
                image = image.narrow(axis, min(max(start, 0), image.shape[axis] - size), size)
            windows.append(image)
    return torch.stack(windows[: len(images)]), torch.stack(windows[len(images) :])


def guided_gradient(model: HasFeatureMaps, images: Tensor, block: int, channel: int) -> Tensor:
    """The guided gradient (N, C, H, W) of a channel's largest activation in each image (N, C, H, W)."""
    assert isinstance(model, nn.Module)
    with torch.enable_grad(), guided(model):
        pixels = images.detach().clone().requires_grad_()
        # `max` takes one position where several are equal; `amax` would share the gradient between them.
        response = _pick(model.feature_maps(pixels), block)[:, channel]
        strongest = response.flatten(1).max(1).values if response.ndim > 1 else response
        return torch.autograd.grad(strongest.sum(), pixels)[0]


def _guide(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del module, inputs
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.clamp_min(0))


def _bounds(touched: Tensor) -> tuple[Tensor, Tensor]:
    """First and last True (N,) of each row of (N, L); 0 and L - 1 for a row without."""
    length = touched.shape[1]
    some = touched.any(1)
    first = touched.int().argmax(1)
    last = length - 1 - touched.flip(1).int().argmax(1)
    return first.where(some, torch.zeros_like(first)), last.where(some, torch.full_like(last, length - 1))


def _pick(maps: list[Tensor], block: int) -> Tensor:
    if not -len(maps) <= block < len(maps):
        raise UserError(f"There are {len(maps)} blocks: --block goes from {-len(maps)} to {len(maps) - 1}")
    return maps[block]
