"""The same U-Net in `diffusers`, and its weights in ours."""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from lightning_gen.networks.unet import UNet
from lightning_gen.networks.unet_layers import group_norm


def reference(network: UNet) -> UNet2DModel:
    """The network of `diffusers` with the layout of an unconditional network of ours, and weights of its own."""
    down: list[str] = []
    current, widths = 0, []
    for layer in network.down:
        if hasattr(layer, "block"):
            if current == 0:
                widths.append(layer.block.conv2.out_channels)
                down.append("AttnDownBlock2D" if layer.attention is not None else "DownBlock2D")
            current += 1
        else:
            current = 0
    channels, size, _ = network.image_shape
    heads = network.middle[0].attention.heads
    model = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=current,
        block_out_channels=tuple(widths),
        down_block_types=tuple(down),
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        attention_head_dim=None if heads == 1 else widths[-1] // heads,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=network.norm.eps,
        norm_num_groups=1,
    )
    # There all norms are given one number of groups.
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = group_norm(module.num_channels).num_groups
    return model.eval()


NAMES = {
    "conv_in": "first",
    "conv_norm_out": "norm",
    "conv_out": "last",
    "time_embedding.linear_1": "noise_level.layers.0",
    "time_embedding.linear_2": "noise_level.layers.2",
    "time_emb_proj": "vectors",
    "conv_shortcut": "shortcut",
    "group_norm": "norm",
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "output",
}


def weights_of(model: UNet2DModel) -> dict[str, Tensor]:
    """A state dict of our U-Net with the weights of `diffusers`' of the same layout."""
    blocks = int(model.config["layers_per_block"])
    found: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.", lambda match: _layer(match, blocks), name)
        name = re.sub(r"mid_block\.resnets\.(\d)\.", r"middle.\1.block.", name)
        name = name.replace("mid_block.attentions.0.", "middle.0.attention.")
        for theirs, ours in NAMES.items():
            name = re.sub(rf"(^|\.){re.escape(theirs)}\.", rf"\1{ours}.", name)
        found[name] = tensor
    for name in [name for name in found if ".key." in name]:
        value = found.pop(name.replace(".key.", ".value."))
        found[name.replace(".key.", ".key_value.")] = torch.cat([found.pop(name), value])
    return found


def _layer(match: re.Match[str], blocks: int) -> str:
    """``down.4.block.`` of ``down_blocks.1.resnets.1.``: each size has its blocks and one change of size."""
    way, size, kind, index = match[1], int(match[2]), match[3], int(match[4])
    layers = blocks + 1 if way == "down" else blocks + 2
    number = size * layers
    if kind in ("downsamplers", "upsamplers"):
        return f"{way}.{number + layers - 1}."
    return f"{way}.{number + index}.{'attention' if kind == 'attentions' else 'block'}."
