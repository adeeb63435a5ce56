"""The gate before training on labels: are they better than chance, as far as anybody knows?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import TrainingError
from rlaif_framework.metrics.agreement import measure_labeler
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.records.preferences import Comparison, Preference
from rlaif_framework.seeds import sample_subset

AGREEMENT = "agreement.json"


ENOUGH = 200
"""Validation comparisons labelled for the gate at most: an agreement of 57 % is then told from chance."""


def measure_agreement(
    stage: Stage,
    context: Context,
    labeler: LabelerConfig,
    comparisons: Sequence[Comparison],
    preferences: Sequence[Preference],
    validation: Sequence[Comparison],
) -> None:
    """Write `agreement.json`: how often labels agree with known preferences, None if nobody knows any.

    Measured on the labelled comparisons themselves where they carry a known preference, otherwise on validation
    comparisons, which are labelled for it.
    """
    on, quality = "labelled", measure_labeler(comparisons, preferences)
    given = all(p.evidence.source == c.preference_source for c, p in zip(comparisons, preferences, strict=True))
    if quality.agreement is None and not given:
        chosen = sample_subset([c for c in validation if c.preference is not None], ENOUGH, stage.seed("gate"))
        if chosen:
            found = list(context.build_labeler(labeler).label(chosen))
            on, quality = "validation", measure_labeler(chosen, found)
    estimate = None if given or quality.agreement is None else asdict(quality.agreement)
    (stage.folder / AGREEMENT).write_text(json.dumps({"on": on, "agreement": estimate}), encoding="utf-8")
    if estimate is not None:
        stage.facts.update(label_agreement=estimate["value"], label_agreement_count=estimate["count"])


def read_agreement(folder: Path) -> tuple[str, Estimate | None]:
    """On which comparisons an arm's labels were checked, and their agreement there."""
    found = json.loads((folder / AGREEMENT).read_text(encoding="utf-8"))
    return found["on"], found["agreement"] and Estimate(**found["agreement"])


def check_agreement(folder: Path, arm_labels: str, allow_weak: bool) -> None:
    """Refuse labels that are not shown to be better than chance.

    Raises:
        TrainingError: The 95 % interval of the agreement reaches down to 50 %.
    """
    on, agreement = read_agreement(folder)
    if allow_weak or agreement is None or agreement.beats_chance:
        return
    raise TrainingError(
        f"{arm_labels}: the labels agree with known preferences in {agreement.value:.1%} of {agreement.count} {on} "
        f"comparisons (95 % interval from {agreement.low:.1%}), which is not above chance: a reward model trained on "
        "them may learn nothing, or the opposite. Choose another labeler, give more comparisons with known "
        "preferences, or set 'allow_weak_labels: true' in the arm's feedback"
    )
