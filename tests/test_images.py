from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.files import atomic_path
from lightning_gen.images import make_grid, save_gif, save_png, to_float, to_uint8


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats[0] == -1
    assert floats[-1] == 1
    assert torch.equal(to_uint8(floats), levels)


def test_to_uint8_rounds_and_clips() -> None:
    # level = (x + 1) * 127.5: 0 -> 127.5 rounds to even, 0.001 -> 127.6 -> 128
    values = torch.tensor([-2.0, -1.0, 0.0, 0.001, 1.0, 1.5, float("nan")])
    assert to_uint8(values).tolist() == [0, 0, 128, 128, 255, 255, 0]


def test_to_uint8_does_not_change_its_input() -> None:
    values = torch.linspace(-1, 1, 5)
    to_uint8(values)
    assert torch.equal(values, torch.linspace(-1, 1, 5))


def test_grid_places_images_row_by_row() -> None:
    images = torch.arange(1, 6, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 2, 2)
    grid = make_grid(images, columns=3, padding=1)
    assert grid.shape == (1, 5, 8)
    assert grid[0, 0].tolist() == [1, 1, 0, 2, 2, 0, 3, 3]
    assert grid[0, 3].tolist() == [4, 4, 0, 5, 5, 0, 0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_and_gif_hold_the_pixels(tmp_path: Path, channels: int) -> None:
    image = torch.randint(0, 256, (channels, 4, 6), dtype=torch.uint8)
    save_png(image, tmp_path / "a.png", scale=2)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    expected = image.numpy().repeat(2, 1).repeat(2, 2)
    assert np.array_equal(pixels, expected[0] if channels == 1 else expected.transpose(1, 2, 0))
    save_gif([image, 255 - image], tmp_path / "a.gif")
    assert getattr(Image.open(tmp_path / "a.gif"), "n_frames", 1) == 2


def test_atomic_path_leaves_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
