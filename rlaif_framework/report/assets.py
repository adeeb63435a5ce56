"""Style sheets and scripts of the pages, embedded under a strict Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

STYLES = ("page.css", "parts.css", "samples.css")
VEGA = ("vega.min.js", "vega-lite.min.js", "vega-interpreter.min.js", "vega-embed.min.js")
"""Vendored scripts that draw charts, in the order in which they need each other."""
SCRIPTS = ("page.js", "tables.js")
CHART_SCRIPTS = ("charts.js",)
SAMPLE_SCRIPTS = ("sample_data.js", "word_diff.js", "sample_view.js", "sample_list.js", "sample_browser.js")


@dataclass(frozen=True, slots=True)
class Assets:
    """What a page embeds."""

    style: Markup
    scripts: list[Markup]
    policy: str
    """Value of the Content-Security-Policy: only these scripts and this style, and nothing from elsewhere."""


def load_assets(charts: bool, samples: bool) -> Assets:
    """Read the style sheets and the scripts that a page needs.

    Args:
        charts: Whether the page has charts.
        samples: Whether the page has the sample browser.
    """
    style = "\n".join(_read("styles", name) for name in STYLES)
    scripts = [_read("vendor", name) for name in VEGA] if charts else []
    scripts += [_read("scripts", name) for name in SCRIPTS]
    scripts += [_read("scripts", name) for name in CHART_SCRIPTS] if charts else []
    scripts += [_read("scripts", name) for name in SAMPLE_SCRIPTS] if samples else []
    policy = (
        f"default-src 'none'; script-src {_hash(scripts)}; style-src {_hash([style])}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Assets(Markup(style), [Markup(script) for script in scripts], policy)


@cache  # the files of an installed package do not change
def _read(folder: str, name: str) -> str:
    text = (files("rlaif_framework.report") / folder / name).read_text(encoding="utf-8")
    if "</script" in text.lower() or "</style" in text.lower():
        raise ValueError(f"{name} would end the element that it is embedded in")
    return text


def _hash(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
