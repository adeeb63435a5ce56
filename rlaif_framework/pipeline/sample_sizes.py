"""Describe which differences an evaluation can show, and how many test prompts and human labels show more."""

from __future__ import annotations

from rlaif_framework.metrics.power import POWER, detectable_difference, required_labels, required_pairs
from rlaif_framework.pipeline.recipes import EvaluateRecipe
from rlaif_framework.pipeline.steps import Recipe

DIFFERENCE = 0.1
"""Difference of a win rate from one half for which sample sizes are stated."""
AGREEMENTS = (0.7, 0.8, 0.9)
"""Agreements of a judge with human labels for which their number is stated."""


def describe_power(recipe: Recipe) -> list[str]:
    """Return a sentence about test prompts and one about human labels, for an evaluation with win rates."""
    if not isinstance(recipe, EvaluateRecipe) or not any(matchup.judged for matchup in recipe.matchups):
        return []
    responses = recipe.evaluate.responses
    prompts = len(recipe.prompts) // responses
    return [_describe_prompts(prompts, responses), describe_labels(prompts)]


def _describe_prompts(prompts: int, responses: int) -> str:
    # The responses to a prompt count at most as independent ones, and at least as one.
    differences = dict.fromkeys(map(detectable_difference, (prompts * responses, prompts)))
    found = [f"{100 * x:.1f}" for x in differences if x is not None]
    shown = f"a win rate that is {' to '.join(found)} points from 50 %" if found else "no win rate to differ from 50 %"
    needed = required_pairs(DIFFERENCE)
    counts = dict.fromkeys((-(-needed // responses), needed))
    depending = f", depending on how similar the {responses} responses to a prompt are" if responses > 1 else ""
    return (
        f"{prompts} test prompts show {shown}, with power {POWER:g}; "
        f"{100 * DIFFERENCE:g} points need {' to '.join(map(str, counts))} prompts{depending}"
    )


def describe_labels(prompts: int) -> str:
    """Return how many human labels show a difference of a win rate that they correct."""
    # With so few prompts that no number of labels is enough: for more prompts.
    enough = all(required_labels(DIFFERENCE, prompts, agreement) for agreement in AGREEMENTS)
    judged = prompts if enough else 2 * required_pairs(DIFFERENCE)
    first, *others = AGREEMENTS
    labels = [f"{required_labels(DIFFERENCE, judged, first)} labels if it agrees with {100 * first:.0f} % of them"]
    labels += [f"{required_labels(DIFFERENCE, judged, other)} at {100 * other:.0f} %" for other in others]
    return (
        f"with {judged} test prompts and a judge corrected by human labels, {100 * DIFFERENCE:g} points need "
        f"{', '.join(labels)}"
    )
