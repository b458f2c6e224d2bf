from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors.inception import WEIGHTS_URL
from lightning_gen.metrics.extractors.published import published_weights
from tests.data.published_files import Server

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def weights(server: Server, folder: Path) -> Callable[..., Path]:
    (server.folder / "net.pth").write_bytes(CONTENT)

    def find(sha256: str = SHA256, path: Path | None = None) -> Path:
        return published_weights(server.url + "net.pth", sha256, "net.pth", "Net", path)

    return find


def refusal(find: Callable[[], Path]) -> str:
    with pytest.raises(UserError) as error:
        find()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("digits", [64, 8])
def test_missing_weights_are_downloaded_once(
    weights: Callable[..., Path], server: Server, folder: Path, digits: int
) -> None:
    for _ in range(2):
        path = weights(SHA256[:digits])
        assert path == folder / "net.pth"
        assert path.read_bytes() == CONTENT
    assert server.requests == ["net.pth"]


@pytest.mark.parametrize("fault", ["truncated", "cut off", "altered", "missing"])
def test_a_download_that_is_not_the_published_file_leaves_nothing(
    weights: Callable[..., Path], server: Server, folder: Path, fault: str
) -> None:
    server.faults["net.pth"] = fault  # type: ignore[assignment]
    message = refusal(weights)
    for part in ("Net weights", str(folder / "net.pth"), server.url, "metrics.extractor.weights=FILE"):
        assert part in message
    assert list(folder.iterdir()) == []
    server.faults.clear()
    assert weights().read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_named_and_kept(
    weights: Callable[..., Path], server: Server, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "net.pth").write_bytes(CONTENT[:-1])
    message = refusal(weights)
    assert str(folder / "net.pth") in message
    assert "delete it" in message
    assert (folder / "net.pth").read_bytes() == CONTENT[:-1]
    assert server.requests == []


def test_a_named_file_is_taken_as_it_is(weights: Callable[..., Path], server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    assert f"no file {other}" in refusal(lambda: weights(path=other))
    other.write_bytes(b"mine")
    assert weights(path=other) == other
    assert server.requests == []


def test_a_folder_for_weights_takes_the_place_of_the_hub_cache(
    weights: Callable[..., Path], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "net.pth").write_bytes(CONTENT)
    monkeypatch.setenv("LIGHTNING_GEN_WEIGHTS_DIR", str(mine))
    assert weights() == mine / "net.pth"
    assert server.requests == []


def test_inception_is_fetched_from_where_torch_fidelity_fetches_it() -> None:
    assert WEIGHTS_URL == URL_INCEPTION_V3
