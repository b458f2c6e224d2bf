"""Sets of the Hugging Face hub, or Parquet files in its layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_gen.data.encoded_module import EncodedDataModule
from lightning_gen.data.encoded_set import EncodedSet
from lightning_gen.data.formats.parquet import image_records, label_column, read_tables
from lightning_gen.errors import UserError, first_line

MISSING = "the package datasets is not installed: pip install 'lightning-gen[huggingface]'"


class HuggingFaceDataModule(EncodedDataModule):
    """Images of a folder of ``<split>.parquet`` files, or of a set on the hub.

    Args:
        data_dir: not used; the hub's files are where the package ``datasets`` keeps them.
        path: the folder, or the set's name on the hub.
        image_column: column of encoded images.
        label_column: column of whole numbers or strings; None for no labels.
        subset: configuration of the set on the hub; None for its only one.
        train_split: its name there.
        test_split: its name there.
        options: those of `EncodedDataModule` and `ImageDataModule`.
    """

    def __init__(
        self,
        data_dir: str,
        path: str,
        image_column: str = "image",
        label_column: str | None = "label",
        subset: str | None = None,
        train_split: str = "train",
        test_split: str = "test",
        **options: Any,
    ) -> None:
        super().__init__(data_dir, **options)
        self.path = path
        self.name = Path(path).name
        self.image_column = image_column
        self.label_column = label_column
        self.subset = subset
        self.split_names = {"train": train_split, "test": test_split}
        self._class_names: list[str] | None = None

    @property
    def all_class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the classes, from the training split."""
        if self._class_names is None and self.label_column is not None:
            self.split("train")
        return self._class_names or []

    def load(self, split: str) -> EncodedSet:
        """Read one split."""
        name = self.split_names[split]
        table = read_tables(Path(self.path), name) if Path(self.path).is_dir() else self._from_hub(name)
        labels = None
        if self.label_column is not None:
            known = None if split == "train" else list(self.all_class_names)
            labels, self._class_names = label_column(table, self.label_column, f"{self.path} {name}", known)
        return self.encoded(image_records(table, self.image_column, f"{self.path} {name}"), labels)

    def _from_hub(self, split: str) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError(MISSING) from error
        try:
            # The table holds the files' bytes and is mapped from the disk; images are decoded by us.
            return datasets.load_dataset(self.path, self.subset, split=split).with_format("arrow").data.table
        except Exception as error:
            raise UserError(
                f"{self.path!r} is neither a folder nor a set that the hub gives ({first_line(error)}): set data.path"
            ) from error
