"""Print tables and JSON, and format sizes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_framework.labelling.report_model import LabelReport


def print_comparison(report: LabelReport) -> None:
    """Print the tables of a comparison of labelers."""
    from rlaif_framework.labelling.findings import comparison_tables

    for head, rows in comparison_tables(report):
        print()
        print_table(head, rows)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, wrapped to the width of a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        # rich would interpret `[text]` as markup.
        table.add_row(*(cell.replace("[", "\\[").replace("\n", " ") for cell in row))
    # Without a terminal, rich would wrap at 80 columns, and the cells of a log could not be searched.
    width = None if sys.stdout.isatty() else 240
    Console(width=width, highlight=False).print(table)


def format_count(count: int | None) -> str:
    """Format a number of parameters in millions."""
    return "unknown" if count is None else f"{count / 1e6:.1f}M"


def format_bytes(count: int | None) -> str:
    """Format a number of bytes in GiB."""
    return "size unknown" if count is None else f"{count / 2**30:.2f} GiB"
