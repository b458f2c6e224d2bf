from __future__ import annotations

import io

import numpy as np
from PIL import Image

from lightning_gen.report.line_plot import Curve, draw_curves

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def pixels_of(png: bytes, color: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a color, left of the legend."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    rows, columns = np.nonzero(np.abs(picture - color).sum(2) < 12)
    inside = columns < 0.75 * picture.shape[1]
    return rows[inside], columns[inside]


def test_every_curve_is_drawn_in_a_color_of_its_own() -> None:
    rising, falling = Curve("rising", [(1, 1), (10, 9)]), Curve("falling", [(1, 9), (10, 1)])
    png = draw_curves([rising, falling], x="labels", y="error", log_x=True)
    for color, sign in ((BLUE, -1), (ORANGE, 1)):
        rows, columns = pixels_of(png, color)
        assert np.sign(np.corrcoef(rows, columns)[0, 1]) == sign, "rows count from the top"


def test_logarithmic_axes_put_powers_of_ten_at_equal_distances() -> None:
    decades = Curve("decades", [(1, 1), (10, 10), (1000, 1000)])
    rows, columns = pixels_of(draw_curves([decades], x="x", y="y", log_x=True, log_y=True), BLUE)
    middle = np.abs(columns - (columns.min() + (columns.max() - columns.min()) / 3)) < 3
    height = (rows.max() - rows[middle].mean()) / (rows.max() - rows.min())
    assert abs(height - 1 / 3) < 0.03


def test_a_spread_is_a_bar() -> None:
    flat = Curve("flat", [(1, 5), (2, 5)])
    rows, _ = pixels_of(draw_curves([flat], x="x", y="y"), BLUE)
    barred, _ = pixels_of(draw_curves([flat._replace(spread=[2, 2])], x="x", y="y"), BLUE)
    assert np.ptp(barred) > 5 * np.ptp(rows)
