"""Write all metrics as TensorBoard events to the run folder, with the lifecycle hooks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_framework import hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from rlaif_framework import RunInfo, StepInfo

NAME = "tensorboard"


def events_folder(run: RunInfo, step: StepInfo) -> Path:
    """Return the folder of a step's events. Its name depends on the key, so a changed spec gets a new one."""
    return run.folder / NAME / step.name.replace("/", "-") / step.key[:8]


def _writer(run: RunInfo, step: StepInfo, resumed_at: int = 0) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    # In the run's notes, since plugins are modules and several runs may share the process.
    open_writers = run.notes.setdefault(NAME, {})
    if step.key not in open_writers:
        # TensorBoard ignores older events from `purge_step` on: those after the last checkpoint.
        open_writers[step.key] = SummaryWriter(events_folder(run, step), purge_step=resumed_at + 1)
    return open_writers[step.key]  # type: ignore[no-any-return]


def _write(writer: SummaryWriter, number: int, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        writer.add_scalar(name, value, number)


@hookimpl
def rlaif_stage_started(run: RunInfo, step: StepInfo, resumed_at: int) -> None:
    """Delete the events after the step that a stage resumes from."""
    if resumed_at:
        _writer(run, step, resumed_at)
    else:  # events of an attempt that had no checkpoint yet
        shutil.rmtree(events_folder(run, step), ignore_errors=True)


@hookimpl
def rlaif_step_logged(run: RunInfo, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
    """Write the metrics of a step."""
    _write(_writer(run, step), number, metrics)


@hookimpl
def rlaif_stage_finished(run: RunInfo, step: StepInfo, cached: bool) -> None:
    """Write the metrics of a reused stage, unless an earlier run in this folder did, and close the file."""
    from rlaif_framework.contracts import read_metrics

    if cached and not events_folder(run, step).exists():
        for row in read_metrics(run.artefact(step)):
            _write(_writer(run, step), int(row["step"]), {k: v for k, v in row.items() if k != "step"})
    writer = run.notes.get(NAME, {}).pop(step.key, None)
    if writer is not None:
        writer.close()


@hookimpl
def rlaif_run_finished(run: RunInfo) -> None:
    """Close the files that an error left open."""
    for writer in run.notes.pop(NAME, {}).values():
        writer.close()
