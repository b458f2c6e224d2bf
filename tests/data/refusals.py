"""What the tests of bad input share."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen.data.sets.image_folder import ImageFolderDataModule
from lightning_gen.data.sets.paired import PairedDataModule
from lightning_gen.errors import UserError
from tests.data.image_files import encode, plain, write_plain

REMEDY = r"\b(set|give|remove|replace|download|unpack|lower|choose|make|must be|delete|Did you mean|Known)\b"


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Inside, a UserError must be raised, of one line that has these words and says what to do."""
    with pytest.raises(UserError) as caught:
        yield
    check_message(caught.value, *words)


def check_message(error: UserError, *words: str) -> None:
    message = str(error)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    # A path may hold such a word by chance.
    assert re.search(REMEDY, re.sub(r"\S*/\S*", "", message)), f"says not what to do: {message}"


def folder_of(path: Path, **options: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule("unused", str(path), **options)


def levels(images: torch.Tensor) -> list[int]:
    """The grey level of each image."""
    return images[:, 0, 4, 4].tolist()


def write_levels(folder: Path, *numbers: int) -> Path:
    """PNGs of one level each, named by it."""
    for level in numbers:
        write_plain(folder / f"{level:03}.png", level)
    return folder


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def paired(path: Path, **options: Any) -> PairedDataModule:
    return PairedDataModule("unused", str(path), **options)


def png(level: int) -> bytes:
    return encode(plain(level), "PNG")


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]


def replaced_by_text(content: bytes) -> bytes:
    return b"<html>404 not found</html>\n" * (len(content) // 1000)


def emptied(content: bytes) -> bytes:
    del content
    return b""
