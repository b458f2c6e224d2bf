"""Train on the source's images as a translator makes them look in the target's domain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_gen.callbacks.kept_arrays import kept_array
from lightning_gen.data import ImageDataModule
from lightning_gen.data.image_set import ImageSet
from lightning_gen.data.pairs import PairDataModule
from lightning_gen.data.sets.adaptation import AdaptationDataModule
from lightning_gen.errors import UserError, first_line
from lightning_gen.files import canonical_json
from lightning_gen.images import to_float, to_uint8
from lightning_gen.models import GenerativeModel, load_model, read_checkpoint
from lightning_gen.models.capabilities import Translates
from lightning_gen.registry import construct
from lightning_gen.seeds import make_rng
from lightning_gen.tracking.run_directory import open_run


class TranslatedSource(Callback):
    """Puts translations in the place of the source's training images, with their labels, before training begins.

    Adaptation of pixels: a model that trains on the source's labels then learns from images that look like the
    target's. The translator must have been trained on the same images of both domains, held-out ones left out.
    Translations are made once, with the translator's averaged weights if it has some, and kept in a file whose name
    holds digests of the translator's checkpoint and of the images.

    Args:
        translator: run directory or checkpoint of a model that translates.
        cache_dir: where the files are, in the folder ``translated``.
        direction: ``AtoB``, which is from source to target in a translator that was trained on ``data=adaptation``.
        block_size: images translated at once.

    Raises:
        UserError: numbers out of range.
    """

    def __init__(
        self, translator: str | Path | None, cache_dir: str | Path, direction: str = "AtoB", block_size: int = 250
    ) -> None:
        if block_size < 1:
            raise UserError(f"callbacks.translated_source.block_size must be at least 1, not {block_size}")
        if translator is None:
            raise UserError(
                "callbacks.translated_source.translator is not set: set it to a run that translates, as of "
                "experiment=cyclegan_adaptation_digits"
            )
        self.translator = Path(translator)
        self.folder = Path(cache_dir) / "translated"
        self.direction = direction
        self.block_size = block_size

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Translate, or read what was translated."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, AdaptationDataModule):
            raise UserError(f"{data.name} has no source to translate: set data=adaptation")
        _, path = open_run(self.translator)
        checkpoint = read_checkpoint(path)
        model = load_model(checkpoint).to(pl_module.device)
        key = f"callbacks.translated_source.translator={self.translator}"
        if not isinstance(model, Translates) or self.direction not in model.directions:
            raise UserError(f"{key} holds a {type(model).__name__}, which does not translate {self.direction}")
        if data.image_size % model.size_multiple:
            raise UserError(
                f"{key} takes images of multiples of {model.size_multiple}: set data.image_size in both runs"
            )
        _check_images(construct(checkpoint["config"]["data"], ImageDataModule), data, key)  # type: ignore[type-abstract]
        data.replace_source(self._translated(model, path, data))

    def _translated(self, model: GenerativeModel, checkpoint: Path, data: AdaptationDataModule) -> ImageSet:
        images = data.input_set("train")
        with checkpoint.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        identity = canonical_json(
            {"images": images.digest, "checkpoint": weights, "direction": self.direction, "version": 1}
        )
        name = f"{data.name}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.npy"
        try:
            pixels = kept_array(self.folder / name, len(images), lambda: self._blocks(model, images))
        except OSError as error:
            raise UserError(
                f"cannot keep translations in {self.folder} ({first_line(error)}): set paths.cache_dir to a folder "
                "with room"
            ) from error
        return ImageSet(pixels, images.labels)

    def _blocks(self, model: GenerativeModel, images: ImageSet) -> Iterator[Tensor]:
        assert isinstance(model, Translates)
        with model.evaluation():
            for number, block in enumerate(images.images.split(self.block_size)):
                rng = make_rng("translated_source", self.direction, number)
                yield to_uint8(model.translate(to_float(block.to(model.device)), self.direction, generator=rng))


def _check_images(trained_on: ImageDataModule, data: AdaptationDataModule, key: str) -> None:
    """Refuse a translator of other images, or one that has seen images that are held out here.

    Raises:
        UserError: naming ``key``.
    """
    for domain in "AB":
        same = isinstance(trained_on, PairDataModule) and (
            trained_on.domain_set(domain, "train").digest == data.domain_set(domain, "train").digest
        )
        if not same:
            raise UserError(
                f"{key} was trained on other images of domain {domain} than {data.name}: give both runs the same "
                "data.source, data.domain, data.image_size, data.split_seed and data.validation_share"
            )
