"""Score responses by their log-likelihood per token; both responses share one computation of their prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from scipy.special import expit

from rlaif_framework import (
    Comparison,
    Context,
    Evidence,
    Group,
    Preference,
    compute_dtype,
    encode_prompt,
    encode_response,
    find_model,
    load_model,
    load_tokenizer,
    pack_groups,
    response_logprobs,
    split_by_tokens,
)
from rlaif_plugins.likelihood import LikelihoodConfig


class LikelihoodLabeler:
    """Scores each response alone, so the order they are shown in cannot matter."""

    def __init__(self, config: LikelihoodConfig, context: Context) -> None:
        self.config = config
        source = find_model(config.model, config.revision)
        self.tokenizer = load_tokenizer(source)
        self.model = load_model(source, "causal", compute_dtype(config.dtype, context.device), context.device)
        self.budget = context.policy.batch_tokens

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Prefer by log-likelihood per token, end token included."""
        scores, tokens = self.score(comparisons, self.config.instruction)
        if self.config.against is not None:
            others, more = self.score(comparisons, self.config.against)
            scores = [(a - c, b - d) for (a, b), (c, d) in zip(scores, others, strict=True)]
            tokens = [a + b for a, b in zip(tokens, more, strict=True)]
        for comparison, (a, b), used in zip(comparisons, scores, tokens, strict=True):
            first = float(expit((a - b) / self.config.scale))
            evidence = Evidence(self.config.kind, scores=(a, b), prompt_tokens=used)
            yield Preference(comparison.id, (first, 1.0 - first), evidence)

    @torch.no_grad()
    def score(self, comparisons: Sequence[Comparison], instruction: str) -> tuple[list[tuple[float, float]], list[int]]:
        """Mean log-probability of the tokens of both responses of each comparison, and the tokens read for it."""
        before = f"{instruction}\n\n" if instruction else ""
        groups = [
            Group(
                encode_prompt(self.tokenizer, before + c.prompt.text),
                [encode_response(self.tokenizer, text) for text in c.responses],
            )
            for c in comparisons
        ]
        scores: dict[int, tuple[float, float]] = {}
        for batch in split_by_tokens([group.length for group in groups], self.budget):
            packed = pack_groups([groups[i] for i in batch], self.tokenizer.pad_token_id, self.model.device)
            sums = packed.per_response(response_logprobs(self.model, packed))  # (responses,)
            lengths = packed.per_response(torch.ones_like(packed.targets, dtype=torch.float32))
            means = iter((sums / lengths).tolist())
            for i in batch:
                scores[i] = (next(means), next(means))
        return [scores[i] for i in range(len(groups))], [group.length for group in groups]
