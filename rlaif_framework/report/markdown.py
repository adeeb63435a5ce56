"""The first screen of a run's report as Markdown, for pull requests and notes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif_framework.report.cautions import CautionGroup
from rlaif_framework.report.leaderboard import Cell, Leaderboard

MARKS = {"better": " ▲", "worse": " ▼", "higher": " ↑", "lower": " ↓"}


def write_markdown(
    name: str, verdict: Sequence[str], leaderboard: Leaderboard, cautions: Sequence[CautionGroup]
) -> str:
    """Return the verdict, the leaderboard and the kinds of warnings, in which all texts stay texts."""
    lines = [f"# {escape(name)}", "", *(escape(sentence) for sentence in verdict), ""]
    if leaderboard.columns:
        titles = [column.title for column in leaderboard.columns]
        rows = [
            [policy, *(_show(column.cells.get(policy)) for column in leaderboard.columns)]
            for policy in leaderboard.policies
        ]
        totals = [column.total for column in leaderboard.columns]
        lines += make_table(["policy", *titles], [*rows, *([["whole run", *totals]] if any(totals) else [])])
        lines += [
            "",
            "▲ significantly better, ▼ significantly worse, ↑ ↓ significantly higher or lower (95 % intervals).",
        ]
    if cautions:
        lines += ["", "## Warnings", ""]
        for group in cautions:
            about = f": {', '.join(group.about)}" if group.about else ""
            text = group.texts[0] if len(group.texts) == 1 else f"{group.headline}{about} ({len(group.texts)})"
            lines.append(f"- {escape(text)}")
    return "\n".join(lines) + "\n"


def make_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, in whose cells all texts stay texts."""
    return [_row(titles), f"| {' | '.join(['---'] * len(titles))} |", *map(_row, rows)]


def escape(text: str) -> str:
    """Escape what Markdown and HTML give a meaning to, and keep the text on one line."""
    return re.sub(r"([\\`*_\[\]<>|~!#&])", r"\\\1", " ".join(text.split()))


def _show(cell: Cell | None) -> str:
    return "-" if cell is None else f"{cell.text} {cell.interval}".strip() + MARKS.get(cell.mark, "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"
