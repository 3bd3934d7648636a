"""The HTML file around a page's content: style, data, scripts, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from reasonloop.files import write_atomically


def document(title: str, body: str, data: Any, *, live: bool = False) -> str:
    """A whole page: `body` is ready HTML, `data` is what the page's script draws.

    `live`: the page also asks the server that it came from for a newer version of itself (`report --follow`).
    """
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), asset("report.js"), *([asset("follow.js")] if live else [])]
    # Only these scripts may run and nothing else may be fetched: model text that got past the escaping is still dead.
    allowed = " ".join(_hash(script) for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"
    policy += "; connect-src 'self'" if live else ""
    tags = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · ReasonLoop</title>
<link rel="icon" href="data:,">
<style>{asset("report.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{embedded(data)}</script>
{tags}
</body>
</html>
"""


def write_page(page: str, path: Path) -> Path:
    """Writes the page and returns its path. The file is replaced at once, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encoded(page), several=True)
    return path


def encoded(page: str) -> bytes:
    """UTF-8; what has no such form (lone surrogates) as character references."""
    return page.encode("utf-8", errors="xmlcharrefreplace")


def embedded(data: Any) -> str:
    """`data` as JSON that may stand inside a <script> element whatever text it holds: no <, >, & and only ASCII.

    Numbers that JSON doesn't know (NaN, infinities) become null.
    """
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    return (files("reasonloop.report") / name).read_text(encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _hash(script: str) -> str:
    """The script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
