"""Compare the responses of two policies with a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.pipeline.artefact_files import PREFERENCES
from rlaif_framework.pipeline.recipes import JudgeRecipe
from rlaif_framework.pipeline.stages.label import label_comparisons
from rlaif_framework.pipeline.stages.respond import read_responses
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Preference, Prompt


def judge_matchup(stage: Stage, context: Context, recipe: JudgeRecipe) -> None:
    """Write the judge's preference for each pair of responses; equal responses are a tie and are not judged."""
    pairs = pair_responses(stage, recipe.prompts, recipe.first, recipe.second)
    # Mapped by id: the judge labels only some of the pairs.
    different = [c for c in pairs if c.responses[0] != c.responses[1]]
    judged = {p.comparison: p for p in label_comparisons(stage, context, recipe.judge, different)}
    tie = Evidence(source=recipe.judge.kind)
    rows = [judged.get(c.id) or Preference(c.id, (0.5, 0.5), tie) for c in pairs]
    write_rows(stage.folder / PREFERENCES, map(asdict, rows))


def pair_responses(
    stage: Stage, prompts: Sequence[Prompt], first: Step | None, second: Step | None
) -> list[Comparison]:
    """Pair two policies' responses to the test prompts; None is for the reference responses.

    Args:
        stage: Finds the artefacts.
        prompts: The test prompts, each as often as it is answered; their ids are unique otherwise.
        first: Step with the responses of the first policy.
        second: Step with those of the second policy.

    Returns:
        Pairs with unique ids: a prompt's i-th pair has its i-th response by either policy.
    """
    texts = (
        [p.reference or "" for p in prompts] if step is None else read_responses(stage.artefact(step))
        for step in (first, second)
    )
    answered = Counter[str]()
    pairs = []
    for prompt, a, b in zip(prompts, *texts, strict=True):
        answered[prompt.id] += 1
        number = answered[prompt.id]
        pairs.append(Comparison(prompt.id if number == 1 else f"{prompt.id}/response-{number}", prompt, (a, b)))
    return pairs
