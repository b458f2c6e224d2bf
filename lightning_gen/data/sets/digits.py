"""The digits that ship with scikit-learn: 1,797 handwritten 8x8 images, always at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.errors import UserError


class DigitsDataModule(ImageDataModule):
    """Optical digits of UCI (Alpaydin and Kaynak 1998) as scikit-learn ships them, enlarged by bicubic filtering.

    The split is stratified, 80% train and 20% test, drawn by ``split_seed``. Grey levels 0..16 become 0..255.
    """

    name = "digits"
    all_class_names: Sequence[str] = tuple("0123456789")
    image_channels = 1

    def load(self, split: str) -> ImageSet:
        """Read, enlarge and split the digits."""
        if self.image_size < 8:
            raise UserError(f"digits are 8x8 or larger, not {self.image_size}x{self.image_size}: set data.image_size")
        digits = load_digits()
        train, test = train_test_split(
            np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=self.split_seed
        )
        chosen = np.sort(train if split == "train" else test)
        levels = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        # Enlarged by Pillow, whose rounding the published digests and the extractor's training images have.
        size = (self.image_size, self.image_size)
        enlarged = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in levels]
        return ImageSet(torch.from_numpy(np.stack(enlarged)[:, None]), torch.from_numpy(digits.target[chosen]).long())
