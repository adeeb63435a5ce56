"""Build the labeler report: quality, bias, calibration and cost of labels, and examples of them to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest
from pathlib import Path

from rlaif_framework.data.pairs_file import PairsFile
from rlaif_framework.files import write_atomic
from rlaif_framework.labelling.findings import find_cautions, summarise
from rlaif_framework.labelling.loop import LabelRecord
from rlaif_framework.labelling.report_model import LabelCost, LabelerReport, LabelReport, PairsSummary
from rlaif_framework.labelling.rows import read_labels
from rlaif_framework.labelling.samples import read_samples
from rlaif_framework.metrics.agreement import Observation, measure_agreement, measure_observations, observe
from rlaif_framework.metrics.calibration import (
    HIGH_CONFIDENCE,
    measure_calibration,
    measure_disagreement,
    measure_human_length,
    measure_lengths,
)
from rlaif_framework.metrics.label_examples import LabelExample, find_uncertain
from rlaif_framework.metrics.paired_comparison import compare_labelers
from rlaif_framework.records.preferences import Labelled
from rlaif_framework.report.cautions import group_cautions
from rlaif_framework.spec.model import PublishedConfig

EXAMPLES = 10
"""Number of labels that the report shows as examples."""


def build_report(
    pairs: PairsFile, labels: Mapping[str, tuple[LabelRecord, Path]], published: Sequence[PublishedConfig] = ()
) -> LabelReport:
    """Measure the labels of one or more labelers.

    Args:
        pairs: The labelled pairs.
        labels: For each labeler's name, its record and its `labels.jsonl`.
        published: Published results to show beside theirs.
    """
    observations: dict[str, Sequence[Observation]] = {}
    labelers: dict[str, LabelerReport] = {}
    for name, (record, path) in labels.items():
        observations[name], uncertain = _read_observations(path)
        labelers[name] = _measure(observations[name], record, path, uncertain)
    # All labelers have labelled the same pairs, so any of them has all human preferences.
    first = next(iter(observations.values()))
    gold = [x.gold for x in first if x.gold is not None]
    report = LabelReport(
        pairs=PairsSummary(
            path=pairs.name,
            comparisons=pairs.count,
            skipped=pairs.skipped,
            with_human=len(gold),
            ties=sum(value == 0.5 for value in gold),
            human_longer=measure_human_length(first),
        ),
        task=next(iter(labels.values()))[0].task["config"],
        labelers=labelers,
        paired=compare_labelers(observations),
        published=list(published),
    )
    warnings = [caution.text for caution in find_cautions(report)]
    return report.model_copy(update={"summary": summarise(report), "warnings": warnings})


def write_report(report: LabelReport, labels: Mapping[str, Path], path: Path) -> None:
    """Write the page, and its numbers as JSON beside it.

    Args:
        report: The measurements.
        labels: For each labeler's name, its `labels.jsonl`, whose labels can be browsed.
        path: The page.
    """
    from rlaif_framework.report.charts import draw_lengths, draw_reliability
    from rlaif_framework.report.page import render_document
    from rlaif_framework.report.published import explain_published
    from rlaif_framework.report.sample_data import pack_samples

    labelers = report.labelers.items()
    charts = {
        "reliability": draw_reliability({n: x.calibration for n, x in labelers}, "labeler"),
        "lengths": draw_lengths({n: x.lengths for n, x in labelers}, "labeler"),
    }
    slices = sorted({name for _, x in labelers for name in x.quality.slices})
    confident = any(x.high_confidence for _, x in labelers)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path.with_suffix(".json"), report.model_dump_json(indent=1))
    page = render_document(
        "labels.html.j2",
        charts,
        pack_samples(list(read_samples(labels)), report.pairs.comparisons),
        **dict(report),
        cautions=group_cautions(find_cautions(report), report.warnings),
        slices=slices,
        confident=confident,
        published_rows=report.published_rows,
        explanation=explain_published("; ".join(table.source for table in report.published)),
    )
    write_atomic(path, page)


def _read_observations(path: Path) -> tuple[list[Observation], list[LabelExample]]:
    """Read the observations of all labels and the labels closest to one half, in one pass that keeps no other text."""
    observations: list[Observation] = []

    def observed() -> Iterator[Labelled]:
        for labelled in read_labels(path):
            observations.append(observe(*labelled))
            yield labelled

    uncertain = find_uncertain(observed(), EXAMPLES)
    return observations, uncertain


def _read_disputed(path: Path) -> list[LabelExample]:
    """Read the labels on which the members of an ensemble disagree most."""

    def disagreement(labelled: Labelled) -> float:
        votes = [v.probabilities[0] for v in labelled[1].evidence.members if v.probabilities is not None]
        return max(votes) - min(votes) if votes else 0.0

    disputed = (labelled for labelled in read_labels(path) if disagreement(labelled) > 0)
    return [LabelExample.read(labelled) for labelled in nlargest(EXAMPLES, disputed, key=disagreement)]


def _measure(
    labels: Sequence[Observation], record: LabelRecord, path: Path, uncertain: list[LabelExample]
) -> LabelerReport:
    # A copied label agrees with the human preference by definition.
    observations = [x for x in labels if not x.copied]
    confident = [x for x in observations if x.confidence is not None and x.confidence >= HIGH_CONFIDENCE]
    counts, total = record.counts, record.counts.comparisons
    return LabelerReport(
        kind=record.labeler["config"]["kind"],
        labels=str(path),
        copied=len(labels) - len(observations),
        quality=measure_observations(observations),
        high_confidence=measure_agreement(confident),
        high_confidence_slices=measure_observations(confident).slices,
        calibration=measure_calibration(observations),
        disagreement=measure_disagreement(observations),
        lengths=measure_lengths(observations),
        per_thousand=LabelCost(
            prompt_tokens=1000 * counts.prompt_tokens / total,
            generated_tokens=1000 * counts.generated_tokens / total,
            seconds=1000 * counts.seconds / total,
            dollars=1000 * counts.cost / total if counts.cost else None,
        ),
        record=record,
        uncertain=uncertain,
        disputed=_read_disputed(path) if any(x.votes for x in labels) else [],
    )
