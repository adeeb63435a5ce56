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

    from rlaif_framework.data.mappings import YamlDumper

    text = yaml.dump(value, Dumper=YamlDumper, sort_keys=False, allow_unicode=True, width=120)
    if escape_controls(text) != text:  # in ASCII, YAML escapes all control characters
        text = yaml.dump(value, Dumper=YamlDumper, sort_keys=False, width=120)
    print(text, end="")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, wrapped to the width of a terminal."""
    from rich.console import Console

    from rlaif_framework.progress import LOG_WIDTH, build_table

    width = None if sys.stdout.isatty() else LOG_WIDTH
    Console(width=width, highlight=False).print(build_table(head, rows))


def format_count(count: int | None) -> str:
    """Format a number of parameters in millions."""
    return "unknown" if count is None else f"{count / 1e6:.1f}M"


def format_bytes(count: int | None) -> str:
    """Format a number of bytes in GiB."""
    return "size unknown" if count is None else f"{count / 2**30:.2f} GiB"


def format_size(count: int) -> str:
    """Format the size of files in the largest fitting unit: `512 B`, `3.4 MiB`."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
