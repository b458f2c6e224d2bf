"""Which networks a regularizer changes."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gen.errors import UserError

PLAYERS = ("generator", "discriminator")


def checked_networks(regularizer: str, networks: Sequence[str]) -> tuple[str, ...]:
    """``networks``, names of `lightning_gen.regularizers.Players`.

    Raises:
        UserError: other names, or none.
    """
    if isinstance(networks, str) or not networks or any(name not in PLAYERS for name in networks):
        raise UserError(f"model.regularizers.{regularizer}.networks must list some of {', '.join(PLAYERS)}")
    return tuple(dict.fromkeys(networks))
