"""Print tables, JSON and sizes on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_framework.labelling.report_model import LabelReport


def _print_comparison(report: LabelReport) -> None:
    from rlaif_framework.labelling.findings import comparison_tables

    for head, rows in comparison_tables(report):
        print()
        _print_table(head, rows)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; cut to the terminal's width on a terminal, whole otherwise."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[").replace("\n", " ") for cell in row))
    width = None if sys.stdout.isatty() else 240
    Console(width=width, highlight=False).print(table)


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:.1f}M"


def _bytes(count: int | None) -> str:
    return "size unknown" if count is None else f"{count / 2**30:.2f} GiB"
