"""The report of a run: `report.json`, `report.html`, one page that needs no network, and `report.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rlaif_framework.contracts.panels import Panel
from rlaif_framework.errors import DataError
from rlaif_framework.files import write_atomic
from rlaif_framework.metrics.evaluation import SAMPLES, Evaluation
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.report.cards import CardFacts, write_cards
from rlaif_framework.report.cautions import Caution, CautionGroup, group_cautions
from rlaif_framework.report.dataset_cards import write_dataset_cards
from rlaif_framework.report.findings import describe_unanswered, find_cautions, summarise
from rlaif_framework.report.leaderboard import Cost, Costs, Leaderboard, build_leaderboard, sum_by_arm
from rlaif_framework.report.markdown import write_markdown
from rlaif_framework.report.page import percent, render_document, render_page
from rlaif_framework.report.published import compare_published
from rlaif_framework.report.run_charts import draw_run
from rlaif_framework.report.sample_data import Row, pack_samples
from rlaif_framework.report.verdict import write_verdict

SAMPLES_PATH = Path("evaluation/summary") / SAMPLES
"""Place of the samples in a run folder."""


class StepReport(BaseModel):
    """Cost and facts of one step of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reused: bool
    seconds: float
    peak_memory_bytes: int
    facts: dict[str, float | int | str]
    """Counts such as truncated prompts."""

    def find_number(self, name: str) -> float:
        """Return a number among the facts; 0 if the step does not record it."""
        found = self.facts.get(name, 0)
        return 0 if isinstance(found, str) else found


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
            warnings=[caution.text for caution in _find_all(evaluation, spec, steps)],
            evaluation=evaluation,
            steps=steps,
            environment=environment,
            panels=list(compare_published(spec, evaluation)),
        )

    def write(self, folder: Path) -> list[str]:
        """Write `report.html`, `report.json` and `report.md` into a run folder, and cards of models and labels.

        Returns:
            Notes about cards that people have edited, which stay as they are.
        """
        rows = list(read_samples(folder))
        facts = self._collect_card_facts()
        kept = [*write_cards(folder, facts), *write_dataset_cards(folder, facts)]
        write_atomic(folder / "report.md", self.render_markdown())
        write_atomic(folder / "report.json", self.model_dump_json(indent=1))
        write_atomic(folder / "report.html", self.render(rows))
        return [f"kept {card}, which has been edited; to write it again, delete it first" for card in kept]

    @classmethod
    def read(cls, folder: Path) -> RunReport:
        """Read the report of a finished run.

        Raises:
            DataError: The run is not finished, or the report is damaged.
        """
        path = folder / "report.json"
        if not path.exists():
            raise DataError(f"the run in {folder} is not finished: it has no {path.name}; run its spec again")
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error}") from error
        except ValidationError as error:
            raise DataError(f"{path} is damaged: {error.error_count()} values are wrong") from None

    def render(self, samples: Sequence[Row] = ()) -> str:
        """Render the page, which makes no external requests.

        Args:
            samples: The test prompts that can be browsed, as in `samples.jsonl`.
        """
        evaluation = self.evaluation
        return render_document(
            "report.html.j2",
            draw_run(evaluation),
            pack_samples(samples),
            spec=self.spec,
            verdict=write_verdict(evaluation),
            leaderboard=self._build_leaderboard(),
            cautions=self._group_warnings(),
            summary=self.summary,
            evaluation=evaluation,
            steps=self.steps,
            environment=self.environment,
            panels=self.panels,
        )

    def render_markdown(self) -> str:
        """Return the verdict, the leaderboard and the warnings as Markdown, for a pull request."""
        return write_markdown(
            str(self.spec["name"]), write_verdict(self.evaluation), self._build_leaderboard(), self._group_warnings()
        )

    def _collect_card_facts(self) -> CardFacts:
        cautions = _find_all(self.evaluation, self.spec, self.steps)
        steps = {step.name: step.facts for step in self.steps}
        return CardFacts(self.spec, self.evaluation, self._build_leaderboard(), cautions, self.environment, steps)

    def _build_leaderboard(self) -> Leaderboard:
        def add_up(number: Callable[[StepReport], float]) -> Cost:
            found = [(step.name, number(step)) for step in self.steps]
            arms = sum_by_arm(found, self.evaluation.arms)
            return Cost({arm: value for arm, value in arms.items() if value}, sum(value for _, value in found))

        costs = Costs(
            seconds=add_up(lambda step: step.seconds),
            tokens=add_up(lambda step: step.find_number("prompt_tokens") + step.find_number("generated_tokens")),
            dollars=add_up(lambda step: step.find_number("cost")),
        )
        return build_leaderboard(self.evaluation, costs)

    def _group_warnings(self) -> list[CautionGroup]:
        return group_cautions(_find_all(self.evaluation, self.spec, self.steps), self.warnings)

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


def _find_all(evaluation: Evaluation, spec: dict[str, Any], steps: Sequence[StepReport]) -> list[Caution]:
    return [
        *find_cautions(evaluation, spec),
        *(
            Caution("exploited reward", step.name.partition("/")[0], text)
            for step in steps
            for text in _find_alarms([step])
        ),
        *(Caution("run", "", text) for text in _find_unanswered(steps)),
    ]


def read_samples(folder: Path) -> Iterator[Row]:
    """Read the samples of a run folder; none if it evaluates no policies, or is older than they are."""
    path = folder / SAMPLES_PATH
    if path.exists() and path.stat().st_size:
        yield from (row for _, row in read_rows(path))


def _find_unanswered(steps: Iterable[StepReport]) -> Iterator[str]:
    for step in steps:
        if count := int(step.find_number("unanswered")):
            yield f"stage '{step.name}' {describe_unanswered(count)}"


def _find_alarms(steps: Iterable[StepReport]) -> Iterator[str]:
    for step in steps:
        if alarm := step.facts.get("alarm"):
            yield f"stage '{step.name}', {alarm}"
