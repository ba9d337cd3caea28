"""One file of a document: nothing in it can run but its own script, and nothing leaves it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

STYLES = ("page.css", "table.css", "chart.css", "player.css", "media.css")
SCRIPTS = ("dom.js", "table.js", "chart.js", "canvas.js", "player.js", "page.js")


def page(document: Mapping[str, Any]) -> bytes:
    """The skeleton with the style, the script and the document in their places."""
    script = "\n".join(map(_source, SCRIPTS))
    style = "\n".join(map(_source, STYLES))
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "style": style, "script": script}
    parts |= {"title": escape(document["title"]), "data": encoded(document)}
    text = _source("page.html")
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text.encode("utf-8", "replace")


def encoded(value: Any) -> str:
    """JSON in one line of ASCII that also holds inside an HTML script, whatever a text says."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


@cache
def _source(name: str) -> str:
    return files("mdmbench.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The browser runs what has this digest, and nothing else."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
