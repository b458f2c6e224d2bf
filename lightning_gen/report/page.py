"""A page that is one file: its style, its scripts and its data are inside, and it may load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def build_page(title: str, body: str, styles: Sequence[str], scripts: Sequence[str], data: Any = None) -> str:
    """An HTML page that opens from a file and uses no network.

    Its Content-Security-Policy names the digests of its own style and scripts and forbids all others, every connection,
    and every image that is not inside the page.

    Args:
        title: plain text.
        body: HTML, with all text in it escaped already.
        styles: names of CSS files of this package.
        scripts: names of JavaScript files of this package.
        data: plain values for the scripts, which find them as JSON in ``#data``.
    """
    style = "\n".join(_read(name) for name in styles)
    script = "\n".join(_read(name) for name in scripts)
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="data">{json_for_script(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def json_for_script(value: Any) -> str:
    """JSON that can stand in a script element: no ``<``, ``>`` or ``&`` in it is one to the parser of HTML."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
