"""Parts that pages with tables share; ``table.js`` makes them work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any


def heading_cell(key: str, text: str, kind: str, *, sorted_now: bool = False) -> str:
    """A heading that sorts its column: by ``kind``, ``number`` or ``text``, of the cells' ``data-value``."""
    return (
        f'<th scope="col" class="{key}" data-kind="{kind}" aria-sort="{"ascending" if sorted_now else "none"}">'
        f"<button>{escape(text)}</button></th>"
    )


def protocol_button(number: int, protocol: Mapping[str, Any], protocol_hash: str) -> str:
    """The button of a table, counted from 0, that shows what its scores share."""
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in flat_protocol(protocol))
    return (
        f'<span class="protocol"><button aria-expanded="false" aria-controls="protocol-{number}" '
        f'aria-describedby="protocol-{number}">protocol <code>{escape(protocol_hash)}</code></button>'
        f'<span class="card" id="protocol-{number}" role="tooltip"><dl>{rows}</dl></span></span>'
    )


def flat_protocol(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Dotted names and short texts of all values of a protocol."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat_protocol(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        items = [f"{item:.3g}" if isinstance(item, float) else str(item) for item in value[:12]]
        yield prefix, f"[{', '.join(items)}{', …' if len(value) > 12 else ''}]"
    else:
        text = "none" if value is None or value == {} else str(value)
        yield prefix, text if len(text) <= 200 else f"{text[:200]} …"
