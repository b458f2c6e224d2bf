"""What is known of the W&B account without importing W&B."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlsplit

WANDB_HOST = "https://api.wandb.ai"

RECORD_KEY = "record"
"""Where in a W&B run's summary its run record is, as JSON."""


def wandb_key_is_configured() -> bool:
    """Whether an API key is at hand in the environment or in the netrc file, where ``wandb login`` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", WANDB_HOST)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
