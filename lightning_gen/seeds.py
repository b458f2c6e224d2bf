"""Random streams named by what they are for, so that none depends on what ran before it."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from any names and numbers; other parts give an unrelated seed.

    BLAKE2b of the parts, so it is the same on every machine and version.
    """
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def make_rng(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator seeded by `derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def seed_global_rngs(seed: int, device: torch.device) -> None:
    """Seed the generators that torch operations on the CPU and on ``device`` draw from when handed none.

    Unlike `torch.manual_seed` it touches no other device and never synchronises.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
