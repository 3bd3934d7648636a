"""The HTML file around a page's content: style, data, scripts, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from reasonloop.files import write_atomically

PLOTLY = "plotly/plotly-cartesian.min.js.gz"


def document(title: str, body: str, data: Mapping[str, Any]) -> str:
    """A whole page: `body` is ready HTML, `data` is what the page's script draws (its "figures", and more)."""
    script = _asset("report.js").decode()
    allowed, library = _hash(script.encode()), ""
    if data.get("figures"):
        packed = _asset(PLOTLY)  # a third of its size; the script unpacks it and hands it to the browser
        allowed += f" {_hash(gzip.decompress(packed))}"
        library = (
            "<!-- plotly.js (cartesian), Copyright Plotly, Inc., MIT licence -->\n"
            f'<script type="text/plain" id="plotly">{base64.b64encode(packed).decode()}</script>\n'
        )
    # Only these scripts may run and nothing else may be fetched: model text that got past the escaping is still dead.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · ReasonLoop</title>
<link rel="icon" href="data:,">
<style>{_asset("report.css").decode()}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{embedded(data)}</script>
{library}<script>{script}</script>
</body>
</html>
"""


def write_page(page: str, path: Path) -> Path:
    """Writes the page and returns its path. The file is replaced at once, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A run and `report --follow` may write it at the same time. What UTF-8 can't say (lone surrogates) becomes references.
    write_atomically(path, page.encode("utf-8", errors="xmlcharrefreplace"), several=True)
    return path


def embedded(data: Any) -> str:
    """`data` as JSON that may stand inside a <script> element whatever text it holds: no <, >, & and only ASCII.

    Numbers that JSON doesn't know (NaN, infinities) become null.
    """
    finite = json.loads(json.dumps(data), parse_constant=lambda name: None)
    text = json.dumps(finite, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> bytes:
    return (files("reasonloop.report") / name).read_bytes()


def _hash(script: bytes) -> str:
    """The script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
