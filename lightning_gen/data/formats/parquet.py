"""Images in Parquet files, in the column layout of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_gen.data.formats.records import Records
from lightning_gen.errors import UserError, first_line
from lightning_gen.registry import suggestion

if TYPE_CHECKING:
    import pyarrow

MISSING = "pyarrow is not installed: pip install 'lightning-gen[huggingface]'"


class ColumnRecords(Records):
    """Encoded images of an Arrow column: binary, or a struct with ``bytes``.

    Args:
        column: the images.
        place: file or set that they are from, for messages.
    """

    def __init__(self, column: pyarrow.ChunkedArray, place: str) -> None:
        self.column = column
        self.place = place

    def __len__(self) -> int:
        return len(self.column)

    def name(self, index: int) -> str:
        """File and row."""
        return f"{self.place} row {index}"

    def read(self, index: int) -> bytes:
        """The encoded image."""
        value = self.column[index].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise UserError(f"{self.name(index)} holds no image bytes: remove it, or set data.on_error=skip")
        return content


def read_tables(folder: Path, split: str) -> pyarrow.Table:
    """The table of ``<split>.parquet``, or of ``<split>-*.parquet`` in order.

    Raises:
        UserError: no such file, or a damaged one.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(MISSING) from error
    whole = folder / f"{split}.parquet"
    files = [whole] if whole.is_file() else sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no {split}.parquet: set data.path to the folder that does")
    tables = []
    for file in files:
        try:
            tables.append(pyarrow.parquet.read_table(file))
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{file} is damaged ({first_line(error)}): download it again") from error
    try:
        table = pyarrow.concat_tables(tables)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"the {split} files in {folder} have different columns ({first_line(error)}): keep those of one set"
        ) from error
    if not table.num_rows:
        raise UserError(f"{files[0]} has no rows: download it again, or set data.path")
    return table


def image_records(table: pyarrow.Table, column: str, place: str) -> ColumnRecords:
    """The images of a table's column."""
    return ColumnRecords(_column(table, column, "data.image_column", place), place)


def label_column(
    table: pyarrow.Table, column: str, place: str, known: list[str] | None = None
) -> tuple[Tensor, list[str]]:
    """Labels (N,) int64 and class names of a table's integer or string column.

    Args:
        table: of one split.
        column: its name.
        place: file or set that it is from, for messages.
        known: class names of the training split; None to take them from the hub's metadata where the file has it, else
            from what the column holds.

    Raises:
        UserError: no such column, labels that are neither, or a class that is not known.
    """
    values = _column(table, column, "data.label_column", place).to_pylist()
    if all(isinstance(value, int) for value in values):
        names = known or _class_names(table, column) or [str(label) for label in range(max(values) + 1)]
        labels = torch.tensor(values)
        if labels.min() < 0 or labels.max() >= len(names):
            raise UserError(
                f"{place}: column {column!r} holds labels from {labels.min()} to {labels.max()}, where 0 to "
                f"{len(names) - 1} are known: set data.label_column"
            )
        return labels, names
    if all(isinstance(value, str) for value in values):
        names = known or sorted(set(values))
        numbers = {name: number for number, name in enumerate(names)}
        unknown = sorted(set(values) - numbers.keys())
        if unknown:
            raise UserError(
                f"{place}: column {column!r} holds {unknown[0]!r}, which the training split does not have: set "
                "data.label_column"
            )
        return torch.tensor([numbers[value] for value in values]), names
    raise UserError(f"{place}: column {column!r} holds neither whole numbers nor strings: set data.label_column")


def _column(table: pyarrow.Table, column: str, key: str, place: str) -> pyarrow.ChunkedArray:
    if column not in table.column_names:
        raise UserError(f"{place} has no column {column!r}: set {key}.{suggestion(column, table.column_names)}")
    return table[column]


def _class_names(table: pyarrow.Table, column: str) -> list[str] | None:
    try:
        metadata: Any = json.loads((table.schema.metadata or {})[b"huggingface"])
        return [str(name) for name in metadata["info"]["features"][column]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
