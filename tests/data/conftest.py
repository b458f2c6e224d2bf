"""Fixtures of the tests of sets."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.published_files import publish, server

__all__ = ["publish", "server"]


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, Any]:
    """Options of data modules: small images, decoded in this process."""
    return {"cache_dir": str(tmp_path / "cache"), "image_size": 8, "num_workers": 0, "batch_size": 4}
