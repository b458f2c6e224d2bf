"""Fixtures of the tests of sets."""

from tests.data.published_files import publish, server

__all__ = ["publish", "server"]
