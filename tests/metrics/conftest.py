"""Fixtures of the tests of metrics."""

from tests.data.published_files import server

__all__ = ["server"]
