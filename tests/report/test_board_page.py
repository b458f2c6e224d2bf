"""The leaderboard's page in a real browser."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.report.board_page import leaderboard_page
from lightning_gen.tracking.leaderboard import build_boards
from lightning_gen.tracking.record_files import find_records
from tests.report.browser import watched_page
from tests.tracking.records import HARDWARE, record, seeds, write

EVIL = "<script>alert(1)</script>"


def save_png(path: Path, level: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)


def write_runs(folder: Path) -> None:
    """Three settings on one board, of which one has two seeds, curves and pictures; and another board."""
    common: dict[str, Any] = {"hardware": HARDWARE, "train_seconds": 720.0}
    write(
        folder,
        *seeds("alpha", [3.0, 3.2], model="gan", data="mnist", parameters={"g": 9_000}, **common),
        *seeds("beta", [90.0], model="vae", data="cifar10", parameters={"g": 500}, **common),
        *seeds("gamma", [12.0], model="gan", data="mnist", parameters={"g": 2_000_000}, **common),
        record(EVIL.replace("/", "|"), 30.0, experiment=f"x{EVIL.replace('/', '|')}", model=EVIL, data=f"d'\"{EVIL}"),
        record("other", 1.0, "p2", experiment="delta", model="gan", data="mnist", score={"name": "recall"}),
    )
    for seed in (0, 1):
        run = folder / "alpha" / f"seed{seed}"
        lines = [
            {"scores": [{"name": "fid", "protocol_hash": "p1", "images_seen": seen, "value": value}]}
            for seen, value in ((100, 80.0), (500, 20.0), (1000, 3.0 + seed / 5))
        ]
        run.joinpath("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn")
        save_png(run / "samples" / "000000500.png", 10)
        save_png(run / "samples" / "000001000.png", 200)
        save_png(run / "interpolations" / "000001000.png", 90)
        save_png(run / "reconstructions" / "000001000.png", 120)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    write_runs(tmp_path / "runs")
    target = tmp_path / "board.html"
    result = CliRunner().invoke(app, ["leaderboard", str(tmp_path / "runs"), "--html", str(target)])
    assert result.exit_code == 0, result.output
    return target


def names(page: Page, board: int = 0) -> list[str]:
    return page.locator(f"#board-{board} tbody tr:visible th summary > span:first-child").all_inner_texts()


def board_of(page: Page, score: str) -> int:
    boards = page.locator(".board").all()
    return next(number for number, board in enumerate(boards) if board.get_attribute("data-score") == score)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_page_is_drawn_in_light_and_dark_and_on_a_phone(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    with watched_page(browser, width, 800, scheme) as watched:
        page = watched.open(report)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
        assert picture.size == (width, 800)
        levels = np.asarray(picture)
        assert levels.std() > 5
        assert (np.median(levels) < 60) == (scheme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".notes summary").click()
        for holder in page.locator(".protocol").all():
            holder.locator("button").focus()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            box = holder.locator(".card").bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_a_click_or_enter_on_a_heading_sorts_and_says_so(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        number = board_of(page, "fid")
        best_first = names(page, number)
        assert [name.split("/")[0] for name in best_first[:2]] == ["alpha", "gamma"]
        header = page.locator(f"#board-{number} th.parameters")
        expect(header).to_have_attribute("aria-sort", "none")
        header.get_by_role("button").click()
        expect(header).to_have_attribute("aria-sort", "ascending")
        expect(page.locator(f"#board-{number} th.place")).to_have_attribute("aria-sort", "none")
        by_size = names(page, number)
        assert [name.split("/")[0] for name in by_size[1:]] == ["beta", "alpha", "gamma"]
        header.get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(header).to_have_attribute("aria-sort", "descending")
        assert names(page, number) == by_size[::-1]
        page.locator(f"#board-{number} thead th.value button").press("Enter")
        assert names(page, number) == best_first


def test_a_missing_value_comes_last_in_both_directions(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        number = board_of(page, "fid")
        for _ in range(2):
            page.locator(f"#board-{number} th.hours button").click()
            assert names(page, number)[-1].startswith("x<script>")


def test_filters_hide_rows_boards_and_pictures(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        number, other = board_of(page, "fid"), board_of(page, "recall")
        page.fill("#filter-text", "ALPHA seed1")
        assert names(page, number) == ["alpha"]
        assert not page.locator(f"#board-{other}").is_visible()
        assert page.locator("#shown").inner_text() == "1 entry on 1 board"
        assert page.locator(".card-run:visible").count() == 1
        page.fill("#filter-text", "")
        page.select_option("#filter-model", "vae")
        assert [name.split("/")[0] for name in names(page, number)] == ["beta"]
        assert page.locator(".gallery").is_hidden()
        page.select_option("#filter-data", "mnist")
        expect(page.locator("#nothing")).to_be_visible()
        page.select_option("#filter-model", "")
        assert len(names(page, number)) == 2
        page.select_option("#filter-score", "recall")
        assert not page.locator(f"#board-{number}").is_visible()


def test_the_protocol_shows_on_hover_on_focus_and_on_touch(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        card = page.locator("#protocol-0")
        button = page.locator(".protocol button").first
        expect(card).to_be_hidden()
        button.hover()
        expect(card).to_be_visible()
        expect(card).to_contain_text("num_samples")
        page.mouse.move(1, 1)
        expect(card).to_be_hidden()
        button.focus()
        expect(card).to_be_visible()
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        assert button.get_attribute("aria-describedby") == "protocol-0"
    touch = browser.new_context(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    page = touch.new_page()
    page.goto(report.as_uri())
    page.locator(".protocol button").first.tap()
    expect(page.locator("#protocol-0")).to_be_visible()
    expect(page.locator(".protocol button").first).to_have_attribute("aria-expanded", "true")
    page.locator("h1").tap()
    expect(page.locator("#protocol-0")).to_be_hidden()
    touch.close()


def test_names_of_runs_stay_text(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        assert any(name.startswith("x<script>alert(1)<|script>") for name in names(page, board_of(page, "fid")))
        assert EVIL in page.locator("#filter-model option").all_inner_texts()
        assert page.locator("script").count() == 2


def test_curves_have_axes_units_a_legend_and_a_logarithmic_scale(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        figure = page.locator(f"#curves-{board_of(page, 'fid')}")
        figure.scroll_into_view_if_needed()
        expect(figure.locator("path.line")).to_have_count(2)
        texts = figure.locator("svg text").all_text_contents()
        assert {"fid", "images seen", "0", "500"} <= set(texts)
        assert figure.locator(".legend button").count() == 4
        box = figure.get_by_label("logarithmic")
        expect(box).to_be_checked()
        assert {"3", "10", "30"} <= set(texts)
        before = figure.locator("path.line").first.get_attribute("d")
        box.uncheck()
        assert {"20", "40", "80"} <= set(figure.locator("svg text").all_text_contents())
        assert figure.locator("path.line").first.get_attribute("d") != before
        figure.locator(".legend button", has_text="alpha").click()
        expect(figure.locator("path.line")).to_have_count(0)
        page.fill("#filter-text", "alpha")
        expect(figure.locator(".legend button")).to_have_count(1)


def test_a_curve_goes_where_its_points_are(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        page.fill("#filter-text", "alpha")
        figure = page.locator(f"#curves-{board_of(page, 'fid')}")
        path = figure.locator("path.line").first.get_attribute("d") or ""
        points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[1:]]
        xs, ys = zip(*points, strict=True)
        # x is linear from 0 at 46 to 1000 at 390; y logarithmic: equal ratios are equal steps
        assert xs == pytest.approx((46 + 34.4, 46 + 172, 390), abs=0.1)
        assert (ys[1] - ys[0]) / (ys[2] - ys[0]) == pytest.approx(np.log(80 / 20) / np.log(80 / 3), abs=0.01)


def test_the_newest_pictures_stand_side_by_side_and_open_large(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        cards = page.locator(".card-run")
        assert cards.count() == 2
        labels = [image.get_attribute("alt") for image in cards.first.locator("img").all()]
        kinds = ("samples", "interpolation", "reconstructions")
        assert labels == [f"{kind} of alpha/seed0 at 1,000 images" for kind in kinds]
        first, second, _ = (image.bounding_box() for image in cards.first.locator("img").all())
        assert first is not None
        assert second is not None
        assert first["y"] == second["y"]
        assert first["x"] < second["x"]
        cards.first.locator("button").first.press("Enter")
        expect(page.locator("#zoom")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#zoom")).to_be_hidden()


def test_the_focus_can_be_seen(browser: Browser, report: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(report)
        for _ in range(12):
            page.keyboard.press("Tab")
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style != "none", page.evaluate("document.activeElement.outerHTML.slice(0, 80)")


def test_the_page_forbids_all_that_is_not_its_own(browser: Browser, report: Path) -> None:
    text = report.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "unsafe" not in text
    assert "url(" not in text
    context = browser.new_context()
    page = context.new_page()
    page.goto(report.as_uri())
    blocked = page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            const image = new Image();
            image.src = "https://example.invalid/x.png";
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            await fetch("https://example.invalid/").catch(() => {});
            await new Promise((done) => setTimeout(done, 100));
            return [seen.sort(), window.ran === undefined];
        }"""
    )
    context.close()
    assert blocked == [["connect-src", "img-src", "script-src-elem"], True]


def test_pictures_can_be_left_out_and_are_bounded(tmp_path: Path) -> None:
    write_runs(tmp_path)
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        noise = Image.fromarray(rng.integers(0, 256, (60, 60), dtype=np.uint8))
        noise.save(tmp_path / "alpha" / f"seed{seed}" / "samples" / "000001000.png")
    found, _ = find_records(tmp_path)
    boards = build_boards(found)
    assert leaderboard_page(boards, found).count("data:image/png") == 6
    assert leaderboard_page(boards, found, pictures=False).count("data:image/png") == 0
    page = leaderboard_page(boards, found, max_bytes=5_000)
    assert page.count("data:image/png") == 3
    assert "The pictures of 1 run are left out" in page
    assert "alpha/seed0 at 1,000" in page


def test_the_runs_of_an_entry_are_listed_without_the_folders_of_this_machine(browser: Browser, report: Path) -> None:
    assert str(report.parent) not in report.read_text()
    with watched_page(browser) as watched:
        page = watched.open(report)
        row = page.locator(f"#board-{board_of(page, 'fid')} tbody tr").first
        row.locator("summary").click()
        runs = row.locator("li").all_inner_texts()
        assert [" ".join(text.split()) for text in runs] == ["3 seed 0 alpha/seed0", "3.2 seed 1 alpha/seed1"]


def test_a_page_of_no_runs_is_a_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "empty.html").write_text(leaderboard_page([], []))
    with watched_page(browser) as watched:
        page = watched.open(tmp_path / "empty.html")
        expect(page.locator("#nothing")).to_be_visible()
