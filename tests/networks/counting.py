"""Parameters of the parts of residual networks, as one counts them in the papers' tables."""

from torch import nn


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def conv3(channels_in: int, channels_out: int) -> int:
    return 9 * channels_in * channels_out + channels_out


def conv1(channels_in: int, channels_out: int) -> int:
    return channels_in * channels_out + channels_out


def up(channels_in: int, channels_out: int, per_channel: int = 2) -> int:
    """A generator block; ``per_channel`` gains and biases for each channel of each of its two norms."""
    convolutions = (
        conv3(channels_in, channels_out) + conv3(channels_out, channels_out) + conv1(channels_in, channels_out)
    )
    return convolutions + per_channel * (channels_in + channels_out)


def down(channels_in: int, channels_out: int, hidden: int) -> int:
    """A discriminator block with a convolution in its shortcut."""
    return conv3(channels_in, hidden) + conv3(hidden, channels_out) + conv1(channels_in, channels_out)


def level(channels: int) -> int:
    """A discriminator block whose shortcut is the identity."""
    return 2 * conv3(channels, channels)


def attention(channels: int) -> int:
    """Queries, keys, values, output and gamma."""
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1
