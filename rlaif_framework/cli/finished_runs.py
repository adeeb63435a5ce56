"""Commands that look at finished runs: runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.options import AsJson
from rlaif_framework.cli.printing import format_seconds, print_json, print_table
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.pipeline.run_list import ListedRun


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of run folders.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder: when they were started, their state, computing time, and win rates against sft."""
    from rlaif_framework.pipeline.run_list import list_runs

    found = list_runs(folder)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    if rows := [row for run in found.rows for row in _describe_run(run)]:
        print_table(("run", "started", "state", "time", "win rate against sft"), rows)
    else:
        print(escape_controls(f"no runs in {folder}"))
    for problem in found.problems:
        print(escape_controls(f"rlaif: not read: {problem.reason}"), file=sys.stderr)


def _describe_run(run: ListedRun) -> list[tuple[str, ...]]:
    """Return the rows of a run: one for each arm with a win rate, or a single one."""
    from rlaif_framework.report.page import rate

    started = "-" if run.started is None else run.started.astimezone().strftime("%Y-%m-%d %H:%M")
    state = run.state if run.stage is None else f"{run.state} at {run.stage}"
    rates = [f"{arm}: {rate(estimate)}" for arm, estimate in run.win_rates.items()] or ["-"]
    first = (run.name, started, state, format_seconds(run.seconds), rates[0])
    return [first, *(("", "", "", "", other) for other in rates[1:])]
