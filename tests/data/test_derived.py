from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from lightning_gen.data import PairBatch
from lightning_gen.data.sets.derived import (
    ColorizeDataModule,
    EdgesDataModule,
    InvertedDataModule,
    edges,
)
from lightning_gen.errors import UserError
from lightning_gen.images import grey, to_float, to_uint8

DIGITS = {"_target_": "lightning_gen.data.sets.digits.DigitsDataModule", "data_dir": "unused"}


def first_batch(data: Any) -> PairBatch:
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert isinstance(batch, PairBatch)
    return batch


def test_edges_are_scipys_sobel_gradient() -> None:
    images = torch.rand(3, 1, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    for ours, image in zip(edges(images)[:, 0].numpy(), images[:, 0].numpy(), strict=True):
        gradient = np.hypot(ndimage.sobel(image, 0, mode="mirror"), ndimage.sobel(image, 1, mode="mirror"))
        np.testing.assert_allclose(ours, np.minimum(gradient / 2 - 1, 1), atol=1e-12)


def test_a_step_has_an_edge_and_a_plain_has_none() -> None:
    step = torch.full((1, 1, 6, 6), -1.0)
    step[..., 3:] = 1.0
    found = edges(step)
    assert (found[..., 2:4] == 1).all()
    assert (found[..., [0, 1, 4, 5]] == -1).all()


def test_grey_is_pillows() -> None:
    pixels = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = np.asarray(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).convert("L"))
    ours = to_uint8(grey(to_float(pixels)))[0, 0].numpy()
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_edges_of_a_batch_are_those_of_its_own_augmented_images() -> None:
    data = EdgesDataModule("unused", DIGITS, augmentation={"horizontal_flip": True}, batch_size=16)
    batch = first_batch(data)
    assert batch.images_a.shape == batch.images_b.shape == (16, 1, 32, 32)
    assert torch.equal(batch.images_a, edges(batch.images_b))
    assert data.input_shape == (1, 32, 32)
    assert torch.equal(
        data.input_set("test", 8).images, to_uint8(edges(to_float(data.reference_set("test", 8).images)))
    )
    assert batch.labels_a is batch.labels_b
    assert data.class_names == tuple("0123456789")
    assert data.canonical("B") is None


def test_domains_of_the_inverted_set_share_no_image() -> None:
    data = InvertedDataModule("unused", DIGITS, batch_size=8)
    a, b = data.input_set("train"), data.reference_set("train")
    assert (len(a), len(b)) == (719, 718)
    source = data.source.reference_set("train")
    assert torch.equal(a.images, source.images[0::2])
    assert torch.equal(b.images, 255 - source.images[1::2])
    assert b.labels is not None
    assert source.labels is not None
    assert torch.equal(b.labels, source.labels[1::2])
    negative = data.canonical("B")
    assert negative is not None
    assert torch.equal(to_uint8(negative.apply(to_float(b.images))), source.images[1::2])
    assert data.canonical("A") is None
    assert [data.domain_size(domain, "train") for domain in "AB"] == [719, 718]
    assert torch.equal(data.domain_set("A", "train", 5).images, a.images[:5])
    assert not data.paired
    batch = first_batch(data)
    assert batch.images_a.mean() < 0 < batch.images_b.mean()
    assert (len(data.split("test")), len(data.split("test_a"))) == (180, 180)


def test_sources_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="grey and cannot be coloured"):
        ColorizeDataModule("unused", DIGITS)
    with pytest.raises(UserError, match="set of pairs itself"):
        edged = {"_target_": "lightning_gen.data.sets.derived.EdgesDataModule", "data_dir": "x", "source": DIGITS}
        InvertedDataModule("unused", edged)
    with pytest.raises(UserError, match="differ"):
        EdgesDataModule("unused", DIGITS, image_size=64)
    with pytest.raises(UserError, match=r"unset data\.labelled_per_class"):
        EdgesDataModule("unused", DIGITS, labelled_per_class=3).check()
