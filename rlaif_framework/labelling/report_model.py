"""The content of the labeler report, from which the page is rendered and the JSON file beside it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rlaif_framework.labelling.loop import LabelRecord
from rlaif_framework.metrics.agreement import LabelerQuality
from rlaif_framework.metrics.calibration import Calibration, LengthBin
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.label_examples import LabelExample
from rlaif_framework.metrics.paired_comparison import PairedComparison
from rlaif_framework.report.page import percent
from rlaif_framework.report.published import show_published
from rlaif_framework.spec.model import PublishedConfig

PAPER_DOLLARS = {"AI in the paper (GPT-4, 2023)": 60.0, "human in the paper": 670.0}
"""Per 1,000 comparisons: $0.06 and $0.67 each (RLAIF 7, Cost)."""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column titles and rows."""


class LabelCost(BaseModel):
    """Cost of 1,000 comparisons."""

    prompt_tokens: float
    generated_tokens: float
    seconds: float
    dollars: float | None
    """None if the backend has no prices."""


class LabelerReport(BaseModel):
    """Measurements of one labeler. Labels copied from human annotations are left out of all of them."""

    kind: str
    labels: str
    """The file of its labels."""
    copied: int
    """Number of labels copied from human annotations."""
    quality: LabelerQuality
    high_confidence: Estimate | None
    """Agreement where human confidence is high."""
    high_confidence_slices: dict[str, Estimate]
    calibration: Calibration | None
    disagreement: Estimate | None
    """Fraction of comparisons on which the members of an ensemble disagree."""
    lengths: list[LengthBin]
    per_thousand: LabelCost
    record: LabelRecord
    uncertain: list[LabelExample]
    """The labels closest to one half."""
    disputed: list[LabelExample]
    """The labels on which the members of an ensemble disagree most."""


class PairsSummary(BaseModel):
    """Facts about the labelled pairs."""

    path: str
    comparisons: int
    skipped: int
    """Number of invalid rows."""
    with_human: int
    """Comparisons with a human preference."""
    ties: int
    """Comparisons that humans rate as a tie."""
    human_longer: Estimate | None
    """Fraction of comparisons in which humans prefer the longer response."""


class LabelReport(BaseModel):
    """The labeler report. The JSON file beside the page has the same content."""

    pairs: PairsSummary
    task: dict[str, Any]
    """The task's settings."""
    labelers: dict[str, LabelerReport]
    paired: list[PairedComparison]
    """Every two labelers on the same comparisons."""
    published: list[PublishedConfig] = []
    """Published results of the labelers: `agreement/NAME` and `same_position/NAME`."""
    paper_dollars: dict[str, float] = PAPER_DOLLARS
    summary: list[str] = []
    warnings: list[str] = []

    def describe(self) -> list[str]:
        """Return the findings as lines for a terminal."""
        return [*self.summary, *(f"warning: {text}" for text in self.warnings)]

    def published_rows(self, measure: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the source of each publication that has a measure of a labeler, and the value of each labeler."""
        for table in self.published:
            known = {name: table.results.get(f"{measure}/{name}") for name in self.labelers}
            if any(value is not None for value in known.values()):
                shown = ["-" if v is None else show_published(f"{measure}/{name}", v) for name, v in known.items()]
                yield table.source, shown

    def tables(self) -> Iterator[Table]:
        """Yield a table of the labelers, and one of the tests between every two of them."""
        rows: list[tuple[str, ...]] = []
        for name, x in self.labelers.items():
            cost = x.per_thousand
            rows.append(
                (
                    name,
                    percent(x.quality.agreement),
                    percent(x.quality.same_position),
                    percent(x.quality.unparsed),
                    f"{x.calibration.brier.value:.3f}" if x.calibration else "-",
                    f"{cost.prompt_tokens + cost.generated_tokens:,.0f}",
                    f"{cost.seconds:,.1f}",
                    "-" if cost.dollars is None else f"{cost.dollars:,.2f}",
                )
            )
        yield ("labeler", "agreement", "same position", "unparsed", "Brier", "tokens/1000", "s/1000", "$/1000"), rows
        tested = [pair for pair in self.paired if pair.p is not None]
        if tested:
            titles = ("first", "second", "difference", "only first right", "only second right", "comparisons")
            yield (*titles, "p", "p, Holm"), [_table_row(pair) for pair in tested]

    def _repr_html_(self) -> str:
        """Show the findings in a notebook."""
        from rlaif_framework.report.page import render_page

        count = f"{self.pairs.comparisons} comparisons of {self.pairs.path}, task {self.task.get('kind', '')}"
        return render_page(
            "cell.html.j2",
            title="Labeler report",
            subtitle=count,
            summary=self.summary,
            warnings=self.warnings,
            tables=list(self.tables()),
        )


def _table_row(pair: PairedComparison) -> tuple[str, ...]:
    return (
        pair.first,
        pair.second,
        f"{100 * (pair.difference or 0.0):+.1f} points",
        str(pair.first_only),
        str(pair.second_only),
        str(pair.count),
        f"{pair.p:.3g}",
        f"{pair.p_holm:.3g}",
    )
