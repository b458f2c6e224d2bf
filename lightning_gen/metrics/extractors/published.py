"""Weight files that others publish: found by path or in a cache, or downloaded, and never another file than that."""

from __future__ import annotations

import os
from http.client import HTTPException
from pathlib import Path

import torch

from lightning_gen.errors import UserError
from lightning_gen.metrics.extractors.base import sha256_of_file

FOLDER_VARIABLE = "LIGHTNING_GEN_WEIGHTS_DIR"


def weights_folder() -> Path:
    """Where published weights are kept: ``$LIGHTNING_GEN_WEIGHTS_DIR``, or else torch's hub cache.

    That is ``$TORCH_HOME/hub/checkpoints``, by default ``~/.cache/torch/hub/checkpoints``.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else Path(torch.hub.get_dir(), "checkpoints")


def published_weights(url: str, sha256: str, name: str, kind: str, weights: str | Path | None = None) -> Path:
    """The file of published weights, downloaded if it is not there.

    A download goes to a temporary name and is renamed once its digest is right.

    Args:
        url: where it is published.
        sha256: the digest of its bytes (hexadecimal), or the first digits of it.
        name: of the file in `weights_folder`.
        kind: of the weights, for messages.
        weights: a file to take in its place, whatever its digest.

    Raises:
        UserError: ``weights`` is no file, the file in the folder is damaged, or none can be downloaded.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"{kind} weights: no file {path}: set metrics.extractor.weights to the file {name}")
        return path
    path = weights_folder() / name
    if path.is_file():
        if not sha256_of_file(path).startswith(sha256):
            raise UserError(
                f"{kind} weights: {path} is not the published file: delete it and run again to download it anew"
            )
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{kind} weights are not at {path} and cannot be downloaded ({reason}): fetch {url} and put it there, or "
            "set metrics.extractor.weights=FILE"
        ) from error
    return path
