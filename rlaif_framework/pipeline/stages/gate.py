"""Check that labels agree with gold preferences better than chance before a model is trained on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import TrainingError
from rlaif_framework.metrics.agreement import measure_labeler, save_quality
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.pipeline.recipes import GateRecipe, LabelRecipe
from rlaif_framework.pipeline.stages.label import USAGE, label_comparisons
from rlaif_framework.pipeline.stages.sample import COMPARISONS
from rlaif_framework.prompting.chunks import LabelCounts
from rlaif_framework.records.ballots import LABEL_TOKEN_MASS, MIN_MASS
from rlaif_framework.records.preference_set import PREFERENCE_SET, write_preference_set
from rlaif_framework.records.preferences import Comparison, Preference
from rlaif_framework.records.rows import load_comparisons
from rlaif_framework.seeds import sample_subset

AGREEMENT = "agreement.json"
MAX_VALIDATION = 200
"""Validation comparisons labelled for the gate, at most: enough to distinguish an agreement of 57 % from chance."""


def label_arm(stage: Stage, context: Context, recipe: LabelRecipe) -> None:
    """Label the comparisons of an arm, write the preferences with their texts, and measure the labels."""
    comparisons = load_comparisons(stage.artefact(recipe.sample) / COMPARISONS)
    preferences = label_comparisons(stage, context, recipe.labeler, comparisons)
    labels = zip(comparisons, preferences, strict=True)
    stage.facts["preferences"], _ = write_preference_set(stage.folder / PREFERENCE_SET, labels)
    measure_agreement(stage, context, recipe, comparisons, preferences)


def measure_agreement(
    stage: Stage,
    context: Context,
    recipe: LabelRecipe,
    comparisons: Sequence[Comparison],
    preferences: Sequence[Preference],
) -> None:
    """Write `quality.json`: the measurements of the labels. Write `agreement.json`: how often they agree with gold
    preferences, or null if there are none, and the mean probability mass on the label tokens, or null if it is unknown.

    The agreement is measured on the labelled comparisons where they have gold preferences. Otherwise validation
    comparisons are labelled for it. Labels that are copies of the gold preferences are not measured.
    """
    measured_on, quality = "labelled", measure_labeler(comparisons, preferences)
    mass = quality.label_token_mass.value if quality.label_token_mass else None
    copied = all(p.evidence.source == c.preference_source for c, p in zip(comparisons, preferences, strict=True))
    save_quality(replace(quality, agreement=None, slices={}) if copied else quality, stage.folder)
    if quality.agreement is None and not copied:
        # As few as the gate needs: they are labelled only for it, and may cost money.
        with_gold = [c for c in recipe.validation if c.preference is not None]
        chosen = sample_subset(with_gold, MAX_VALIDATION, stage.seed("gate"))
        if chosen:
            labels = list(context.build_labeler(recipe.labeler).label(chosen))
            measured_on, quality = "validation", measure_labeler(chosen, labels)
            used = LabelCounts().add(labels, 0.0, 0)
            stage.facts.update({name: getattr(used, name) + stage.facts.get(name, 0) for name in USAGE})
    # Labels that were copied from the gold preferences agree with them trivially.
    estimate = None if copied or quality.agreement is None else asdict(quality.agreement)
    content = json.dumps({"on": measured_on, "agreement": estimate, LABEL_TOKEN_MASS: mass})
    (stage.folder / AGREEMENT).write_text(content, encoding="utf-8")
    if estimate is not None:
        stage.facts.update(label_agreement=estimate["value"], label_agreement_count=estimate["count"])
    if mass is not None:
        stage.facts.update({LABEL_TOKEN_MASS: mass})


def read_agreement(folder: Path) -> tuple[str, Estimate | None]:
    """Return the set of comparisons that an arm's labels were measured on, and their agreement there."""
    found = _read(folder)
    return found["on"], found["agreement"] and Estimate(**found["agreement"])


def _read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / AGREEMENT).read_text(encoding="utf-8")))


def check_labels(stage: Stage, context: Context, recipe: GateRecipe) -> None:
    """Check the labels of an arm; write `gate.json` if they are accepted."""
    agreement = check_agreement(stage.artefact(recipe.label))
    (stage.folder / "gate.json").write_text(json.dumps({"measured": agreement is not None}), encoding="utf-8")


def check_agreement(folder: Path) -> Estimate | None:
    """Refuse labels that are not better than chance, or read from tokens that the model almost never writes.

    Args:
        folder: The artefact of the labels.

    Returns:
        Their agreement with gold preferences; None if it is unknown.

    Raises:
        TrainingError: The 95 % interval of the agreement includes 50 %, or the mean probability mass on the label
        tokens is below 0.01.
    """
    mass = _read(folder).get(LABEL_TOKEN_MASS)
    if mass is not None and mass < MIN_MASS:
        raise TrainingError(
            "the labeler's model almost never writes a label: the mean probability mass on the label tokens is "
            f"{mass:.2g}. Such labels are mostly noise, so the run stops. Choose another labeler, prompt strategy or "
            "ending of the annotator prompts, or set 'allow_weak_labels: true' in the arm's feedback"
        )
    measured_on, agreement = read_agreement(folder)
    if agreement is None or agreement.beats_chance:
        return agreement
    raise TrainingError(
        f"the labels agree with gold preferences on {agreement.value:.1%} of {agreement.count} {measured_on} "
        f"comparisons (95 % interval from {agreement.low:.1%}), which is not above chance. Training on chance-level "
        "labels is useless or harmful, so the run stops. Choose another labeler, provide more comparisons with gold "
        "preferences, or set 'allow_weak_labels: true' in the arm's feedback"
    )
