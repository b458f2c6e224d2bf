"""Sets of the hub, through the package `datasets`, whose download is replaced by a set made here."""

import io
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from lightning_gen.data.sets.huggingface import HuggingFaceDataModule
from lightning_gen.errors import UserError

NAMES = ["zebra", "ant"]


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Pixels of each split of a set that `load_dataset` gives under the name ``someone/animals``."""
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8) for name in ("train", "validation")}
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES)})

    def load_dataset(path: str, name: str | None, split: str) -> datasets.Dataset:
        if path != "someone/animals":
            raise ConnectionError("Couldn't reach the hub\n(no network)")
        assert name == "small"
        content = {"image": list(map(encoded, pixels[split])), "kind": [0, 1, 1, 1, 0, 1]}
        return datasets.Dataset.from_dict(content, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return pixels


def module(path: str = "someone/animals", **options: Any) -> HuggingFaceDataModule:
    defaults: dict[str, Any] = {"image_size": 8, "label_column": "kind", "subset": "small", "test_split": "validation"}
    return HuggingFaceDataModule("unused", path=path, num_workers=0, **(defaults | options))


def test_images_labels_and_class_names_come_from_the_hub(hub: dict[str, np.ndarray], tmp_path: Any) -> None:
    data = module(cache_dir=str(tmp_path))
    assert (data.name, list(data.class_names)) == ("animals", NAMES)
    for split, name in (("train", "train"), ("test", "validation")):
        images = data.reference_set(split)
        assert np.array_equal(images.images.permute(0, 2, 3, 1).numpy(), hub[name])
        assert images.labels is not None
        assert images.labels.tolist() == [0, 1, 1, 1, 0, 1]


def test_workers_read_what_the_hub_gave(hub: dict[str, np.ndarray]) -> None:
    data = module(residency="stream", batch_size=6)
    data.num_workers = 2
    ((batch,),) = data.train_dataloader()
    brightness = sorted(batch.images.float().mean((1, 2, 3)).tolist())
    assert brightness == pytest.approx(sorted(hub["train"].mean((1, 2, 3)).tolist()))
    data.teardown("fit")


@pytest.mark.usefixtures("hub")
def test_without_a_network_one_line_says_what_to_do() -> None:
    with pytest.raises(
        UserError, match=r"'someone/else' is neither a folder.*Couldn't reach the hub.*data\.path"
    ) as caught:
        module("someone/else").check()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"set data\.image_column.*Did you mean 'image'"):
        module(image_column="images").check()
