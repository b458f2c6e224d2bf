import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from lightning_gen.regularizers import augmentations as aug

HALF_TURN = math.pi


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def noise(number: int = 4, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.rand(number, channels, height, width, dtype=torch.float64) * 2 - 1


def one(*values: float) -> list[Tensor]:
    return [torch.tensor([value], dtype=torch.float64) for value in values]


@pytest.mark.parametrize("padding", ["constant", "reflect"])
def test_shifts_equal_cuts_of_a_padded_array(padding: str) -> None:
    images = noise(5, height=6, width=9)
    down, right = torch.tensor([0, 2, -2, 1, 0]), torch.tensor([3, 0, -3, 1, 0])
    shifted = aug.shift_images(images, down, right, (2, 3), padding)  # type: ignore[arg-type]
    for image, d, r, result in zip(images.numpy(), down.tolist(), right.tolist(), shifted.numpy(), strict=True):
        padded = np.pad(image, [(0, 0), (2, 2), (3, 3)], mode=padding)  # type: ignore[call-overload]
        assert np.array_equal(result, padded[:, 2 - d : 8 - d, 3 - r : 12 - r])


def test_flips_mirror_half_of_the_images() -> None:
    images = noise(1).expand(1000, -1, -1, -1)
    flipped = (aug.flip_images(images) == images[0].flip(2)).flatten(1).all(1)
    kept = (aug.flip_images(images) == images[0]).flatten(1).all(1)
    assert flipped.double().mean() == pytest.approx(0.5, abs=0.06)
    assert kept.double().mean() == pytest.approx(0.5, abs=0.06)


def test_brightness_moves_each_image_by_up_to_a_half() -> None:
    images = noise(1).expand(2000, -1, -1, -1)
    moved = (aug.jitter_brightness(images) - images).flatten(1)
    assert moved.std(1).max() < 1e-12
    assert -0.5 <= moved.min() < -0.49
    assert 0.49 < moved.max() < 0.5
    assert moved[:, 0].var().item() == pytest.approx(1 / 12, rel=0.1)


def test_saturation_scales_differences_from_the_grey_of_each_pixel() -> None:
    images = noise(1).expand(2000, -1, -1, -1)
    changed = aug.jitter_saturation(images)
    assert torch.allclose(changed.mean(1), images.mean(1))
    factor = (changed - images.mean(1, keepdim=True)) / (images - images.mean(1, keepdim=True))
    assert factor.flatten(1).std(1).max() < 1e-9
    factors = factor[:, 0, 0, 0]
    assert 0 <= factors.min() < 0.01
    assert 1.99 < factors.max() < 2
    grey = noise(3, channels=1)
    assert torch.equal(aug.jitter_saturation(grey), grey)


def test_contrast_scales_differences_from_the_mean_of_each_image() -> None:
    images = noise(1).expand(2000, -1, -1, -1)
    changed = aug.jitter_contrast(images)
    assert torch.allclose(changed.mean((1, 2, 3)), images.mean((1, 2, 3)))
    factors = changed.flatten(1).std(1) / images.flatten(1).std(1)
    assert 0.5 <= factors.min() < 0.51
    assert 1.49 < factors.max() < 1.5


def test_translations_reach_an_eighth_with_zeros_behind() -> None:
    images = torch.zeros(3000, 1, 32, 16)
    images[:, :, 10, 8] = 1
    rows, columns = (aug.translate_with_zeros(images) == 1).nonzero()[:, 2:].unbind(1)
    assert len(rows) == 3000
    assert rows.unique().tolist() == list(range(6, 15))
    assert columns.unique().tolist() == list(range(6, 11))
    moved = aug.translate_with_zeros(torch.ones(500, 1, 32, 16))
    assert set(moved.unique().tolist()) == {0, 1}
    assert moved.flatten(1).sum(1).min() == 28 * 14


@pytest.mark.parametrize("size", [32, 7])
def test_cutouts_are_rectangles_of_half_the_size_cut_at_the_edges(size: int) -> None:
    zeros = aug.cut_out(torch.ones(3000, 2, size, size)) == 0
    assert torch.equal(zeros[:, 0], zeros[:, 1])
    rows, columns = zeros[:, 0].any(2), zeros[:, 0].any(1)
    assert torch.equal(zeros[:, 0], rows[:, :, None] & columns[:, None])
    full = (size + 1) // 2
    for line in (rows, columns):
        assert line.sum(1).max() == full
        assert line.sum(1).min() == (full if size % 2 == 0 else full + 1) // 2
        # One interval each: its indicator rises or falls at most twice.
        assert (line.int().diff(dim=1).abs().sum(1) <= 2).all()
        assert line.double().mean(0)[size // 2].item() == pytest.approx(full / (size + 1 - full % 2), abs=0.05)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (aug.rotate2d(*one(HALF_TURN / 2)), lambda images: images.rot90(1, (2, 3))),
        (aug.rotate2d(*one(-HALF_TURN / 2)), lambda images: images.rot90(-1, (2, 3))),
        (aug.rotate2d(*one(HALF_TURN)), lambda images: images.flip(2, 3)),
        (aug.scale2d(*one(-1, 1)), lambda images: images.flip(3)),
    ],
)
def test_quarter_turns_and_flips_permute_pixels(matrix: Tensor, expected: object) -> None:
    images = noise()
    assert torch.allclose(aug.warp_images(images, matrix.expand(4, 3, 3)), expected(images), atol=1e-12)  # type: ignore[operator]


def test_whole_translations_equal_reflected_shifts() -> None:
    images = noise(height=6, width=9)
    warped = aug.warp_images(images, aug.translate2d(*one(-3, 2)).expand(4, 3, 3))
    shifted = aug.shift_images(images, torch.full((4,), -2), torch.full((4,), 3), (2, 3), "reflect")
    assert torch.allclose(warped, shifted, atol=1e-12)


def test_warps_equal_scipys_affine_transform() -> None:
    images = noise(height=7, width=10)
    matrices = torch.eye(3, dtype=torch.float64) + 0.4 * torch.randn(4, 3, 3, dtype=torch.float64)
    matrices[:, :2, 2] *= 8
    matrices[:, 2] = torch.tensor([0.0, 0, 1])
    center = np.array([3.0, 4.5])
    for image, matrix, result in zip(images, matrices.numpy(), aug.warp_images(images, matrices), strict=True):
        # scipy has rows before columns and its origin at the first pixel.
        linear, offset = matrix[1::-1, 1::-1], matrix[1::-1, 2]
        offset = offset + center - linear @ center
        for channel, warped in zip(image.numpy(), result.numpy(), strict=True):
            expected = scipy.ndimage.affine_transform(channel, linear, offset, order=1, mode="mirror")
            assert np.allclose(warped, expected, atol=1e-10)


def test_matrices_of_the_plane() -> None:
    point = torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64)
    assert (aug.scale2d(*one(2, 5)) @ point).tolist() == [[4, 15, 1]]
    assert (aug.translate2d(*one(2, 5)) @ point).tolist() == [[4, 8, 1]]
    assert (aug.rotate2d(*one(HALF_TURN / 2)) @ point)[0].tolist() == pytest.approx([-3, 2, 1])


def test_blits_move_whole_pixels() -> None:
    images = torch.zeros(8000, 1, 32, 64, dtype=torch.float64)
    matrices = aug.random_blits(images, torch.tensor(1.0))
    linear, offset = matrices[:, :2, :2], matrices[:, :2, 2:]
    assert torch.allclose(linear.abs().sum(2), torch.ones(8000, 2, dtype=torch.float64))
    # Flips are half of all, turns are a quarter each: all eight symmetries of the square are as likely.
    counts = linear.round().flatten(1).unique(dim=0, return_counts=True)[1].double() / 8000
    assert counts.tolist() == pytest.approx([1 / 8] * 8, abs=0.015)
    x, y = -torch.linalg.solve(linear, offset)[:, :, 0].T
    assert torch.allclose(x, x.round(), atol=1e-9)
    assert sorted({round(value) for value in x.tolist()}) == list(range(-8, 9))
    assert sorted({round(value) for value in y.tolist()}) == list(range(-4, 5))


def test_geometry_has_the_papers_spread() -> None:
    images = torch.zeros(20_000, 1, 32, 64, dtype=torch.float64)
    matrices = aug.random_geometry(images, torch.tensor(1.0))
    linear, offset = matrices[:, :2, :2], matrices[:, :2, 2:]
    x, y = -torch.linalg.solve(linear, offset)[:, :, 0].T
    assert x.std().item() == pytest.approx(64 / 8, rel=0.03)
    assert y.std().item() == pytest.approx(32 / 8, rel=0.03)
    # An area shrinks by the square of the isotropic factor, the axes of the ellipse differ by that of the other.
    assert torch.linalg.det(linear).log2().std().item() == pytest.approx(2 * 0.2, rel=0.03)
    longest, shortest = torch.linalg.svdvals(linear).T
    assert (longest / shortest).log2().square().mean().sqrt().item() == pytest.approx(2 * 0.2, rel=0.03)
    angle = torch.atan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1])
    assert angle.cos().mean().item() == pytest.approx(0, abs=0.03)
    assert angle.std().item() == pytest.approx(2 * HALF_TURN / math.sqrt(12), rel=0.03)


def test_an_image_is_rotated_with_the_probability() -> None:
    matrices = aug.random_geometry(torch.zeros(20_000, 1, 8, 8), torch.tensor(0.3))
    assert (matrices[:, 0, 1] != 0).float().mean().item() == pytest.approx(0.3, abs=0.015)
    unscaled = (torch.linalg.det(matrices[:, :2, :2]) - 1).abs() < 1e-6
    assert unscaled.float().mean().item() == pytest.approx(0.7, abs=0.015)
    still = (matrices[:, :2, 2] == 0).all(1)
    assert still.float().mean().item() == pytest.approx(0.7, abs=0.015)


def test_color_matrices_are_the_papers_product() -> None:
    matrices = aug.random_colors(noise(20_000, height=1, width=1), torch.tensor(1.0))
    grey = torch.ones(3, dtype=torch.float64)
    luma = (matrices[:, :3, :3] @ grey)[:, 0]
    contrast = luma.abs()
    assert (luma < 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert contrast.log2().std().item() == pytest.approx(0.5, rel=0.03)
    brightness = matrices[:, 0, 3] / luma
    assert brightness.std().item() == pytest.approx(0.2, rel=0.03)
    saturation = (torch.linalg.det(matrices[:, :3, :3]) / luma / contrast**2).sqrt()
    assert saturation.log2().std().item() == pytest.approx(1, rel=0.03)
    across = torch.tensor([1.0, -1, 0], dtype=torch.float64)
    other = torch.tensor([1.0, 1, -2], dtype=torch.float64) / math.sqrt(3)
    turned = matrices[:, :3, :3] @ across
    angle = torch.atan2(turned @ other, turned @ across)
    assert angle.std().item() == pytest.approx(2 * HALF_TURN / math.sqrt(12), rel=0.03)
    axis = np.array([1, 1, 1, 0]) / math.sqrt(3)
    projection = np.outer(axis, axis)
    for i in range(20):
        shift = np.eye(4)
        shift[:3, 3] = brightness[i]
        scale = np.diag([*[contrast[i]] * 3, 1])
        flip = np.eye(4) - 2 * projection * (luma[i] < 0).item()
        hue = np.eye(4)
        hue[:3, :3] = Rotation.from_rotvec(angle[i].item() * axis[:3]).as_matrix()
        saturate = projection + (np.eye(4) - projection) * saturation[i].item()
        saturate[3, 3] = 1
        # The sense of a uniform angle is free.
        turned_back = hue.copy()
        turned_back[:3, :3] = hue[:3, :3].T
        wanted = [saturate @ turn @ flip @ scale @ shift for turn in (hue, turned_back)]
        assert any(np.allclose(matrices[i].numpy(), product, atol=1e-9) for product in wanted)


def test_colors_are_transformed_pixel_by_pixel() -> None:
    images = noise()
    matrices = torch.randn(4, 4, 4, dtype=torch.float64)
    expected = torch.einsum("nij,njhw->nihw", matrices[:, :3, :3], images) + matrices[:, :3, 3, None, None]
    assert torch.allclose(aug.transform_colors(images, matrices), expected)
    grey = noise(channels=1)
    kept = aug.random_colors(grey, torch.tensor(1.0))
    assert torch.allclose(
        aug.transform_colors(grey, kept).expand(-1, 3, -1, -1),
        aug.transform_colors(grey.expand(-1, 3, -1, -1), kept),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_without_probability_nothing_changes_to_the_bit(dtype: torch.dtype, channels: int) -> None:
    images = noise(50, channels).to(dtype)
    assert torch.equal(aug.augment_adaptively(images, torch.tensor(0.0)), images)


@pytest.mark.parametrize("transformations", ["b", "g", "c", "bgc"])
def test_each_image_is_changed_in_its_own_way(transformations: str) -> None:
    images = noise(1, height=16, width=16).float().expand(64, -1, -1, -1)
    changed = aug.augment_adaptively(images, torch.tensor(1.0), transformations)
    assert changed.isfinite().all()
    assert len(changed.flatten(1).unique(dim=0)) >= (40 if transformations == "b" else 64)
    untouched = (aug.augment_adaptively(images, torch.tensor(0.02), transformations) == images).flatten(1).all(1)
    assert 30 < untouched.sum() < 64


def test_the_same_matrices_hold_for_half_precision() -> None:
    images = noise(8, height=32, width=32).float()
    torch.manual_seed(1)
    exact = aug.augment_adaptively(images, torch.tensor(1.0), "bg")
    torch.manual_seed(1)
    rounded = aug.augment_adaptively(images.bfloat16(), torch.tensor(1.0), "bg")
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.02


@pytest.mark.parametrize("name", ["color", "translation", "cutout", "flip", "b", "g", "c", "bgc"])
def test_gradients_equal_finite_differences(name: str) -> None:
    images = noise(3, height=5, width=5).requires_grad_(True)

    def change(images: Tensor) -> Tensor:
        torch.manual_seed(3)
        if name == "flip":
            return aug.flip_images(images)
        if name in aug.DIFFAUGMENT:
            return aug.DIFFAUGMENT[name](images)
        return aug.augment_adaptively(images, torch.tensor(1.0), name)

    assert not torch.equal(change(images), images)
    assert torch.autograd.gradcheck(change, images)
