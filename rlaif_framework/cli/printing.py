"""Print tables and JSON, and format sizes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlaif_framework.terminal import escape_controls, escape_json

if TYPE_CHECKING:
    from rlaif_framework.labelling.report_model import LabelReport


def print_comparison(report: LabelReport) -> None:
    """Print the tables of a comparison of labelers."""
    for head, rows in report.tables():
        print()
        print_table(head, rows)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(escape_json(json.dumps(value, indent=1, ensure_ascii=False)))


def print_yaml(value: Any) -> None:
    """Print a value as YAML."""
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    if escape_controls(text) != text:  # in ASCII, YAML escapes all control characters
        text = yaml.safe_dump(value, sort_keys=False, width=120)
    print(text, end="")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, wrapped to the width of a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        # As `Text`: rich would interpret `[text]` in strings as markup.
        table.add_row(*(Text(escape_controls(cell.replace("\n", " "))) for cell in row))
    # Without a terminal, rich would wrap at 80 columns, and the cells of a log could not be searched.
    width = None if sys.stdout.isatty() else 240
    Console(width=width, highlight=False).print(table)


def format_count(count: int | None) -> str:
    """Format a number of parameters in millions."""
    return "unknown" if count is None else f"{count / 1e6:.1f}M"


def format_bytes(count: int | None) -> str:
    """Format a number of bytes in GiB."""
    return "size unknown" if count is None else f"{count / 2**30:.2f} GiB"
