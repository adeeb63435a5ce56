"""Read labelled comparisons as samples of the page, with the labels of each labeler as verdicts on two responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from rlaif_framework.labelling.rows import read_labels
from rlaif_framework.records.evaluated_prompts import EvaluatedPrompt, EvaluatedResponse, Verdict
from rlaif_framework.records.preferences import Labelled, Preference, PreferenceSource

MAX_SAMPLES = 10_000
"""Maximum number of samples of a page, so that memory does not grow with the number of comparisons."""
FIRST, SECOND = "first", "second"


def read_samples(labels: Mapping[str, Path], count: int = MAX_SAMPLES) -> Iterator[dict[str, Any]]:
    """Yield the first comparisons with the labels of all labelers, in the form of `samples.jsonl`.

    Args:
        labels: For each labeler's name, its `labels.jsonl`. All have the same comparisons.
        count: Maximum number of comparisons.
    """
    for labelled in islice(zip(*map(read_labels, labels.values()), strict=True), count):
        yield _make_sample(list(labels), labelled)


def _make_sample(names: Sequence[str], labelled: Sequence[Labelled]) -> dict[str, Any]:
    comparison, _ = labelled[0]
    first, second = comparison.responses
    verdicts = [
        {**asdict(Verdict.read(FIRST, SECOND, name, preference)), "note": describe_label(preference)}
        for name, (_, preference) in zip(names, labelled, strict=True)
    ]
    sample = EvaluatedPrompt(
        id=comparison.id,
        prompt=comparison.prompt.text,
        reference=None,
        groups={} if comparison.slice is None else {"slice": comparison.slice},
        responses={FIRST: EvaluatedResponse(first), SECOND: EvaluatedResponse(second)},
        verdicts=[],
    )
    human = {"preference": comparison.preference, "confidence": comparison.confidence}
    return {**asdict(sample), "verdicts": verdicts, "human": human}


def describe_label(preference: Preference) -> str:
    """Return what there is to say of a label besides its probabilities, in a line."""
    evidence = preference.evidence
    parts = []
    if evidence.source in get_args(PreferenceSource):
        parts.append("copied from human annotations")
    if evidence.refused is not None:
        parts.append(f"refused: {evidence.refused}")
    elif evidence.inconsistent and preference.probabilities is None:
        parts.append("the orders disagree")
    elif preference.unparsed:
        parts.append("the answer could not be read")
    if evidence.masses:
        parts.append(f"probability mass on the label tokens {fmean(evidence.masses):.3g}")
    if evidence.scores is not None:
        parts.append("scores {:.4g} and {:.4g}".format(*evidence.scores))
    for vote in evidence.members:
        parts.append(f"{vote.labeler} " + (f"{vote.probabilities[0]:.3f}" if vote.probabilities else "unparsed"))
    parts.extend(f"principle: {text}" for text in dict.fromkeys(b.principle for b in evidence.orders if b.principle))
    return "; ".join(parts)
