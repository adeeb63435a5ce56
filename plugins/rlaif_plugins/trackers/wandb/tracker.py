"""Log a run to Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import wandb

from rlaif_framework import Context, SpecError, StepInfo, Table, TrackedRun
from rlaif_plugins.trackers.wandb import WandbConfig


class WandbTracker:
    """Metrics under the names of their stages, tables, and results in the summary."""

    def __init__(self, config: WandbConfig, context: Context) -> None:
        self.config = config
        self.charted: set[str] = set()
        """Names of the stages whose metrics have a step of their own."""

    def run_started(self, run: TrackedRun) -> None:
        """Create or continue the run, with the settings of the spec as its config.

        Raises:
            SpecError: The folder is in the run folder, which later runs would refuse for its links.
        """
        folder = Path(self.config.folder or os.environ.get("WANDB_DIR") or ".")
        if folder.resolve().is_relative_to(run.folder.resolve()):
            raise SpecError(f"its folder {folder} is in the run folder, where it would make links; change 'folder'")
        if self.config.mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which would be sent
        settings = wandb.Settings(
            console="off",  # rlaif prints
            silent=True,
            save_code=False,
            disable_git=True,  # the address of the remote may have a password
            x_save_requirements=False,
        )
        self.run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            mode=self.config.mode,
            dir=self.config.folder,
            id=run.id,
            # Offline, Weights & Biases writes another folder with the same id, which `wandb sync` joins.
            resume="allow" if self.config.mode == "online" else None,
            reinit="create_new",  # a run that the user's code has open goes on
            name=run.name,
            group=run.group,
            config=dict(run.settings),
            allow_val_change=True,
            settings=settings,
        )

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a training step, against the number of the step in their stage."""
        # The step of Weights & Biases grows over the whole run, so stages have one of their own.
        axis = f"{step.name}/step"
        if step.name not in self.charted:
            self.charted.add(step.name)
            self.run.define_metric(f"{step.name}/*", step_metric=axis)
        self.run.log({axis: number, **{f"{step.name}/{name}": value for name, value in metrics.items()}})

    def table_logged(self, step: StepInfo, table: Table) -> None:
        """Log a table of texts."""
        rows = wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows], allow_mixed_types=True)
        self.run.log({f"{step.name}/{table.name}": rows})

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Write the results to the summary, and show the report."""
        self.run.summary.update(dict(results))
        self.run.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)})

    def run_finished(self, error: BaseException | None) -> None:
        """Finish the run, as failed if an error stopped it."""
        self.run.finish(exit_code=0 if error is None else 1)
