import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

from lightning_gen.data.formats import decoding
from lightning_gen.data.formats.decoding import Frame, decode_image, resize
from lightning_gen.errors import UserError
from tests.data.image_files import (
    BLACK,
    BLUE,
    GREEN,
    QUARTERS,
    RED,
    WHITE,
    encode,
    exif,
    noise,
    quarters,
    write_animated_gif,
    write_cmyk_jpeg,
    write_grey_jpeg,
    write_jpeg,
    write_palette_png,
    write_png,
    write_webp,
)


def read(path: Path, channels: int = 3) -> Tensor:
    return decode_image(path.read_bytes(), str(path), channels)


def pillow(source: Path | bytes, mode: str = "RGB", upright: bool = False) -> Tensor:
    """What Pillow alone makes of an image: (C, H, W) uint8."""
    image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    return planes(np.array((ImageOps.exif_transpose(image) if upright else image).convert(mode)))


def planes(pixels: np.ndarray) -> Tensor:
    """(C, H, W) of (H, W, C) or (H, W)."""
    tensor = torch.from_numpy(pixels)
    return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)


def corners(image: Tensor) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters."""
    height, width = image.shape[1:]
    middles = [(y * height // 4, x * width // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(image[:, y, x].tolist()) for y, x in middles]


def close(ours: list[tuple[int, ...]], wanted: Any, tolerance: int) -> bool:
    return bool((torch.tensor(ours) - torch.tensor(wanted)).abs().max() <= tolerance)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "JPEG2000"])
def test_lossless_formats_give_every_pixel(kind: str) -> None:
    pixels = quarters(24, 40)
    content = encode(pixels, kind, **({"lossless": True} if kind == "WEBP" else {}))
    image = decode_image(content, "image", 3)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 24, 40)
    assert torch.equal(image, planes(pixels))
    assert (int(image.min()), int(image.max())) == (0, 255)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_formats_give_every_pixel_of_noise(kind: str, tmp_path: Path) -> None:
    pixels = noise(17, 23)
    path = (write_png if kind == "PNG" else write_webp)(tmp_path / "image", pixels)
    assert torch.equal(read(path), planes(pixels))


def test_jpeg_has_its_shape_and_colours(tmp_path: Path) -> None:
    image = read(write_jpeg(tmp_path / "image.jpg", quarters(32, 64)))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 32, 64)
    assert close(corners(image), QUARTERS, 3)


def test_a_grey_jpeg_has_its_shape_and_levels(tmp_path: Path) -> None:
    path = write_grey_jpeg(tmp_path / "image.jpg", quarters(32, 64))
    levels = [(76,), (150,), (29,), (255,)]
    assert read(path, 1).shape == (1, 32, 64)
    assert close(corners(read(path, 1)), levels, 3)
    colour = read(path, 3)
    assert colour.shape == (3, 32, 64)
    assert torch.equal(colour, read(path, 1).expand(3, -1, -1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0", "quality": 40},
        {"progressive": True},
        {"optimize": True, "quality": 100},
        {"restart_marker_rows": 1},
    ],
    ids=str,
)
def test_a_plain_jpeg_has_exactly_the_pixels_that_pillow_gives(
    stored: int, channels: int, options: dict[str, Any]
) -> None:
    smooth = Image.fromarray(noise(9, 7, stored)).resize((53, 37), Image.Resampling.BICUBIC)
    for picture in (np.array(smooth), noise(37, 53, stored)):
        content = encode(picture, "JPEG", **options)
        assert torch.equal(decode_image(content, "image", channels), pillow(content, "L" if channels == 1 else "RGB"))


def test_a_jpeg_that_stores_red_green_and_blue_has_the_pixels_that_pillow_gives() -> None:
    content = encode(noise(40, 24), "JPEG", keep_rgb=True)
    assert torch.equal(decode_image(content, "image", 3), pillow(content))


def test_only_whole_jpegs_go_to_the_faster_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = decoding.decode_jpeg
    monkeypatch.setattr(decoding, "decode_jpeg", lambda *args, **options: calls.append(1) or original(*args, **options))
    read(write_jpeg(tmp_path / "colour.jpg"))
    read(write_grey_jpeg(tmp_path / "grey.jpg"), 1)
    assert len(calls) == 2
    read(write_png(tmp_path / "image.png"))
    truncated = (tmp_path / "colour.jpg").read_bytes()[:-20]
    with pytest.raises(UserError, match="damaged"):
        decode_image(truncated, "truncated.jpg", 3)
    assert len(calls) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_are_turned_upright_as_exif_says(tmp_path: Path, orientation: int, channels: int) -> None:
    for number, pixels in enumerate((quarters(32, 48), noise(21, 34))):
        path = write_jpeg(tmp_path / f"{number}.jpg", pixels, orientation)
        wanted = pillow(path, "L" if channels == 1 else "RGB", upright=True)
        assert torch.equal(read(path, channels), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_turned_upright_as_exif_says(orientation: int, kind: str) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    content = encode(noise(11, 18), kind, exif=exif(orientation), **lossless)
    assert torch.equal(decode_image(content, "image", 3), pillow(content, upright=True))


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, (RED, GREEN, BLUE, WHITE)),
        (2, (GREEN, RED, WHITE, BLUE)),
        (3, (WHITE, BLUE, GREEN, RED)),
        (4, (BLUE, WHITE, RED, GREEN)),
        (5, (RED, BLUE, GREEN, WHITE)),
        (6, (BLUE, RED, WHITE, GREEN)),
        (7, (WHITE, GREEN, BLUE, RED)),
        (8, (GREEN, WHITE, RED, BLUE)),
    ],
)
def test_each_orientation_by_hand(tmp_path: Path, orientation: int, shown: tuple[Any, ...]) -> None:
    """Exif 2.32, table 6: which corner of the stored image is shown top left, and so on."""
    image = read(write_webp(tmp_path / "image.webp", quarters(8, 12), orientation))
    assert image.shape == ((3, 8, 12) if orientation < 5 else (3, 12, 8))
    assert corners(image) == list(shown)


def test_cmyk_becomes_rgb_as_pillow_does_it(tmp_path: Path) -> None:
    path = write_cmyk_jpeg(tmp_path / "image.jpg", quarters(32, 64))
    assert Image.open(path).mode == "CMYK"
    assert read(path).shape == (3, 32, 64)
    assert torch.equal(read(path), pillow(path))
    assert close(corners(read(path)), QUARTERS, 6)
    assert torch.equal(read(path, 1), pillow(path, "L"))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(tmp_path: Path, channels: int) -> None:
    every = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    path = write_png(tmp_path / "image.png", every)
    assert Image.open(path).mode == "I;16"
    image = read(path, channels)
    assert image.shape == (channels, 16, 16)
    assert torch.equal(image, torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(channels, -1, -1))
    between = np.array([[0, 128, 129, 65535], [257, 385, 386, 65406]], np.uint16)
    assert read(write_png(path, between), 1).tolist() == [[[0, 0, 1, 255], [1, 1, 2, 254]]]


def test_a_sixteen_bit_tiff_becomes_eight() -> None:
    content = encode(np.array([[0, 257, 65535]], np.uint16), "TIFF")
    assert decode_image(content, "image.tif", 1).tolist() == [[[0, 1, 255]]]


def test_floating_point_pixels_are_refused() -> None:
    content = encode(np.zeros((4, 4), np.float32), "TIFF")
    with pytest.raises(UserError, match=r"image\.tif is damaged \(floating-point.*replace it"):
        decode_image(content, "image.tif", 1)


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    pixels = np.array(
        [[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]], [[0, 0, 0, 128], [200, 100, 0, 102], [255, 255, 255, 7]]],
        np.uint8,
    )
    # c * a / 255 + 255 * (1 - a / 255): 0.2, 0.502 and 0.4 of the colour, the rest white.
    wanted = [
        [[10, 255, 204], [127, 233, 255]],
        [[20, 255, 204], [127, 193, 255]],
        [[30, 255, 204], [127, 153, 255]],
    ]
    assert read(write_png(tmp_path / "image.png", pixels)).tolist() == wanted
    assert read(write_webp(tmp_path / "image.webp", pixels[:, :2].copy()))[:, 0].tolist() == [
        [10, 255],
        [20, 255],
        [30, 255],
    ]


def test_transparent_grey_is_laid_on_white() -> None:
    image = Image.merge("LA", [Image.new("L", (4, 4), 100), Image.new("L", (4, 4), 102)])
    # 100 * 0.4 + 255 * 0.6
    assert decode_image(encode(image, "PNG"), "image", 1).unique().tolist() == [193]
    assert decode_image(encode(image, "PNG"), "image", 3).unique().tolist() == [193]


def test_one_transparent_colour_of_a_grey_or_rgb_png_is_laid_on_white() -> None:
    grey = encode(np.array([[7, 8]], np.uint8), "PNG", transparency=7)
    assert decode_image(grey, "image", 1).tolist() == [[[255, 8]]]
    colour = encode(np.array([[RED, BLUE]], np.uint8), "PNG", transparency=RED)
    assert decode_image(colour, "image", 3)[:, 0].T.tolist() == [list(WHITE), list(BLUE)]


def test_a_palette_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    path = write_palette_png(tmp_path / "image.png", 12, 20)
    assert Image.open(path).mode == "P"
    assert torch.equal(read(path), planes(quarters(12, 20)))


def test_a_palette_and_two_levels_become_rgb() -> None:
    palette = encode(Image.fromarray(quarters()).quantize(4), "PNG")
    assert torch.equal(decode_image(palette, "image", 3), planes(quarters()))
    two = encode(Image.fromarray(np.array([[True, False]])), "PNG")
    assert decode_image(two, "image", 1).tolist() == [[[255, 0]]]


def test_grey_is_the_brightness_of_rgb(tmp_path: Path) -> None:
    # 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)
    image = read(write_png(tmp_path / "image.png"), 1)
    assert image.shape == (1, 32, 32)
    assert corners(image) == [(76,), (150,), (29,), (255,)]
    black = read(write_png(tmp_path / "black.png", quarters(colours=(BLACK, BLACK, (100, 100, 100), WHITE))), 1)
    assert corners(black) == [(0,), (0,), (100,), (255,)]


def test_a_grey_png_as_rgb_has_three_equal_channels(tmp_path: Path) -> None:
    pixels = noise(9, 13, channels=1)
    image = read(write_png(tmp_path / "image.png", pixels))
    assert torch.equal(image, planes(pixels).expand(3, -1, -1))


def test_a_gif_of_one_frame_is_an_image_and_one_of_three_is_not(tmp_path: Path) -> None:
    assert torch.equal(read(write_animated_gif(tmp_path / "one.gif", frames=1)), torch.zeros(3, 8, 8))
    with pytest.raises(UserError, match=r"three\.gif has 3 frames, not one: remove it, or set data\.on_error=skip"):
        read(write_animated_gif(tmp_path / "three.gif"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damage_is_a_user_error_or_goes_unnoticed_but_never_another_exception(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    options: dict[str, Any] = {} if kind in ("GIF", "BMP") else {"exif": exif(6)}
    whole = encode(noise(12, 12), kind, **options)
    rng = np.random.default_rng(0)
    for trial in range(400):
        content = bytearray(whole)
        if trial % 2:
            del content[int(rng.integers(len(content))) :]
        for place in rng.integers(0, max(1, min(len(content), 200 if trial % 4 < 2 else 10**6)), 3):
            if place < len(content):
                content[place] = rng.integers(256)
        try:
            image = decode_image(bytes(content), "broken", 3)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert "broken" in str(error)  # noqa: PT017
        else:
            assert image.dtype == torch.uint8
            assert len(image) == 3


def columns(height: int = 4, width: int = 10) -> Tensor:
    """(1, H, W) uint8 whose every pixel is the number of its column."""
    return torch.arange(width, dtype=torch.uint8).expand(1, height, width)


@pytest.mark.parametrize(
    ("position", "kept"), [(0.0, [0, 1, 2, 3]), (0.5, [3, 4, 5, 6]), (0.25, [2, 3, 4, 5]), (1.0, [6, 7, 8, 9])]
)
def test_a_square_is_cut_along_the_longer_side(position: float, kept: list[int]) -> None:
    frame = Frame(4, crop="random")
    wide = frame.apply(columns(), "image", position)
    assert wide.tolist() == [[kept] * 4]
    tall = frame.apply(columns().transpose(1, 2), "image", position)
    assert tall.tolist() == [[[row] * 4 for row in kept]]


def test_the_middle_is_cut_unless_told_otherwise() -> None:
    assert Frame(4).apply(columns(), "image").tolist() == [[[3, 4, 5, 6]] * 4]
    assert Frame(4).apply(columns(4, 4), "image").tolist() == [[[0, 1, 2, 3]] * 4]


def test_center_crop_cuts_so_many_pixels_from_the_middle() -> None:
    grid = torch.arange(60, dtype=torch.uint8).view(1, 6, 10)
    assert Frame(2, center_crop=2).apply(grid, "image").tolist() == [[[24, 25], [34, 35]]]
    assert Frame(6, center_crop=6).apply(grid, "image").tolist() == grid[:, :, 2:8].tolist()
    assert Frame(3, center_crop=6).apply(grid, "image").shape == (1, 3, 3)


def test_center_crop_of_a_smaller_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"^small\.png is 10x4, smaller than data\.center_crop=5: lower that"):
        Frame(4, center_crop=5).apply(columns(), "small.png")
    with pytest.raises(UserError, match=r"data\.center_crop must be at least 1"):
        Frame(4, center_crop=0)


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
@pytest.mark.parametrize(("size", "wanted"), [((64, 64), 16), ((37, 50), 16), ((300, 200), 7), ((9, 9), 32)])
def test_a_constant_image_stays_constant(level: int, size: tuple[int, int], wanted: int) -> None:
    image = Frame(wanted).apply(torch.full((3, *size), level, dtype=torch.uint8), "image")
    assert image.shape == (3, wanted, wanted)
    assert image.unique().tolist() == [level]


@pytest.mark.parametrize(("before", "after"), [(64, 16), (37, 16), (50, 49), (16, 37), (200, 8)])
def test_resizing_is_close_to_pillows_bicubic_filter(before: int, after: int) -> None:
    rough = noise(before, before)
    smooth = np.array(Image.fromarray(noise(8, 8)).resize((before, before), Image.Resampling.BICUBIC))
    for pixels in (rough, smooth, quarters(before, before)):
        ours = resize(planes(pixels)[None], after, after)[0]
        theirs = planes(np.array(Image.fromarray(pixels).resize((after, after), Image.Resampling.BICUBIC)))
        assert (ours.int() - theirs.int()).abs().max() <= 2


def test_shrinking_averages_and_does_not_drop_pixels() -> None:
    checkers = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).repeat(32, 32)[None]
    small = Frame(8).apply(checkers, "image")
    assert (small.float() - 127.5).abs().max() < 8


def test_an_image_of_the_wanted_size_is_not_changed() -> None:
    pixels = planes(noise(16, 16))
    assert torch.equal(Frame(16).apply(pixels, "image"), pixels)
