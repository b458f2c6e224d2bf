"""The page of errors by number of labels in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from lightning_gen.cli import app
from tests.report.browser import watched_page
from tests.tracking.records import write
from tests.tracking.test_label_board import error

EVIL = "x<script>alert(1)<|script>"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    runs = [
        *(error("alpha", seed, 100, value) for seed, value in enumerate((20.0, 24.0))),
        error("alpha", 0, 1000, 8.0),
        error("beta", 0, 100, 30.0),
        error("beta", 0, 1000, 6.0),
        error(EVIL, 0, 100, 25.0),
        error("other", 0, 100, 25.0, protocol={"scoring_version": 2}),
    ]
    write(tmp_path / "runs", *runs)
    target = tmp_path / "labels.html"
    result = CliRunner().invoke(app, ["labels", str(tmp_path / "runs"), "--html", str(target), "--title", "<Few>"])
    assert result.exit_code == 0, result.output
    return target


def names(page: Page, board: int) -> list[str]:
    return page.locator(f"#board-{board} tbody tr th summary > span:first-child").all_inner_texts()


def large_board(page: Page) -> int:
    return 0 if page.locator("#board-0 tbody tr").count() == 3 else 1


def test_tables_sort_by_any_number_of_labels_and_missing_errors_come_last(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        assert page.locator("h1").inner_text() == "<Few>"
        assert page.locator(".board").count() == 2
        number = large_board(page)
        assert names(page, number) == ["alpha", EVIL, "beta"]
        cell = page.locator(f"#board-{number} tbody tr").first.locator("td.value").first
        assert "".join(cell.inner_text().split()) == "22.00±2.83"
        thousand = page.locator(f"#board-{number} thead th.value button").nth(1)
        assert thousand.inner_text() == "1,000"
        thousand.click()
        assert names(page, number) == ["beta", "alpha", EVIL]
        thousand.press("Enter")
        assert names(page, number) == ["alpha", "beta", EVIL]


def test_runs_protocol_and_picture_are_inside(browser: Browser, report: Path) -> None:
    with watched_page(browser, 360, 800, "dark") as watched:
        page = watched.open(report)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        number = large_board(page)
        board = page.locator(f"#board-{number}")
        board.locator("summary").first.click()
        expect(board.locator(".runs").first).to_contain_text("20.00 100 labels, seed 0 alpha/labels100-seed0")
        board.locator(".protocol button").click()
        expect(board.locator(".card")).to_contain_text("classification_error")
        assert page.evaluate(f"document.querySelector('#board-{number} .label-curves img').naturalWidth") > 500
