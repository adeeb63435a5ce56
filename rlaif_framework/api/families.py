"""Run a family of runs from Python, and use what its members made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaif_framework.api.finished import FinishedRun
from rlaif_framework.api.results import RunResult
from rlaif_framework.pipeline.families import FamilyRun, run_family
from rlaif_framework.pipeline.run_folder import default_store
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.report.family_report import PAGE, READING, FamilyReport
from rlaif_framework.spec.families import Family
from rlaif_framework.store import Store
from rlaif_framework.terminal import format_seconds


class FamilyResult:
    """The runs of a spec with `seeds` or `matrix`. A notebook shows their main numbers."""

    def __init__(self, run: FamilyRun) -> None:
        self._run = run

    @property
    def folder(self) -> Path:
        """The folder of the family, which has the run folders of the members."""
        return self._run.folder

    @property
    def report_path(self) -> Path:
        """The report of the family as an HTML page."""
        return self.folder / PAGE

    @cached_property
    def report(self) -> FamilyReport:
        """The main numbers of all members, with means over seeds."""
        return self._run.report()

    @cached_property
    def members(self) -> Mapping[str, RunResult]:
        """The members that are finished, by name."""
        return {
            name: RunResult(FinishedRun(self.folder / name, spec, self._run.manager))
            for name, spec in self._run.specs.items()
        }

    @property
    def failed(self) -> Mapping[str, str]:
        """The errors of the members that failed, by name."""
        return dict(self._run.failed)

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each member, as `pandas.DataFrame` takes them.

        The columns are `member`, `variant`, `state`, the keys of the matrix, `seed`, and the main numbers, such as
        `win_rate/rlaif-vs-sft`.
        """
        return [
            {
                "member": member.name,
                "variant": member.variant,
                "state": member.state,
                **member.choices,
                "seed": member.seed,
                **member.measures,
            }
            for member in self.report.members
        ]

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def __repr__(self) -> str:
        return "\n".join([f"family {self.report.name} in {self.folder}", *self.report.describe()])


def execute_family(
    family: Family,
    out: Path | None,
    store: Path | None,
    manager: PluginManager,
    progress: Progress,
    show: Callable[[Path], str] = str,
) -> FamilyResult:
    """Run a family, and print its tables and the path of its report, as `show` writes it."""
    start = progress.clock()
    run = run_family(family, out, Store(store or default_store()), manager, progress)
    result = FamilyResult(run)
    if run.is_main:
        for title, head, rows in result.report.list_tables():
            progress.print(f"\n{title}")
            progress.print_table(head, rows)
        if result.report.measures:
            progress.print(f"\n{READING}")
        for line in result.report.describe():
            progress.print(line)
        took = format_seconds(progress.clock() - start)
        progress.print(f"finished in {took}: {len(family.members)} members, of which {len(run.failed)} failed")
        progress.print(f"report: {show(result.report_path)}")
    return result
