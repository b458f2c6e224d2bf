from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors import create_extractor, fidelity
from lightning_gen.metrics.extractors.base import sha256_of_file
from tests.metrics.inception_weights import photograph_crops


@pytest.fixture
def photographs() -> Tensor:
    return photograph_crops(4, size=20)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    return tmp_path / "torch" / "hub"


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript archive in OpenAI's format of a random network: one block of width 64 on patches of 16 of 32x32."""
    torch.manual_seed(0)
    clip = CLIPVisual(8, 32, 1, 64, 16)
    for parameter in clip.visual.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    names = {**clip.state_dict(), "text_projection": torch.zeros(4, 8), "logit_scale": torch.zeros(())}
    archive = nn.Module()
    for name, tensor in names.items():
        *parents, leaf = name.split(".")
        module = archive
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        module.register_parameter(leaf, nn.Parameter(tensor.half(), requires_grad=False))
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.jit.script(archive).save(str(path))
    return path


class Stub(nn.Module):
    """What stands for a DINOv2 network: the mean of patches, mapped linearly."""

    embed_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 14, stride=14)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == (224, 224)
        return self.patches(images).mean((2, 3))


HUBCONF = """
from tests.metrics.test_fidelity_extractors import Stub

def dinov2_vitb14(pretrained=True):
    assert not pretrained
    return Stub()
"""


@pytest.fixture
def dinov2_file(offline: Path, tmp_path: Path) -> Path:
    """A weight file of the stub, whose code is in the hub's cache."""
    folder = offline / fidelity.DINOV2_CODE.replace("/", "_").replace(":", "_")
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(HUBCONF)
    torch.manual_seed(0)
    torch.save(Stub().state_dict(), tmp_path / "stub.pth")
    return tmp_path / "stub.pth"


def test_clip_features_are_torch_fidelitys(clip_file: Path, photographs: Tensor) -> None:
    extractor = create_extractor("clip", weights=str(clip_file))
    features, logits = extractor(photographs)[:2]
    reference = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(clip_file))
    assert logits is None
    assert features.shape == (4, 8)
    assert features.std(0).min() > 1e-3
    torch.testing.assert_close(features, reference(photographs)[0], atol=1e-6, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(photographs).features, features)


def test_dinov2_features_are_torch_fidelitys(
    dinov2_file: Path, photographs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = create_extractor("dinov2", weights=str(dinov2_file))
    stub = Stub()
    stub.load_state_dict(torch.load(dinov2_file))
    monkeypatch.setattr(torch.hub, "load", lambda repository, name: stub)
    reference = FeatureExtractorDinoV2("dinov2-vit-b-14", ["dinov2"])
    features = extractor(photographs).features
    assert features.shape == (4, extractor.num_features) == (4, 6)
    assert features.std(0).min() > 1e-3
    torch.testing.assert_close(features, reference(photographs)[0], atol=1e-6, rtol=0)


def test_protocols_name_the_weights(clip_file: Path, dinov2_file: Path) -> None:
    for name, file, layer, resize in (
        ("clip", clip_file, "embedding_8", "tf1_bilinear_32"),
        ("dinov2", dinov2_file, "embedding_6", "tf1_bilinear_224"),
    ):
        extractor = create_extractor(name, weights=str(file))
        protocol = extractor.protocol()
        assert protocol.pop("variant") == {"clip": "vit-b-32", "dinov2": "vit-b-14"}[name]
        assert protocol == {"name": name, "weights_sha256": sha256_of_file(file), "layer": layer, "resize": resize}
        assert not extractor.ranked
        assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_only_published_weights_are_ranked(clip_file: Path, dinov2_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODEL_METADATA["clip-vit-b-32"], "hash", sha256_of_file(clip_file))
    monkeypatch.setitem(fidelity.DINOV2_SHA256, "vit-b-14", sha256_of_file(dinov2_file))
    assert create_extractor("clip", weights=str(clip_file)).ranked
    assert create_extractor("dinov2", weights=str(dinov2_file)).ranked


def test_weights_in_the_cache_are_found(
    clip_file: Path, dinov2_file: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = offline / "checkpoints"
    checkpoints.mkdir()
    digest = sha256_of_file(clip_file)
    monkeypatch.setitem(MODEL_METADATA["clip-vit-b-32"], "hash", digest)
    monkeypatch.setitem(fidelity.DINOV2_SHA256, "vit-b-14", sha256_of_file(dinov2_file))
    (checkpoints / f"clip-vit-b-32-{digest}.pt").symlink_to(clip_file)
    (checkpoints / "dinov2_vitb14_pretrain.pth").symlink_to(dinov2_file)
    assert create_extractor("clip").num_features == 8
    assert create_extractor("dinov2").num_features == 6


def test_grey_images_are_three_equal_channels(clip_file: Path, photographs: Tensor) -> None:
    extractor = create_extractor("clip", weights=str(clip_file))
    grey = photographs[:, :1]
    assert torch.equal(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features)
    extractor.check_image_shape((1, 20, 20))
    with pytest.raises(UserError, match="2 channels"):
        extractor.check_image_shape((2, 20, 20))


def test_mistakes_are_one_line(clip_file: Path, dinov2_file: Path, offline: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "clip"}, "openaipublic.*put it there, or set metrics.extractor.weights=FILE"),
        ({"name": "dinov2"}, "dinov2_vitb14_pretrain.pth.*put it there, or set metrics.extractor.weights=FILE"),
        ({"name": "clip", "weights": str(text)}, "notes.txt is no TorchScript file"),
        ({"name": "dinov2", "weights": str(text)}, "notes.txt does not hold vit-b-14"),
        ({"name": "dinov2", "weights": str(clip_file)}, "does not hold vit-b-14"),
        ({"name": "clip", "variant": "vit-b-33"}, "metrics.extractor.variant to one of .*vit-b-32"),
        ({"name": "dinov2", "variant": "b"}, "metrics.extractor.variant to one of vit-s-14"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message) as error:
            create_extractor(**options)
        assert "\n" not in str(error.value)


def test_without_the_code_of_dinov2_one_line_tells_where_to_put_it(offline: Path, dinov2_file: Path) -> None:
    folder = next(offline.glob("facebookresearch_dinov2_*"))
    (folder / "hubconf.py").unlink()
    folder.rmdir()
    with pytest.raises(UserError, match="facebookresearch/dinov2 at commit") as error:
        create_extractor("dinov2", weights=str(dinov2_file))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
