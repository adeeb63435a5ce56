"""The sample browser of a page, as tests read and use it."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from support.browser import Browser

HOSTILE = "</script><script>owned = 1</script><img src=x onerror='owned = 2'>\u202e${owned = 3}{{owned}} " + 300 * "W"
STATUS = "document.querySelector('.status').textContent"
READY = "document.querySelector('#sample-browser').dataset.ready"


def unpack(data: str) -> dict[str, Any]:
    """The content of packed samples."""
    return dict(json.loads(gzip.decompress(base64.b85decode(data.translate(str.maketrans(",.:", "<>&"))))))


def hash_of(browser: Browser) -> str:
    return str(browser.evaluate("location.hash"))


def shown(browser: Browser) -> str:
    return str(browser.evaluate("document.querySelector('.sample-detail h3').textContent"))


def choose(browser: Browser, name: str, value: str) -> None:
    """Change a field of the filters, as a user does."""
    field = f"document.querySelector('.filters').elements[{json.dumps(name)}]"
    browser.evaluate(
        f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
