from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.translation import (
    ImageMean,
    absolute_difference,
    load_lpips,
    pair_measures,
    peak_signal_noise_ratio,
    perceptual_distance,
    structural_similarity,
)
from tests.conftest import forked
from tests.metrics.inception_weights import photograph_crops
from tests.metrics.test_lpips import files as files


def pairs(channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Seven uint8 images and what they should be."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, channels, 24, 20), dtype=torch.uint8, generator=rng)
    noise = torch.randint(-40, 41, images.shape, generator=rng)
    return images, (images.long() + noise).clamp(0, 255).to(torch.uint8)


def test_a_mean_has_the_standard_error_of_a_mean() -> None:
    mean = ImageMean()
    mean.update(torch.tensor([1.0, 2.0]))
    mean.update(torch.tensor([6.0]))
    value, error = mean.compute()
    assert value == 3
    # Variance ((1-3)^2 + (2-3)^2 + (6-3)^2) / 2 = 7, of a mean of three.
    assert error == pytest.approx(math.sqrt(7 / 3), rel=1e-12)
    alone = ImageMean()
    alone.update(torch.tensor([5.0]))
    assert alone.compute() == (5.0, None)


def test_l1_is_in_the_units_of_the_images_and_of_each_image() -> None:
    images = torch.tensor([[[[-1.0, 1.0], [0.0, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    targets = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 1e-3]]]])
    # (2 + 0 + 0 + 0.5) / 4, and a difference that rounding to uint8 would swallow.
    assert absolute_difference(images, targets).tolist() == pytest.approx([0.625, 0.25e-3], rel=1e-6)


def test_psnr_by_hand_and_of_an_exact_image() -> None:
    levels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    targets = levels.clone()
    targets[0, 0, 0] = torch.tensor([3, 4], dtype=torch.uint8)
    off, exact = peak_signal_noise_ratio(to_float(levels), to_float(targets)).tolist()
    assert off == pytest.approx(10 * math.log10(255**2 / ((9 + 16) / 4)), rel=1e-12)
    assert exact == pytest.approx(10 * math.log10(255**2 * 4), rel=1e-12), "one level in one of four pixels"


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_are_torchmetrics(channels: int) -> None:
    images, targets = pairs(channels)
    psnr = PeakSignalNoiseRatio(data_range=255.0, dim=(1, 2, 3), reduction="none")
    torch.testing.assert_close(
        peak_signal_noise_ratio(to_float(images), to_float(targets)).float(), psnr(images.float(), targets.float())
    )
    ssim = StructuralSimilarityIndexMeasure(data_range=255.0, reduction="none")
    expected = ssim(images.double(), targets.double())
    ours = structural_similarity(to_float(images), to_float(targets))
    torch.testing.assert_close(ours.double(), expected.double(), rtol=1e-4, atol=0)
    assert structural_similarity(to_float(images), to_float(images)).tolist() == pytest.approx([1.0] * 7)


def test_ssim_in_flat_areas_is_the_comparison_of_brightness() -> None:
    images, targets = torch.full((1, 1, 16, 16), 100), torch.full((1, 1, 16, 16), 150)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert float(structural_similarity(to_float(images), to_float(targets))) == pytest.approx(expected, rel=5e-4), (
        "float32 loses digits in variances of nothing"
    )


def test_lpips_is_the_extractors_squared_distance_at_any_number_of_images(files: tuple[Path, Path]) -> None:
    extractor = create_extractor("lpips", size=32, weights=str(files[0]), backbone=str(files[1]))
    images, targets = photograph_crops(12, 32).split(6)
    found = perceptual_distance(extractor, to_float(images), to_float(targets))
    expected = (extractor(images).features - extractor(targets).features).square().sum(1)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-6)
    assert (found > 0).all()
    names = [measure.name for measure in pair_measures(32, extractor)]
    assert names == ["l1", "psnr", "ssim", "lpips"]
    assert not pair_measures(32, extractor)[-1].ranked, "weights of a file that was named"


def test_lpips_is_left_out_only_where_it_was_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_GEN_WEIGHTS_DIR", str(tmp_path))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    assert load_lpips(64, None) is None
    assert load_lpips(64, False) is None
    with pytest.raises(UserError, match=r"LPIPS weights are not at .*no network.*callbacks\.scores\.lpips=false"):
        load_lpips(64, True)
    for name in ("weights-vgg16-lpips.pth", "vgg16-397923af.pth"):
        (tmp_path / name).write_text("text")
    assert load_lpips(64, False) is None
    with pytest.raises(UserError, match="not the published file"):
        load_lpips(64, None)


def test_images_too_small_for_the_window_have_no_ssim() -> None:
    assert [measure.name for measure in pair_measures(5)] == ["l1", "psnr"]
    images, targets = (to_float(each)[..., :6, :6] for each in pairs())
    assert structural_similarity(images, targets).isfinite().all()


def _mean_of_rank(folder: Path, rank: int, world_size: int) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous{world_size}", rank=rank, world_size=world_size
    )
    mean = ImageMean()
    images, targets = map(to_float, pairs())
    for first in range(2 * rank, 7, 2 * world_size):
        mean.update(absolute_difference(images[first : first + 2], targets[first : first + 2]))
    torch.save(mean.compute(), folder / f"{world_size}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 5])
def test_processes_add_up_even_where_one_has_no_image(tmp_path: Path, world_size: int) -> None:
    alone = ImageMean()
    alone.update(absolute_difference(*map(to_float, pairs())))
    processes = [forked(_mean_of_rank, tmp_path, rank, world_size) for rank in range(world_size)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for rank in range(world_size):
        found = torch.load(tmp_path / f"{world_size}-{rank}.pt", weights_only=False)
        assert list(found) == pytest.approx(list(alone.compute()), rel=1e-12)
