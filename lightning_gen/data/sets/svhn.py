"""Street View House Numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.datasets import SVHN

from lightning_gen.data.downloads import download_once
from lightning_gen.data.formats.decoding import resize
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.module import ImageDataModule
from lightning_gen.errors import UserError


class SVHNDataModule(ImageDataModule):
    """SVHN (Netzer et al. 2011): house numbers of 32x32, 73,257 for training, 26,032 for testing, 531,131 ``extra``.

    Read from the published ``.mat`` files in ``data_dir/svhn``, verified and, if need be, downloaded by torchvision.
    The digit 0, which the files call 10, has the label 0. Other sizes than 32 are resized by bicubic filtering.
    """

    name = "svhn"
    splits = ("train", "test", "extra")
    all_class_names: Sequence[str] = tuple("0123456789")
    image_channels = 3

    def load(self, split: str) -> ImageSet:
        """Read one split."""
        folder = self.data_dir / "svhn"
        url, file, _ = SVHN.split_list[split]
        download_once(
            f"SVHN {split}",
            folder,
            (folder / file).is_file,
            lambda place: SVHN(place, split=split, download=True),
            url,
        )
        try:
            published = SVHN(folder, split=split)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{folder / file} is not the published file: delete it and run again to download it anew"
            ) from error
        images = torch.from_numpy(published.data).contiguous()
        return ImageSet(resize(images, self.image_size, self.image_size), torch.from_numpy(published.labels))
