"""The labeler report: how far to trust the labels, what they took, and which of them to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from heapq import nlargest, nsmallest
from pathlib import Path
from typing import Any

from rlaif_framework.data.pairs import PairsFile
from rlaif_framework.labelling.loop import Record
from rlaif_framework.labelling.rows import Labelled, read_labels
from rlaif_framework.metrics.agreement import Observation, measure_agreement, measure_observations, observe
from rlaif_framework.metrics.calibration import (
    HIGH_CONFIDENCE,
    measure_calibration,
    measure_disagreement,
    measure_human_length,
    measure_lengths,
)
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.paired_comparison import compare_labelers
from rlaif_framework.records.preferences import Comparison, Preference
from rlaif_framework.report.page import rate

PAPER_DOLLARS = {"AI in the paper (GPT-4, 2023)": 60.0, "human in the paper": 670.0}
"""Per 1,000 comparisons: $0.06 and $0.67 each (RLAIF 7, Cost)."""


TO_READ = 10


Measured = dict[str, Any]


def build_report(pairs: PairsFile, labels: Mapping[str, tuple[Record, Path]]) -> Measured:
    """Everything the report says, as plain JSON.

    Args:
        pairs: What was labelled.
        labels: For each labeler's name, the record of its work and its `labels.jsonl`.
    """
    observations: dict[str, Sequence[Observation]] = {}
    labelers: dict[str, Measured] = {}
    for name, (record, path) in labels.items():
        observations[name], unsure = _read_observations(path)
        disputed = _read_disputed(path) if any(x.votes for x in observations[name]) else []
        labelers[name] = _measure(observations[name], record)
        labelers[name] |= {"unsure": unsure, "disputed": disputed, "labels": str(path)}
    known = [x.known for x in next(iter(observations.values())) if x.known is not None]
    report = {
        "pairs": {
            "path": str(pairs.path),
            "comparisons": pairs.count,
            "skipped": pairs.skipped,
            "with_human": len(known),
            "ties": sum(value == 0.5 for value in known),
            "human_longer": _plain(measure_human_length(next(iter(observations.values())))),
        },
        "task": next(iter(labels.values()))[0].task["config"],
        "labelers": labelers,
        "paired": [asdict(pair) for pair in compare_labelers(observations)],
        "paper_dollars": PAPER_DOLLARS,
    }
    return report | {"summary": _summarise(report), "warnings": _find_warnings(report)}


def write_report(report: Measured, path: Path) -> None:
    """Write `path` and the same as JSON beside it."""
    from rlaif_framework.report.charts import draw_lengths, draw_reliability
    from rlaif_framework.report.page import render_page
    from rlaif_framework.store import write_atomic

    extra = {
        "slices": sorted({name for x in report["labelers"].values() for name in x["slices"]}),
        "confident": any(x["high_confidence"] for x in report["labelers"].values()),
        "reliability_chart": draw_reliability({n: x["calibration"] for n, x in report["labelers"].items()}),
        "lengths_chart": draw_lengths({n: x["lengths"] for n, x in report["labelers"].items()}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path.with_suffix(".json"), json.dumps(report, indent=1, ensure_ascii=False))
    write_atomic(path, render_page("labels.html.j2", **report, **extra))


def _read_observations(path: Path) -> tuple[list[Observation], list[Measured]]:
    """Observations of all labels, and the labels nearest to one half, in one pass that keeps no other text."""
    observations: list[Observation] = []

    def unsure() -> Iterator[Labelled]:
        for labelled in read_labels(path):
            observations.append(observe(*labelled))
            if labelled[1].probabilities is not None and min(labelled[1].probabilities) > 0:
                yield labelled

    nearest = nsmallest(TO_READ, unsure(), key=lambda labelled: abs((labelled[1].probabilities or (0, 0))[0] - 0.5))
    return observations, [_show(*labelled) for labelled in nearest]


def _read_disputed(path: Path) -> list[Measured]:
    """The labels on which the members of an ensemble are furthest apart."""

    def spread(labelled: Labelled) -> float:
        votes = [v.probabilities[0] for v in labelled[1].evidence.members if v.probabilities is not None]
        return max(votes) - min(votes) if votes else 0.0

    furthest = nlargest(TO_READ, (labelled for labelled in read_labels(path) if spread(labelled) > 0), key=spread)
    return [_show(*labelled) for labelled in furthest]


def _show(comparison: Comparison, preference: Preference) -> Measured:
    return {
        "id": comparison.id,
        "prompt": comparison.prompt.text,
        "responses": list(comparison.responses),
        "probabilities": preference.probabilities,
        "human": comparison.preference,
        "votes": {vote.labeler: vote.probabilities for vote in preference.evidence.members},
        "principle": next((ballot.principle for ballot in preference.evidence.orders if ballot.principle), None),
        "rationales": [
            [ballot.rationale, *ballot.rationales[1:]] for ballot in preference.evidence.orders if ballot.rationale
        ],
    }


def _measure(labels: Sequence[Observation], record: Record) -> Measured:
    observations = [x for x in labels if not x.copied]  # the others are the human labels themselves
    calibration = measure_calibration(observations)
    confident = [x for x in observations if x.confidence is not None and x.confidence >= HIGH_CONFIDENCE]
    return {
        "kind": record.labeler["config"]["kind"],
        **asdict(measure_observations(observations)),
        "copied": len(labels) - len(observations),
        "source_truncated": record.source_truncated,
        "responses_truncated": record.responses_truncated,
        "inconsistent": record.inconsistent,
        "high_confidence": _plain(measure_agreement(confident)),
        "high_confidence_slices": {n: asdict(s) for n, s in measure_observations(confident).slices.items()},
        "calibration": None if calibration is None else asdict(calibration),
        "disagreement": _plain(measure_disagreement(observations)),
        "lengths": [asdict(found) for found in measure_lengths(observations)],
        "per_thousand": {
            "prompt_tokens": 1000 * record.prompt_tokens / record.done,
            "generated_tokens": 1000 * record.generated_tokens / record.done,
            "seconds": 1000 * record.seconds / record.done,
            "dollars": 1000 * record.cost / record.done if record.cost else None,
        },
        "record": asdict(record),
    }


def _plain(estimate: Estimate | None) -> Measured | None:
    return None if estimate is None else asdict(estimate)


def _summarise(report: Measured) -> list[str]:
    lines = []
    for name, x in report["labelers"].items():
        known = (
            f"agrees with people in {rate(x['agreement'])}" if x["agreement"] else "has no human label to agree with"
        )
        if x["copied"]:
            known += f", beside the {x['copied']} that it handed out as its own labels"
        sure = f"; where they were confident, {rate(x['high_confidence'])}" if x["high_confidence"] else ""
        lines.append(f"{name} {known}{sure}")
        if x["same_position"]:
            first = x["first_when_same"]
            which = f"; of those, the first in {rate(first)}" if first else ""
            lines.append(f"{name} prefers the same position in both orders in {rate(x['same_position'])}{which}")
        if x["disagreement"]:
            lines.append(f"the members of {name} prefer different responses in {rate(x['disagreement'])}")
    for pair in report["paired"]:
        if pair["p_holm"] is not None and pair["p_holm"] < 0.05:
            better, worse = (pair["first"], pair["second"])[:: 1 if pair["difference"] > 0 else -1]
            lines.append(
                f"{better} agrees with people more than {worse}: by {100 * abs(pair['difference']):.1f} points, "
                f"p = {pair['p_holm']:.2g} after Holm"
            )
    undecided = [p for p in report["paired"] if p["p_holm"] is not None and p["p_holm"] >= 0.05]
    if undecided:
        lines.append(f"{len(undecided)} of {len(report['paired'])} pairs of labelers cannot be told apart (p >= 0.05)")
    return lines


def _find_warnings(report: Measured) -> list[str]:
    found = []
    if not report["pairs"]["with_human"]:
        found.append("no comparison has a human label: how good these labels are is not known")
    if report["pairs"]["skipped"]:
        found.append(f"{report['pairs']['skipped']} bad rows were left out")
    longer = report["pairs"]["human_longer"]
    for name, x in report["labelers"].items():
        agreement = x["agreement"]
        if agreement and agreement["low"] <= 0.5:
            found.append(f"'{name}' agrees with people no better than chance: {rate(agreement)}")
        elif agreement and longer and agreement["value"] <= max(longer["value"], 1 - longer["value"]):
            found.append(f"'{name}' agrees with people no better than length does: {rate(longer)} prefer the longer")
        if x["same_position"] and x["same_position"]["value"] >= 0.5:
            place = "first" if x["first_when_same"]["value"] > 0.5 else "second"
            found.append(f"'{name}' goes mostly by position, usually the {place}: {rate(x['same_position'])}")
        if x["label_token_mass"] and x["label_token_mass"]["value"] < 0.5:
            found.append(
                f"the answers of '{name}' are mostly no answers: its labels hold {x['label_token_mass']['value']:.0%} of the "
                f"probability"
            )
        if x["unparsed"] and x["unparsed"]["value"] > 0.05:
            found.append(f"'{name}' left comparisons without a readable answer: {rate(x['unparsed'])}")
        if x["record"]["refused"]:
            count, reason = x["record"]["refused"], x["record"]["refusal"]
            found.append(f"'{name}' was refused an answer for {count} comparisons, the first with: {reason}")
        if x["sampled"] and 0 < x["sampled"]["value"] < 1:
            found.append(
                f"'{name}' mixes the model's own probabilities with counts of written answers: the latter are "
                f"{rate(x['sampled'])}"
            )
        if x["inconsistent"]:
            found.append(f"'{name}' has no label for {x['inconsistent']} comparisons because both orders disagree")
        if x["source_truncated"]:
            found.append(f"'{name}' saw {x['source_truncated']} sources cut to fit into its model's context")
        if x["responses_truncated"]:
            found.append(
                f"'{name}' saw only the beginning of a response in {x['responses_truncated']} comparisons: it alone is "
                "longer than its model's context"
            )
    return found
