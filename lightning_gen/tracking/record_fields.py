"""The fields of a run record that are read back, and their types: a record is a file that anything may have damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning_gen.errors import UserError


class Field(NamedTuple):
    """What a field must hold.

    Attributes:
        types: any of these; ``bool`` counts as a number nowhere.
        needed: whether a record without it is refused.
    """

    types: tuple[type, ...]
    needed: bool = False


_NUMBER = (int, float)
_NULL = (type(None),)

RECORD = {
    "experiment": Field((str,), needed=True),
    "run_name": Field((str,), needed=True),
    "model": Field((str,), needed=True),
    "data": Field((str,), needed=True),
    "seed": Field((int,), needed=True),
    "scores": Field((list,), needed=True),
    "images_seen": Field((int,), needed=True),
    "train_seconds": Field(_NUMBER + _NULL),
    "images_per_second": Field(_NUMBER + _NULL),
    "parameters": Field((dict,)),
    "hardware": Field((dict,)),
    "settings_digest": Field((str, *_NULL)),
}

HARDWARE = {"device": Field((str,)), "processes": Field((int,)), "threads": Field((int,))}

SCORE = {
    "name": Field((str,), needed=True),
    "value": Field(_NUMBER, needed=True),
    "std": Field(_NUMBER + _NULL, needed=True),
    "images_seen": Field((int,), needed=True),
    "lower_is_better": Field((bool,)),
    "ranked": Field((bool,)),
    "protocol": Field((dict,), needed=True),
    "protocol_hash": Field((str,), needed=True),
}

PROTOCOL = {"reference": Field((dict, *_NULL)), "sampler": Field((dict, *_NULL)), "num_samples": Field((int,))}


def check_fields(record: Mapping[str, Any], name: str) -> None:
    """Refuse a record whose fields are not what the leaderboard reads.

    Args:
        record: the record.
        name: where it comes from, for the message.

    Raises:
        UserError: a field is missing or of another type.
    """
    _check(record, RECORD, name)
    _check(record.get("hardware", {}), HARDWARE, f"{name}: hardware")
    counts = record.get("parameters", {})
    _check(counts, dict.fromkeys(counts, Field((int,))), f"{name}: parameters")
    for score in record["scores"]:
        if not isinstance(score, dict):
            raise UserError(f"{name}: scores holds a {type(score).__name__}")
        _check(score, SCORE, f"{name}: a score")
        _check(score["protocol"], PROTOCOL, f"{name}: a protocol")


def _check(values: Mapping[str, Any], fields: Mapping[str, Field], name: str) -> None:
    missing = [key for key, field in fields.items() if field.needed and key not in values]
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}")
    for key, (types, _) in fields.items():
        if key in values and not _is_of(values[key], types):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise UserError(f"{name}: {key} is of type {type(values[key]).__name__}, not {wanted}")


def _is_of(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))
