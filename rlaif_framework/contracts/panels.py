"""Panels that plugins add to the report of a run."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_framework.contracts.tracking import Table


@dataclass(frozen=True, slots=True)
class Panel:
    """A section of `report.html`: a text, a table, a drawing, or several of these in this order."""

    title: str
    """Heading of the section."""
    text: str = ""
    """Markdown. HTML in it is shown as text, and images are left out."""
    table: Table | None = None
    """A table."""
    svg: str = ""
    """An SVG document. It is shown as an image, so scripts in it do not run and nothing is loaded."""
