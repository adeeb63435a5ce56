"""Commands that look at finished runs: runs and report."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.options import AsJson, PluginFiles, TrustLocal
from rlaif_framework.cli.printing import print_json, print_table
from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.terminal import escape_controls, format_seconds

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


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs or families.")],
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """Write the reports and the cards of finished runs again, from their artefacts, and print the pages' paths.

    The files are report.html, report.json and report.md, and README.md beside models and labels, which is kept if it
    has been edited. Of a family, the reports of its members and its own are written; its numbers need the data of the
    runs.
    """
    from rich.console import Console

    from rlaif_framework.progress import Progress

    with stdout_to_stderr():
        from rlaif_framework.pipeline.reporting import rebuild_report

        manager, progress = load_plugins(plugin, trust_local), Progress(Console(stderr=True))
        pages = [page for run in runs for page in rebuild_report(run, manager, progress)]
    for page in pages:
        print(escape_controls(os.path.realpath(page)))


def _describe_run(run: ListedRun) -> list[tuple[str, ...]]:
    """Return the rows of a run: one for each arm with a win rate, or a single one."""
    from rlaif_framework.report.page import rate

    started = "-" if run.started is None else run.started.astimezone().strftime("%Y-%m-%d %H:%M")
    state = run.state if run.stage is None else f"{run.state} at {run.stage}"
    rates = [f"{arm}: {rate(estimate)}" for arm, estimate in run.win_rates.items()] or ["-"]
    first = (run.name, started, state, format_seconds(run.seconds), rates[0])
    return [first, *(("", "", "", "", other) for other in rates[1:])]
