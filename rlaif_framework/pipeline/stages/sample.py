"""Gather the comparisons to be labelled: the task's own, pairs sampled from the policy so far, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import comb

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError
from rlaif_framework.models.loading import load_tokenizer
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.records.rows import save_comparisons
from rlaif_framework.seeds import sample_subset
from rlaif_framework.spec.model import PairsConfig
from rlaif_framework.training.responses import sample_from, truncate_prompts

COMPARISONS = "comparisons.jsonl"


def gather_pairs(
    stage: Stage, context: Context, config: PairsConfig, comparisons: Sequence[Comparison], prompts: Sequence[Prompt]
) -> None:
    """Write `comparisons.jsonl`. Pairs whose two responses came out equal are left out and counted.

    Args:
        stage: Its input `policy` is the model to sample from.
        config: What to sample.
        comparisons: Those of the task's own that are labelled.
        prompts: To sample responses to.
    """
    pairs = list(comparisons)
    if config.source in ("policy", "both"):
        pairs += _sample_pairs(stage, context, config, sample_subset(prompts, config.prompts, stage.seed("prompts")))
    if not pairs:
        raise DataError("sample: no pair of different responses came out; raise pairs.temperature or pairs.prompts")
    tokenizer = load_tokenizer(stage.inputs["policy"])
    short, cut = truncate_prompts(context, [p.prompt for p in pairs], tokenizer)
    save_comparisons(stage.folder / COMPARISONS, map(_with_prompt, pairs, short))
    stage.facts.update(comparisons=len(pairs), prompts_truncated=cut)


def _with_prompt(pair: Comparison, prompt: Prompt) -> Comparison:
    return replace(pair, prompt=prompt)


def _sample_pairs(stage: Stage, context: Context, config: PairsConfig, prompts: Sequence[Prompt]) -> list[Comparison]:
    folder = stage.inputs["policy"]
    short, _ = truncate_prompts(context, prompts, load_tokenizer(folder))
    samples = sample_from(
        context,
        stage,
        folder,
        short,
        temperature=config.temperature,
        seed=stage.seed("responses"),
        responses=config.responses,
    )
    texts = [context.task.clean(s.text) for s in samples]
    pairs: list[Comparison] = []
    for place, prompt in enumerate(prompts):
        # Each text once, in the order they came.
        own = list(dict.fromkeys(t for t in texts[place * config.responses : (place + 1) * config.responses] if t))
        for (i, first), (j, second) in combinations(enumerate(own, 1), 2):
            pairs.append(Comparison(f"{prompt.id}/sampled-{i}-{j}", prompt, (first, second), slice="sampled"))
    stage.facts["pairs_equal_or_empty"] = len(prompts) * comb(config.responses, 2) - len(pairs)
    return pairs
