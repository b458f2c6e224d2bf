"""Combinations that mean nothing end in one line before anything is trained or written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_gen.errors import UserError

VBN = "regularizer=[virtual_batch_norm]"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["regularizer=[wgan_gp]"], "batch norm .* in the discriminator makes the gradient at one image depend on the"),
        (["regularizer=[r1]"], r"set model\.discriminator\.norm=none"),
        (["regularizer=[weight_clip,spectral_norm]"], "clipping them bounds nothing: keep one of the two"),
        (["regularizer=[spectral_norm,weight_clip]"], "clipping them bounds nothing: keep one of the two"),
        (
            ["data=image_folder", "data.path=PHOTOS", "model.conditional=true"],
            "needs labels, and the data set has no classes",
        ),
        (["model.conditional=true", "data.labelled_per_class=5"], "needs the label of every image"),
        (
            [VBN, "model.regularizers.virtual_batch_norm.reference_size=null"],
            "virtual batch norm without a reference batch means nothing",
        ),
        ([VBN, "model.regularizers.virtual_batch_norm.networks=[discriminator]"], "wants 64 reference images"),
        (["model.discriminator_steps=3"], "is no multiple of"),
        (["model.loss=relativistic", "model.generator_batch_size=8"], "compares images in pairs"),
        (["regularizer=[auxiliary_classifier]"], r"set model\.conditional=true"),
        (["regularizer=[mutual_information]"], r"set model\.codes"),
        (["regularizer=[label_smoothing]", "model.loss=hinge"], "cross entropy"),
        (["model.truncation=0.5", "model.latent_range=1.0"], "needs Gaussian latents"),
    ],
)
def test_a_combination_that_means_nothing_is_refused_before_training(
    overrides: list[str], reason: str, train_here: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(32):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(photos / f"{number}.png")
    with pytest.raises(UserError, match=reason) as caught:
        train_here(*(override.replace("PHOTOS", str(photos)) for override in overrides))
    assert "\n" not in str(caught.value)
    assert not Path(os.environ["LIGHTNING_GEN_OUTPUT_DIR"]).exists()
