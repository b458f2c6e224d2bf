"""The test of real or fake in a real browser."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from lightning_gen.cli import app
from lightning_gen.errors import UserError
from lightning_gen.report.intervals import wilson_interval
from lightning_gen.report.turing import read_images, turing_page
from tests.report.browser import watched_page

REAL, FAKE = 200, 50
"""Grey levels around which real and generated images lie here, so that the tests know which is which."""


def flat_images(level: int, number: int, channels: int = 1, size: int = 8) -> list[np.ndarray]:
    return [np.full((size, size, channels), level + index, np.uint8) for index in range(number)]


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    file = tmp_path / "turing.html"
    name = "e/<script>alert(1)</script>"
    file.write_text(turing_page(flat_images(REAL, 4), flat_images(FAKE, 4), name=name, data="da&ta", seed=3))
    return file


def content_of(file: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def shown_is_real(page: Page) -> bool:
    """Whether the image on the screen is one of the real ones, by its pixels."""
    level = page.evaluate(
        """async () => {
            const image = document.getElementById("picture");
            await image.decode();
            const canvas = document.createElement("canvas");
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.getContext("2d").getImageData(3, 3, 1, 1).data[0];
        }"""
    )
    return bool(level > (REAL + FAKE) / 2)


def test_answers_by_keys_and_buttons_give_rates_with_wilsons_intervals(browser: Browser, page_file: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(page_file)
        fooled = 0
        for number in range(8):
            assert page.locator("#count").inner_text() == f"{number + 1} / 8"
            real = shown_is_real(page)
            wrong = not real and fooled < 3  # three generated images are taken for real, all else is right
            fooled += wrong
            said_real = real or wrong
            if number % 2:
                page.keyboard.press("r" if said_real else "g")
            else:
                page.locator("#real" if said_real else "#fake").click()
        expect(page.locator("#result")).to_be_visible()
        expected = {"fooled": (3, 4), "real_taken_for_real": (4, 4), "accuracy": (5, 8)}
        for name, (successes, trials) in expected.items():
            cells = page.locator(f"[data-rate={name}] > *").all_inner_texts()
            low, high = wilson_interval(successes, trials)
            assert cells[1] == f"{successes} / {trials}"
            assert cells[3:] == [f"{successes / trials:.1%}", f"{low:.1%} to {high:.1%}"]
        rows = [row.split() for row in page.locator("#confusion tr").all_inner_texts()]
        assert rows == [["real", "4", "0"], ["generated", "3", "1"]]
        assert page.locator("#mistakes li").all_inner_texts() == ["generated, said real"] * 3
        with page.expect_download() as download:
            page.locator("#download").click()
        saved = json.loads(Path(download.value.path()).read_text())
        assert saved["rates"]["fooled"] == {
            "successes": 3,
            "trials": 4,
            "interval": pytest.approx(list(wilson_interval(3, 4))),
        }
        assert [given["said_real"] == given["is_real"] for given in saved["answers"]].count(False) == 3
        page.locator("#again").click()
        assert page.locator("#count").inner_text() == "1 / 8"


def test_the_formula_of_the_page_is_pythons(browser: Browser, page_file: Path) -> None:
    cases = [(0, 0), (0, 7), (7, 7), (3, 10), (19, 40), (1, 500)]
    with watched_page(browser) as watched:
        page = watched.open(page_file)
        found = page.evaluate("(cases) => cases.map(([k, n]) => wilsonInterval(k, n))", cases)
    for case, interval in zip(cases, found, strict=True):
        assert interval == pytest.approx(wilson_interval(*case), abs=1e-12)


def test_one_can_go_back_and_stop_early(browser: Browser, page_file: Path) -> None:
    with watched_page(browser) as watched:
        page = watched.open(page_file)
        expect(page.locator("#stop")).to_be_hidden()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowRight")
        assert page.locator("#count").inner_text() == "3 / 8"
        page.keyboard.press("Backspace")
        assert page.locator("#count").inner_text() == "2 / 8"
        page.locator("#stop").click()
        assert page.locator("[data-rate=accuracy] > *").nth(1).inner_text().endswith("/ 1")


def test_nothing_on_the_page_tells_real_from_generated(browser: Browser, page_file: Path) -> None:
    content = content_of(page_file)
    key = json.loads(base64.b64decode(content["key"]))
    assert sorted(key) == [0] * 4 + [1] * 4
    assert key not in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)
    files = [base64.b64decode(image) for image in content["images"]]
    headers = {file[:33] for file in files}
    assert len(headers) == 1
    with watched_page(browser) as watched:
        page = watched.open(page_file)
        seen = set()
        for _ in range(7):
            picture = page.locator("#picture")
            attributes = picture.evaluate("(image) => [...image.attributes].map((each) => each.name)")
            box = picture.bounding_box()
            assert box is not None
            seen.add((tuple(sorted(attributes)), round(box["width"]), round(box["height"])))
            assert picture.evaluate("(image) => getComputedStyle(image).imageRendering") == "pixelated"
            page.keyboard.press("r")
        assert len(seen) == 1
        assert box["width"] >= 300


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_names_stay_text(browser: Browser, page_file: Path, scheme: str) -> None:
    with watched_page(browser, 360, 640, scheme) as watched:
        page = watched.open(page_file)
        assert page.locator(".lead b").inner_text() == "e/<script>alert(1)</script>"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        box = page.locator("#fake").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 640
        for _ in range(8):
            page.keyboard.press("r")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_images_of_two_sizes_or_numbers_are_refused() -> None:
    real = flat_images(REAL, 2)
    for fake in (flat_images(FAKE, 2, size=9), flat_images(FAKE, 2, channels=3)):
        with pytest.raises(UserError, match="sizes or colors"):
            turing_page(real, fake, name="a", data="b", seed=0)
    with pytest.raises(UserError, match="--num-images"):
        turing_page(real, flat_images(FAKE, 1), name="a", data="b", seed=0)


def test_a_folder_of_images_is_read(tmp_path: Path) -> None:
    for index, image in enumerate(flat_images(FAKE, 3)):
        Image.fromarray(image[:, :, 0]).save(tmp_path / f"{index}.png")
    assert {image.shape for image in read_images(tmp_path, 2, seed=0)} == {(8, 8, 1)}
    with pytest.raises(UserError, match="holds 3 PNG files, but 4"):
        read_images(tmp_path, 4, seed=0)
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.png is not a PNG"):
        read_images(tmp_path, 3, seed=0)


def test_the_command_shows_samples_of_a_run_beside_its_data(
    train_here: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    record = train_here("trainer.max_steps=2")
    run = tmp_path / "runs" / record["experiment"] / record["run_name"]

    def turing(*options: str) -> dict[str, Any]:
        arguments = ["turing", str(run), "-n", "6", "--output", str(tmp_path / "t.html"), "--force", *options]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return content_of(tmp_path / "t.html")

    first = turing()
    assert (len(first["images"]), first["data"]) == (6, "digits")
    assert turing() == first
    assert turing("--seed", "1")["images"] != first["images"]

    from lightning_gen.data.sets.digits import DigitsDataModule
    from lightning_gen.report.turing import encode_png

    reference = DigitsDataModule(data_dir=tmp_path, cache_dir=tmp_path, batch_size=2).reference_set("test").images
    known = {encode_png(image) for image in reference.permute(0, 2, 3, 1).numpy()}
    key = json.loads(base64.b64decode(first["key"]))
    assert [base64.b64decode(image) in known for image in first["images"]] == [bool(real) for real in key]

    drawn = tmp_path / "drawn"
    CliRunner().invoke(app, ["sample", str(run), "--output", str(drawn), "-n", "3"], catch_exceptions=False)
    mine = {file.read_bytes() for file in drawn.glob("*.png")}
    content = turing("--images", str(drawn))
    assert sum(base64.b64decode(image) in mine for image in content["images"]) == 3
    for options, message in ((["-n", "5"], "even"), (["-n", "6", "-o", "x.png"], ".html")):
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(app, ["turing", str(run), *options], catch_exceptions=False)
