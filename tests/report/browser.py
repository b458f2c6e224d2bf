"""A headless Chromium for the tests of pages: it may open files and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Where Chromium is; the test fails where it is not."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    pytest.fail(f"No Chromium: install one of {', '.join(NAMES)} (apt-get install chromium)", pytrace=False)


class Watched:
    """A page, with what it must not do.

    Attributes:
        page: the page.
        requests: addresses that it asked for beyond files and what is inside it.
        complaints: errors, warnings and dialogs.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._requested(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _requested(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.requests.append(url)

    def open(self, file: Path) -> Page:
        """Open a file and wait until its script has run."""
        self.page.goto(file.as_uri())
        return self.page


@contextmanager
def watched_page(browser: Browser, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Watched]:
    """A page whose complaints and requests must be none at the end."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        accept_downloads=True,
    )
    try:
        watched = Watched(context.new_page())
        yield watched
        assert watched.complaints == []
        assert watched.requests == []
    finally:
        context.close()
