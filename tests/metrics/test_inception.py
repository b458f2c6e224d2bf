from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from lightning_gen.errors import UserError
from lightning_gen.metrics.base import score_metrics
from lightning_gen.metrics.extractors import Features, create_extractor, inception
from lightning_gen.metrics.extractors.base import sha256_of_file
from lightning_gen.metrics.extractors.inception import InceptionExtractor, resize_clean, resize_tf1_bilinear
from lightning_gen.metrics.frechet import frechet_distance
from lightning_gen.metrics.statistics import FeatureStatistics
from tests.metrics.inception_weights import make_inception_weights, photograph_crops, torch_fidelity_inception


class Scored(NamedTuple):
    weights: Path
    extractor: InceptionExtractor
    images: Tensor
    ours: Features
    theirs: Features


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """48 photographs through both extractors, on one random weight file."""
    weights = tmp_path_factory.mktemp("weights") / "inception.pth"
    images = photograph_crops(48)
    make_inception_weights(weights, images[:32])
    theirs = torch_fidelity_inception(weights)
    with torch.no_grad():
        features, logits = (torch.cat(parts) for parts in zip(*map(theirs, images.split(16)), strict=True))
    extractor = InceptionExtractor(weights)
    return Scored(weights, extractor, images, extractor(images), Features(features, logits))


def relative_error(values: Tensor, expected: Tensor) -> float:
    return float((values - expected).norm() / expected.norm())


def torch_fidelity_fid(features: Tensor, basis: Tensor) -> float:
    """FID between two halves of (N, 2048) features by torch-fidelity's function.

    The orthonormal ``basis`` (2048, R) spans the features, so their distance is the same in its R coordinates; on 2048
    dimensions the function takes half a minute where cores are busy.
    """
    first, second = (fid_features_to_statistics(half.double() @ basis) for half in features.chunk(2))
    return fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]


def our_fid(features: Tensor) -> float:
    statistics = []
    for half in features.chunk(2):
        metric = FeatureStatistics(features.shape[1])
        metric.update(half)
        statistics.append(metric.compute())
    return frechet_distance(*statistics)


@pytest.mark.parametrize("shape", [(28, 28), (32, 48), (1, 5), (64, 64), (299, 299), (300, 298), (512, 700)])
def test_resize_is_tensorflow_1(shape: tuple[int, int]) -> None:
    images = torch.randint(256, (2, 3, *shape), generator=torch.Generator().manual_seed(0)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    torch.testing.assert_close(resize_tf1_bilinear(images, 299), expected, rtol=0, atol=1e-4)


def test_features_and_logits_are_torch_fidelitys(scored: Scored) -> None:
    assert scored.ours.features.shape == (48, 2048)
    assert scored.ours.logits is not None
    assert scored.theirs.logits is not None
    assert scored.ours.logits.shape == (48, 1008)
    assert scored.ours.features.dtype == scored.ours.logits.dtype == torch.float32
    assert relative_error(*(sides.features for sides in (scored.ours, scored.theirs))) < 1e-4
    assert relative_error(scored.ours.logits, scored.theirs.logits) < 1e-4


def test_fid_is_torch_fidelitys(scored: Scored) -> None:
    ours, theirs = scored.ours.features, scored.theirs.features
    basis = torch.linalg.qr(torch.cat([ours, theirs]).double().T).Q
    expected = torch_fidelity_fid(theirs, basis)
    assert 5 < expected < 200
    assert torch_fidelity_fid(ours, basis) == pytest.approx(expected, rel=1e-4)
    assert our_fid(ours) == pytest.approx(expected, rel=1e-4)


def test_other_sizes_agree(scored: Scored) -> None:
    theirs = torch_fidelity_inception(scored.weights)
    for size in (32, 320):
        images = photograph_crops(2, size, seed=1)
        assert relative_error(scored.extractor(images).features, theirs(images)[0]) < 1e-4


def test_repeated_calls_are_equal_to_the_bit(scored: Scored) -> None:
    images = scored.images[:10]
    first = scored.extractor(images)
    with torch.inference_mode():
        second = scored.extractor(images)
    for values, again in zip(first[:3], second[:3], strict=True):
        assert values is not None
        assert torch.equal(values, again)
        assert not values.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_of_the_caller_changes_nothing(scored: Scored, dtype: torch.dtype) -> None:
    images = scored.images[:2]
    expected = scored.extractor(images)
    with torch.autocast("cpu", dtype=dtype):
        found = scored.extractor(images)
    for values, others in zip(found[:3], expected[:3], strict=True):
        assert values is not None
        assert torch.equal(values, others)


def test_batching_changes_only_rounding(scored: Scored) -> None:
    assert relative_error(scored.extractor(scored.images[:3]).features, scored.ours.features[:3]) < 1e-4
    nothing = scored.extractor(scored.images[:0])
    assert [values.shape for values in nothing[:3]] == [(0, 2048), (0, 1008), (0, 2023)]


def test_spatial_features_are_the_maps_of_torch_fidelitys_layer(scored: Scored) -> None:
    theirs = torch_fidelity_inception(scored.weights)
    maps = []
    hook = theirs.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: maps.append(output))
    theirs(scored.images[:2])
    hook.remove()
    spatial = scored.extractor(scored.images[:2]).spatial
    assert spatial is not None
    assert relative_error(spatial, maps[0][:, :7].flatten(1)) < 1e-4


@pytest.mark.parametrize("shape", [(28, 28), (32, 48), (64, 64), (299, 299), (512, 700)])
def test_the_clean_resize_is_pillows_on_floats(shape: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, *shape), generator=rng, dtype=torch.uint8)
    expected = [
        [
            np.asarray(Image.fromarray(channel.float().numpy(), mode="F").resize((299, 299), Image.Resampling.BICUBIC))
            for channel in image
        ]
        for image in images
    ]
    clipped = torch.from_numpy(np.array(expected)).clamp(0, 255)
    found = resize_clean((images.float() - 128) / 128, 299) * 128 + 128
    torch.testing.assert_close(found, clipped, rtol=0, atol=5e-3)


def test_a_clean_resize_has_a_protocol_and_names_of_its_own(scored: Scored) -> None:
    clean = create_extractor("inception_clean", weights=str(scored.weights))
    assert clean.protocol() == {
        **scored.extractor.protocol(),
        "name": "inception_clean",
        "resize": "pil_bicubic_299",
    }
    assert score_metrics["frechet_distance"].score_name("inception_clean") == "clean_fid"
    small = scored.images[:2, :, ::2, ::2]
    assert relative_error(clean(small).features, scored.extractor(small).features) > 1e-3


def test_grey_is_repeated(scored: Scored) -> None:
    grey = scored.images[:2, :1]
    seen: list[Tensor] = []
    hook = scored.extractor.stem.register_forward_pre_hook(lambda stem, inputs: seen.append(inputs[0].clone()))
    features = [scored.extractor(images).features for images in (grey, grey.repeat(1, 3, 1, 1))]
    hook.remove()
    # The resize of one channel and that of three may round to neighbouring floats, and convolutions do, from call to
    # call.
    torch.testing.assert_close(*seen, rtol=0, atol=1e-6)
    assert relative_error(*features) < 1e-4
    scored.extractor.check_image_shape((1, 28, 28))
    scored.extractor.check_image_shape((3, 256, 300))
    with pytest.raises(UserError, match="RGB or grey images, not 4 channels"):
        scored.extractor.check_image_shape((4, 32, 32))


def test_images_must_be_uint8(scored: Scored) -> None:
    with pytest.raises(TypeError, match="uint8"):
        scored.extractor(scored.images[:1].float())


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has one TF32 switch, without a conv")
def test_convolutions_run_in_full_float32_and_the_switch_is_put_back(scored: Scored) -> None:
    seen = []
    hook = scored.extractor.last_blocks.register_forward_hook(
        lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision)
    )
    before = torch.backends.cudnn.conv.fp32_precision
    scored.extractor(scored.images[:1])
    hook.remove()
    assert seen == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_protocol_names_the_weight_file(scored: Scored) -> None:
    assert scored.extractor.protocol() == {
        "name": "inception",
        "weights_sha256": sha256_of_file(scored.weights),
        "layer": "pool_2048",
        "resize": "tf1_bilinear_299",
        "logits": "unbiased",
    }


def test_only_the_official_weights_are_ranked(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not scored.extractor.ranked
    assert InceptionExtractor.ranked
    monkeypatch.setattr(inception, "OFFICIAL_SHA256_PREFIX", sha256_of_file(scored.weights)[:8])
    assert InceptionExtractor(scored.weights).ranked


def test_created_by_name_it_is_frozen(scored: Scored) -> None:
    extractor = create_extractor("inception", weights=str(scored.weights)).train()
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert not any(module.training for module in extractor.modules())


def test_weights_in_the_hub_cache_are_found(scored: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / inception.WEIGHTS_FILE).symlink_to(scored.weights)
    monkeypatch.setattr(inception, "OFFICIAL_SHA256_PREFIX", sha256_of_file(scored.weights)[:8])
    assert InceptionExtractor().weights_sha256 == scored.extractor.weights_sha256


def test_missing_weights_are_downloaded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(url: str, destination: str, hash_prefix: str) -> None:
        calls.append((url.rsplit("/", 1)[1], Path(destination), hash_prefix))
        torch.save({}, destination)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError, match="does not hold"):
        InceptionExtractor()
    path = tmp_path / "hub" / "checkpoints" / inception.WEIGHTS_FILE
    assert calls == [(inception.WEIGHTS_FILE, path, "6726825d")]


def test_missing_weights_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError) as error:
        InceptionExtractor()
    message = str(error.value)
    path = tmp_path / "hub" / "checkpoints" / inception.WEIGHTS_FILE
    for part in (str(path), "https://", "metrics.extractor.weights=FILE", "no route to host"):
        assert part in message
    assert "\n" not in message
    assert not path.exists()


def test_given_weights_must_be_a_weight_file(scored: Scored, tmp_path: Path) -> None:
    text, other, short = tmp_path / "notes.txt", tmp_path / "other.pth", tmp_path / "short.pth"
    text.write_text("not weights")
    torch.save({"layer.weight": torch.zeros(3)}, other)
    state = torch.load(scored.weights, weights_only=True)
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048)}, short)
    cases = {
        tmp_path / "absent.pth": "no file",
        tmp_path: "no file",
        text: "no PyTorch file of tensors",
        other: "does not hold the TF-ported Inception-v3",
        short: r"1 tensors .* \(fc.weight\)",
    }
    for path, reason in cases.items():
        with pytest.raises(UserError, match=reason) as error:
            InceptionExtractor(path)
        message = str(error.value)
        assert str(path) in message
        assert "set metrics.extractor.weights" in message
        assert "\n" not in message


def test_module_imports_neither_torch_fidelity_nor_torchvision() -> None:
    code = (
        "import sys, lightning_gen.metrics.extractors.inception\n"
        "assert not {'torch_fidelity', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
