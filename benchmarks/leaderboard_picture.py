"""Make the picture of docs/leaderboard.md: the page of your runs in a headless Chromium.

    python benchmarks/leaderboard_picture.py RUNS [--output docs/images/leaderboard.png]

Needs playwright (in the extra ``test``) and Chromium on the path.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1360, 960


def main() -> None:
    """Build the page and photograph its top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images/leaderboard.png"))
    options = parser.parse_args()
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder, "board.html")
        command = [sys.executable, "-m", "lightning_gen.cli", "leaderboard", str(options.runs)]
        subprocess.run([*command, "--html", str(page_file)], check=True)
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.wait_for_timeout(500)  # until the charts in view are drawn
        page.screenshot(path=options.output)
        browser.close()


if __name__ == "__main__":
    main()
