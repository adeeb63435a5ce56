"""Gather the comparisons to be labelled: the task's own, pairs sampled from the policy so far, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import comb

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError
from rlaif_framework.models.loading import load_model, load_tokenizer
from rlaif_framework.models.sampling import sample_responses, truncate_prompts
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.records.rows import save_comparisons
from rlaif_framework.seeds import sample_subset
from rlaif_framework.spec.model import PairsConfig

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
    short, cut = truncate_prompts([p.prompt for p in pairs], context.task, tokenizer, context.policy.max_prompt_tokens)
    save_comparisons(stage.folder / COMPARISONS, map(_with_prompt, pairs, short))
    stage.facts.update(comparisons=len(pairs), prompts_truncated=cut)


def _with_prompt(pair: Comparison, prompt: Prompt) -> Comparison:
    return replace(pair, prompt=prompt)


def _sample_pairs(stage: Stage, context: Context, config: PairsConfig, prompts: Sequence[Prompt]) -> list[Comparison]:
    tokenizer = load_tokenizer(stage.inputs["policy"])
    model = load_model(stage.inputs["policy"], "causal", context.dtype, context.device)
    short, _ = truncate_prompts(prompts, context.task, tokenizer, context.policy.max_prompt_tokens)
    samples = sample_responses(
        model,
        tokenizer,
        [p.text for p in short for _ in range(config.responses)],
        max_new_tokens=context.policy.max_new_tokens,
        temperature=config.temperature,
        seed=stage.seed("responses"),
        budget=context.batch_tokens,
        track=lambda batches: stage.track(batches, len(batches), "sampling, batches"),
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
