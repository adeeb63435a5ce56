"""The report of a family of runs: `family.json`, and `family.html`, one page that needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from rlaif_framework.files import read_own, write_atomic
from rlaif_framework.metrics.estimates import Estimate, adjust_holm
from rlaif_framework.metrics.seeds import Measure, Measured, SeedDifference, SeedMean, average_seeds, compare_seeds
from rlaif_framework.report.family_charts import draw_family
from rlaif_framework.report.page import render_document, render_page
from rlaif_framework.report.published import explain_published, show_published
from rlaif_framework.report.run_charts import LoggedMetric

FAMILY, PAGE = "family.json", "family.html"
"""Names of the files."""

LARGEST = 2**26
"""Maximum size of a report that is read, in bytes."""

JUDGED = ", judged by "
"""Before the judge in the title of a measure."""

READING = (
    "Each line has the value of every seed and their mean, with two 95 % intervals. 'other prompts': how far the mean "
    "of these trained policies could move with other prompts; the responses of all seeds to a prompt count as one. "
    "'other seeds': how far the mean could move if everything was trained again with other seeds, on these prompts; "
    "Student's t over the seeds, three or more. Neither includes the other. Differences are paired by seed and prompt."
)


class FamilyMember(BaseModel):
    """One run of a family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[^/\x00.][^/\x00]*$")]
    """Its name, and that of its run folder."""
    variant: str
    """Name that members which differ by their seed have in common."""
    seed: int
    choices: dict[str, str]
    """What it has in place of each key of the matrix and `seed`, as text."""
    state: Literal["finished", "failed", "not finished"] = "not finished"
    error: str | None = None
    """Why it failed."""
    measures: dict[str, float] = {}
    """Its main numbers by name."""
    published: dict[str, float] = {}
    """Published results by name."""


class VariantMeasure(BaseModel):
    """One number of a variant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    mean: SeedMean
    difference: SeedDifference | None = None
    """The difference from the first variant; None for the first one, and without a seed in common."""
    published: float | None = None
    """The published result; None if there is none."""
    p_holm: float | None = None
    """The p-value of the difference, adjusted for the number of variants by Holm's method."""


class FamilyMeasure(BaseModel):
    """One number of all variants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As in the results that trackers get, such as `win_rate/rlaif-vs-sft`."""
    title: str
    is_rate: bool
    variants: list[VariantMeasure]
    """Those in which it was measured."""


Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, column titles and rows."""


class FamilyReport(BaseModel):
    """The runs of a family, and their main numbers with means over seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    spec: dict[str, Any]
    """The spec before it is expanded."""
    members: list[FamilyMember]
    measures: list[FamilyMeasure] = []
    notes: list[str] = []
    """What could not be computed, and why."""
    published: list[str] = []
    """Where the published results are from."""

    @classmethod
    def build(
        cls,
        name: str,
        spec: Mapping[str, Any],
        members: list[FamilyMember],
        found: Mapping[str, Sequence[Measure]],
        published: Sequence[str] = (),
    ) -> FamilyReport:
        """Compute means over seeds, and the difference of each variant from the first one.

        Args:
            name: Name of the family.
            spec: Its spec as plain JSON.
            members: Its members.
            found: What was measured, by the name of the member.
            published: Where the published results of the members are from.
        """
        own = {member: {measure.name: measure.measured.value for measure in rows} for member, rows in found.items()}
        members = [member.model_copy(update={"measures": own.get(member.name, {})}) for member in members]
        titles = {measure.name: measure for rows in found.values() for measure in rows}
        measures = [_compare_variants(measure, members, found) for measure in titles.values()]
        notes = list(_list_notes(measures))
        return cls(
            name=name, spec=dict(spec), members=members, measures=measures, notes=notes, published=list(published)
        )

    @property
    def failed(self) -> list[FamilyMember]:
        """The members that failed."""
        return [member for member in self.members if member.state == "failed"]

    def write(self, folder: Path, curves: Mapping[str, Sequence[LoggedMetric]]) -> None:
        """Write both files into the folder of the family.

        Args:
            folder: The folder.
            curves: As for `render`.
        """
        write_atomic(folder / FAMILY, self.model_dump_json(indent=1))
        write_atomic(folder / PAGE, self.render(curves))

    @classmethod
    def read(cls, folder: Path) -> FamilyReport:
        """Read the report of a family.

        Raises:
            DataError: It cannot be read, or is damaged.
        """
        return read_own(cls, folder / FAMILY, LARGEST, "rerun the spec in the same folder to write it again")

    def render(self, curves: Mapping[str, Sequence[LoggedMetric]] = {}) -> str:
        """Render the page, which makes no external requests.

        Args:
            curves: The training metrics of each finished member, by its name.
        """
        charts = {"training": list(draw_family({member.name: member.variant for member in self.members}, curves))}
        tables = self.list_tables()
        contents = _shorten_titles([title for title, _, _ in tables])
        return render_document(
            "family.html.j2", charts, report=self, reading=self._explain(), tables=tables, contents=contents
        )

    def _explain(self) -> str:
        """Explain the columns of the tables."""
        return " ".join([READING, *map(explain_published, self.published)])

    def list_tables(self) -> list[Table]:
        """Return a table for each measure, with a row for each variant and a column for each seed.

        If there is one variant only, measures of several arms that differ by the arm only are in one table.
        """
        if len({member.variant for member in self.members}) > 1:
            return [_make_table(measure) for measure in self.measures]
        joined: dict[tuple[str, tuple[str, ...]], list[tuple[str, ...]]] = {}
        for measure in self.measures:
            arm = measure.name.rpartition("/")[2].partition("-vs-")[0]
            title, (_, *head), ((_, *cells),) = _make_table(measure)
            joined.setdefault((_leave_out(title, arm), ("arm", *head)), []).append((arm, *cells))
        return [(title, head, rows) for (title, head), rows in joined.items()]

    def describe(self) -> list[str]:
        """Return notes and failures as lines for a terminal."""
        failed = [f"FAILED: member '{member.name}': {member.error}" for member in self.failed]
        return [*(f"note: {note}" for note in self.notes), *failed]

    def _repr_html_(self) -> str:
        """Show the tables in a notebook."""
        return render_page(
            "cell.html.j2",
            title=f"Family {self.name}",
            subtitle=f"{len(self.members)} members",
            summary=[*self.notes, self._explain()],
            warnings=[f"member '{member.name}' failed: {member.error}" for member in self.failed],
            tables=[((title, *head[1:]), rows) for title, head, rows in self.list_tables()],
        )


def _shorten_titles(titles: Sequence[str]) -> list[str]:
    """Shorten the titles of measures for the contents: judges without settings, and none if there is only one."""
    parts = [title.partition(JUDGED) for title in titles]
    several = len({judge for _, _, judge in parts if judge}) > 1
    return [f"{name}, {judge.partition(' (')[0]}" if judge and several else name for name, _, judge in parts]


def _compare_variants(
    measure: Measure, members: Sequence[FamilyMember], found: Mapping[str, Sequence[Measure]]
) -> FamilyMeasure:
    measured = {(name, row.name): row.measured for name, rows in found.items() for row in rows}
    variants: dict[str, dict[int, Measured]] = {}
    for member in members:
        if (member.name, measure.name) in measured:
            variants.setdefault(member.variant, {})[member.seed] = measured[member.name, measure.name]
    published = {
        member.variant: member.published[measure.name] for member in members if measure.name in member.published
    }
    first, *others = variants
    differences = {name: compare_seeds(variants[name], variants[first]) for name in others}
    tested = {name: found.p for name, found in differences.items() if found is not None and found.p is not None}
    adjusted = dict(zip(tested, adjust_holm(list(tested.values())), strict=True))
    return FamilyMeasure(
        name=measure.name,
        title=measure.title,
        is_rate=measure.is_rate,
        variants=[
            VariantMeasure(
                variant=name,
                mean=average_seeds(seeds, measure.is_rate),
                difference=differences.get(name),
                published=published.get(name),
                p_holm=adjusted.get(name),
            )
            for name, seeds in variants.items()
        ],
    )


def _list_notes(measures: Sequence[FamilyMeasure]) -> Iterator[str]:
    """Yield each reason why something could not be computed, with the measures that it is about."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for measure in measures:
        for variant in measure.variants:
            for reason in variant.mean.missing:
                reasons.setdefault(reason, {}).setdefault(measure.title, []).append(variant.variant)
    counts = {measure.title: len(measure.variants) for measure in measures}
    for reason, about in reasons.items():
        if {title: len(variants) for title, variants in about.items()} == counts:
            yield f"{reason}: all measures"
            continue
        names = (
            title if len(variants) == counts[title] else f"{title} ({', '.join(variants)})"
            for title, variants in about.items()
        )
        yield f"{reason}: {'; '.join(names)}"


def _leave_out(title: str, arm: str) -> str:
    """Return the title of a measure without the arm: `win rate against sft` for `win rate of rlaif against sft`."""
    about, judged, judge = title.partition(JUDGED)
    places = [found.span() for found in re.finditer(rf" of {re.escape(arm)}(?= |$)", about)]
    start, end = places[-1] if places else (len(about), len(about))
    return about[:start] + about[end:] + judged + judge


def _make_table(measure: FamilyMeasure) -> Table:
    seeds = list(dict.fromkeys(seed for variant in measure.variants for seed in variant.mean.seeds))
    head = ["variant", *(f"seed {seed}" for seed in seeds), "mean", "other prompts", "other seeds"]
    several = len(measure.variants) > 1
    published = any(variant.published is not None for variant in measure.variants)
    if published:
        head.insert(1, "published")
    if several:
        head += [f"minus {measure.variants[0].variant}", "other prompts", "other seeds", "p (Holm)"]
    rows = []
    for variant in measure.variants:
        mean = variant.mean
        cells = [_show(measure, mean.seeds.get(seed)) for seed in seeds]
        cells += [_show(measure, mean.value), _interval(measure, mean.over_prompts)]
        cells += [_interval(measure, mean.over_seeds)]
        if several:
            cells += _describe_difference(measure, variant)
        known = [_show_published(measure, variant)] if published else []
        rows.append((variant.variant, *known, *cells))
    return measure.title, tuple(head), rows


def _describe_difference(measure: FamilyMeasure, variant: VariantMeasure) -> list[str]:
    found = variant.difference
    if found is None:
        return ["-"] * 4
    p = "-" if variant.p_holm is None else f"{variant.p_holm:.2g}"
    intervals = [_interval(measure, found.over_prompts, "+"), _interval(measure, found.over_seeds, "+")]
    return [_show(measure, found.value, "+"), *intervals, p]


def _show_published(measure: FamilyMeasure, variant: VariantMeasure) -> str:
    return "-" if variant.published is None else show_published(measure.name, variant.published)


def _show(measure: FamilyMeasure, value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{100 * value:{sign}.1f} %" if measure.is_rate else f"{value:{sign}.3g}"


def _interval(measure: FamilyMeasure, estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return "not computed"
    if measure.is_rate:
        return f"[{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"
    return f"[{estimate.low:{sign}.3g}, {estimate.high:{sign}.3g}]"
