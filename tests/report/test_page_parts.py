import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_gen.report.curves import MAX_POINTS, read_curves
from lightning_gen.report.marks import MARGIN, WIDTH, Scale
from lightning_gen.report.page import build_page, json_for_script
from lightning_gen.report.pictures import LONGEST_SIDE, collect_pictures
from tests.report import browser


def test_json_in_a_script_element_cannot_end_it() -> None:
    value = {"name": "</script><!--&\u2028"}
    text = json_for_script(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_the_title_is_escaped() -> None:
    assert "<title>&lt;b&gt;&amp;</title>" in build_page("<b>&", "", [], [])


def test_large_pictures_are_made_smaller_and_damaged_ones_left_out(tmp_path: Path) -> None:
    for name, size in (("big", (3000, 1500)), ("small", (20, 10))):
        (tmp_path / name / "samples").mkdir(parents=True)
        Image.new("RGB", size).save(tmp_path / name / "samples" / "7.png")
    for name, content in (("torn", b"\x89PNG\r\n\x1a\n"), ("text", b"<svg onload=alert(1)>")):
        (tmp_path / name / "samples").mkdir(parents=True)
        (tmp_path / name / "samples" / "7.png").write_bytes(content)
    found, left_out = collect_pictures(sorted(tmp_path.iterdir()))
    sizes = {folder.name: (first.width, first.height, first.images_seen) for folder, (first,) in found.items()}
    assert sizes == {"big": (LONGEST_SIDE, LONGEST_SIDE // 2, 7), "small": (20, 10, 7)}
    assert left_out == []


def test_the_first_runs_get_the_room_for_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        (folder / "samples").mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (50, 50), dtype=np.uint8)).save(folder / "samples" / "1.png")
    found, left_out = collect_pictures([*folders, tmp_path / "none"], max_bytes=6_000)
    assert (list(found), left_out) == (folders[:2], folders[2:])


def test_curves_pass_over_damaged_lines_and_keep_the_last_value_of_a_point(tmp_path: Path) -> None:
    def score(seen: object, value: object) -> str:
        return json.dumps({"scores": [{"name": "fid", "protocol_hash": "p", "images_seen": seen, "value": value}]})

    lines = [score(20, 5.0), score(10, 9.0), score(20, 4.0), score("x", 1.0), score(30, "y"), score(30, float("nan"))]
    lines += ['{"scores": 3}', "[]", "null", '{"scores": [4]}', '{"scores": [{"name": []}]}', '{"torn']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_curves(tmp_path) == {("fid", "p"): [(10, 9.0), (20, 4.0)]}
    assert read_curves(tmp_path / "nowhere") == {}
    (tmp_path / "metrics.jsonl").write_text("\n".join(score(seen, 1.0) for seen in range(5000)))
    points = read_curves(tmp_path)["fid", "p"]
    assert (len(points), points[0][0], points[-1][0]) == (MAX_POINTS, 0, 4999)


def test_marks_are_linear_or_logarithmic_between_their_ends() -> None:
    linear, ratios, single = Scale([10.0, 20.0]), Scale([1.0, 100.0]), Scale([3.0])
    inner = WIDTH - 2 * MARGIN
    assert [linear(10), linear(15), linear(20), linear(99)] == [MARGIN, WIDTH / 2, WIDTH - MARGIN, WIDTH - MARGIN]
    assert ratios.logarithmic
    assert ratios(10) == WIDTH / 2
    assert ratios(10**0.5) == pytest.approx(MARGIN + inner / 4, abs=0.1)
    assert single(3.0) == WIDTH / 2


def test_the_room_imports_no_torch() -> None:
    script = (
        "import sys, lightning_gen.report.board_page, lightning_gen.report.turing; "
        "assert not {'torch', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_chromium_the_tests_fail_and_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        browser.chromium()
