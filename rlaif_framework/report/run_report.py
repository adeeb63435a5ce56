"""The report of a run: `report.json`, and `report.html`, one page that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rlaif_framework.contracts.panels import Panel
from rlaif_framework.files import write_atomic
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.report.charts import draw_curves, draw_lengths, draw_reliability, draw_wins
from rlaif_framework.report.findings import describe_unanswered, find_warnings, summarise
from rlaif_framework.report.page import percent, render_page
from rlaif_framework.report.published import compare_published


class StepReport(BaseModel):
    """Cost and facts of one step of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reused: bool
    seconds: float
    peak_memory_bytes: int
    facts: dict[str, float | int | str]
    """Counts such as truncated prompts."""


class RunReport(BaseModel):
    """The measurements of a run, and the findings that follow from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: dict[str, Any]
    """The resolved spec."""
    summary: list[str]
    """One sentence for each finding."""
    warnings: list[str]
    """Reasons to doubt a number."""
    evaluation: Evaluation
    steps: list[StepReport]
    environment: dict[str, Any]
    """Versions and hardware."""
    panels: list[Panel] = []
    """Further sections: published results, and what plugins add."""

    @classmethod
    def build(
        cls, spec: dict[str, Any], evaluation: Evaluation, steps: list[StepReport], environment: dict[str, Any]
    ) -> RunReport:
        """Create a report, with the findings of its evaluation."""
        return cls(
            spec=spec,
            summary=summarise(evaluation),
            warnings=[*find_warnings(evaluation, spec), *_find_alarms(steps), *_find_unanswered(steps)],
            evaluation=evaluation,
            steps=steps,
            environment=environment,
            panels=list(compare_published(spec, evaluation)),
        )

    def write(self, folder: Path) -> None:
        """Write both files into a run folder."""
        write_atomic(folder / "report.json", self.model_dump_json(indent=1))
        write_atomic(folder / "report.html", self.render())

    @classmethod
    def read(cls, folder: Path) -> RunReport:
        """Read the report of a finished run."""
        return cls.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))

    def render(self) -> str:
        """Render the page, which has no scripts and makes no external requests."""
        arms = self.evaluation.arms
        rewards = {name: arm.reward for name, arm in arms.items() if arm.reward is not None}
        return render_page(
            "report.html.j2",
            spec=self.spec,
            summary=self.summary,
            warnings=self.warnings,
            evaluation=self.evaluation,
            steps=self.steps,
            environment=self.environment,
            panels=self.panels,
            charts={name: draw_curves(arm) for name, arm in arms.items()},
            wins_chart=draw_wins(self.evaluation.wins),
            reliability_chart=draw_reliability({name: reward.calibration for name, reward in rewards.items()}),
            lengths_chart=draw_lengths({name: reward.lengths for name, reward in rewards.items()}),
        )

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        evaluation = self.evaluation
        corrected = any(w.corrected for w in evaluation.wins)
        wins = [
            (
                w.first,
                w.second,
                percent(w.rate),
                percent(w.length_adjusted),
                *([percent(w.corrected.rate) if w.corrected else "-"] if corrected else []),
                str(w.ties),
                evaluation.labelers[w.judge].title,
            )
            for w in evaluation.wins
        ]
        more = ["corrected by human labels"] if corrected else []
        head = ("first", "second", "win rate of the first", "length-adjusted", *more, "ties", "judge")
        size = f"{evaluation.prompts} test prompts, {evaluation.comparisons} validation comparisons"
        return render_page(
            "cell.html.j2",
            title=f"Run {self.spec['name']}",
            subtitle=size,
            summary=self.summary,
            warnings=self.warnings,
            tables=[(head, wins)] if wins else [],
        )

    def describe(self) -> list[str]:
        """Return the findings as lines for a terminal."""
        return [*self.summary, *(f"warning: {text}" for text in self.warnings)]


def _find_unanswered(steps: Iterable[StepReport]) -> Iterator[str]:
    for step in steps:
        if count := int(step.facts.get("unanswered", 0)):
            yield f"stage '{step.name}' {describe_unanswered(count)}"


def _find_alarms(steps: Iterable[StepReport]) -> Iterator[str]:
    for step in steps:
        if alarm := step.facts.get("alarm"):
            yield f"stage '{step.name}', {alarm}"
