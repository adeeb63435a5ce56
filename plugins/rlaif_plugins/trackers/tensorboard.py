"""Write a run as TensorBoard events to the run folder: metrics, settings, samples and results."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from rlaif_framework import Component, Context, TrackerConfig, hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from rlaif_framework import StepInfo, Table, TrackedRun


class TensorboardConfig(TrackerConfig):
    """Write the run as TensorBoard events to the run folder; `tensorboard --logdir` shows them."""

    kind: Literal["tensorboard"] = "tensorboard"
    rewinds: ClassVar[bool] = True


class TensorboardTracker:
    """A folder of events for each stage, for its tables, for the settings and for the results."""

    def __init__(self, config: TensorboardConfig, context: Context) -> None:
        self.writers: dict[str, SummaryWriter] = {}
        """The open files by the name of the step."""

    def run_started(self, run: TrackedRun) -> None:
        """Write the settings of the spec, once for each tracked run."""
        self.folder = run.folder / "tensorboard"
        settings = self._replace("settings", keep=run.resumed)
        if settings is not None:
            text = json.dumps(run.settings, indent=1, ensure_ascii=False)
            settings.add_text("spec", "\n".join(f"    {line}" for line in text.splitlines()))  # a block of code
            settings.close()

    def stage_started(self, step: StepInfo, resumed_at: int) -> None:
        """Remove the events after the step that a stage resumes from."""
        if resumed_at:
            self._writer(step, resumed_at)
        else:  # events of an attempt that had no checkpoint yet
            shutil.rmtree(self.folder / _name_folder(step), ignore_errors=True)

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        writer = self._writer(step)
        for name, value in metrics.items():
            writer.add_scalar(name, value, number)

    def stage_finished(self, step: StepInfo) -> None:
        """Close the file of a stage."""
        writer = self.writers.pop(step.name, None)
        if writer is not None:
            writer.close()

    def table_logged(self, step: StepInfo, table: Table) -> None:
        """Write a table as text, in a folder of its own: events of the stage must not be purged for it."""
        writer = self._replace(f"texts/{_name_folder(step)}/{table.name}")
        assert writer is not None
        writer.add_text(table.name, "\n".join(_format_table(table)))
        writer.close()

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Write the results in place of those of an earlier evaluation."""
        writer = self._replace("results")
        assert writer is not None
        for name, value in results.items():
            writer.add_scalar(name, value)
        writer.close()

    def run_finished(self, error: BaseException | None) -> None:
        """Close the files that an error left open."""
        for name in list(self.writers):
            self.writers.pop(name).close()

    def _replace(self, name: str, keep: bool = False) -> SummaryWriter | None:
        """Return a writer of a new folder of events; None if there is one that should be kept."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.folder / name
        if keep and folder.exists():
            return None
        shutil.rmtree(folder, ignore_errors=True)
        return SummaryWriter(folder)

    def _writer(self, step: StepInfo, resumed_at: int = 0) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if step.name not in self.writers:
            # TensorBoard ignores older events from `purge_step` on: those after the last checkpoint.
            self.writers[step.name] = SummaryWriter(self.folder / _name_folder(step), purge_step=resumed_at + 1)
        return self.writers[step.name]


def _name_folder(step: StepInfo) -> str:
    # The name depends on the key, so a changed spec gets a new folder.
    return f"{step.name.replace('/', '-')}/{step.key[:8]}"


def _format_table(table: Table) -> Iterable[str]:
    """Yield the lines of a table in Markdown, in whose cells all texts stay texts."""
    yield f"| {' | '.join(map(_escape, table.columns))} |"
    yield f"|{' --- |' * len(table.columns)}"
    for row in table.rows:
        yield f"| {' | '.join('' if cell is None else _escape(str(cell)) for cell in row)} |"


def _escape(text: str) -> str:
    """Return a text without characters that Markdown or HTML give a meaning to; line breaks stay."""
    plain = re.sub(r"[^\w\s.,]|_", lambda found: f"&#{ord(found[0])};", text)
    return "<br>".join(plain.splitlines())


@hookimpl
def rlaif_trackers() -> Iterable[Component]:
    """Offer the tracker."""
    return [Component("tensorboard", TensorboardConfig, "rlaif_plugins.trackers.tensorboard:TensorboardTracker")]
