"""The HTML file around a page's content: style, data, scripts, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from reasonloop.files import write_atomically


def document(title: str, body: str, data: Any) -> str:
    """A whole page: `body` is ready HTML, `data` is what the page's script draws."""
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), _asset("report.js")]
    # Only these scripts may run and nothing else may be fetched: model text that got past the escaping is still dead.
    allowed = " ".join(_hash(script) for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"
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
<style>{_asset("report.css")}</style>
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


def _asset(name: str) -> str:
    return (files("reasonloop.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
