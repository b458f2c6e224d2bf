from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch_fidelity.sample_similarity_lpips as fidelity
from torch import Tensor
from torchvision.models import vgg16

from lightning_gen.errors import UserError
from lightning_gen.images import to_float
from lightning_gen.metrics.base import ScoringPlan, score_metrics
from lightning_gen.metrics.extractors import create_extractor
from lightning_gen.metrics.extractors.lpips import CHANNELS
from tests.metrics.inception_weights import photograph_crops


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Random weight files in the formats of LPIPS and of torchvision's VGG-16."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    linear = {f"lin{index}.model.1.weight": torch.rand(1, number, 1, 1) for index, number in enumerate(CHANNELS)}
    torch.save(linear, folder / "linear.pth")
    features = vgg16().features.state_dict()
    torch.save({f"features.{key}": value for key, value in features.items()}, folder / "vgg16.pth")
    return folder / "linear.pth", folder / "vgg16.pth"


def make(files: tuple[Path, Path], **options: Any) -> Any:
    return create_extractor("lpips", weights=str(files[0]), backbone=str(files[1]), **options)


@pytest.mark.parametrize("image_size", [32, 64, 96])
def test_squared_distances_are_torch_fidelitys_lpips(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, image_size: int
) -> None:
    network = vgg16(init_weights=False)
    network.load_state_dict(torch.load(files[1]), strict=False)
    monkeypatch.setattr(fidelity, "torchvision_load_pretrained_vgg16", lambda: network)

    def load(url: str, **options: Any) -> dict[str, Tensor]:
        return torch.load(files[0])  # type: ignore[no-any-return]

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", load)
    monkeypatch.setattr(
        fidelity.SampleSimilarityLPIPS,
        "load_state_dict",
        lambda self, state: torch.nn.Module.load_state_dict(self, state, strict=False),
    )
    theirs = fidelity.SampleSimilarityLPIPS("lpips-vgg16", sample_similarity_resize=64)
    images = photograph_crops(8, image_size)
    with torch.no_grad():
        expected = theirs(images[:4], images[4:])
        features = make(files)(images).features
    assert features.shape == (8, make(files).num_features)
    torch.testing.assert_close((features[:4] - features[4:]).square().sum(1), expected.flatten(), rtol=1e-4, atol=0)


def test_floats_are_not_rounded(files: tuple[Path, Path]) -> None:
    extractor = make(files, size=32)
    images = photograph_crops(2, 32)
    torch.testing.assert_close(extractor(to_float(images)).features, extractor(images).features)
    moved = extractor(to_float(images) + 1e-3).features - extractor(images).features
    assert moved.square().sum() > 0
    assert not extractor.ranked


def test_scores_that_keep_so_many_features_are_refused(files: tuple[Path, Path]) -> None:
    extractor = make(files)
    for name in ("frechet_distance", "recall", "kernel_distance"):
        with pytest.raises(UserError, match="the 499,712 features"):
            score_metrics[name].check(ScoringPlan(extractor, 100, "train", 100, None))
    for name in ("diversity", "path_length"):
        score_metrics[name].check(ScoringPlan(extractor, 100, "train", 100, None))


def test_other_files_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("weights")
    for weights, backbone, message in (
        (files[1], files[1], "do not hold VGG-16"),
        (tmp_path / "text.pth", files[1], "no PyTorch file"),
        (tmp_path / "none.pth", files[1], "no file"),
    ):
        with pytest.raises(UserError, match=message):
            make((weights, backbone))
