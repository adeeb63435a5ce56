"""Score responses by their log-likelihood per token; the responses share the computation of their prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from scipy.special import expit

from rlaif_framework import Comparison, Context, DataError, Evidence, Preference, Prompt
from rlaif_framework.models import (
    Group,
    compute_dtype,
    encode_prompt,
    encode_response,
    find_model,
    load_model,
    load_tokenizer,
    pack_groups,
    position_limit,
    response_logprobs,
    split_by_tokens,
)
from rlaif_plugins.labelers.likelihood import LikelihoodConfig


class LikelihoodLabeler:
    """Scores each response independently, so it has no position bias."""

    def __init__(self, config: LikelihoodConfig, context: Context) -> None:
        self.config = config
        source = find_model(config.model, config.revision)
        self.tokenizer = load_tokenizer(source)
        self.model = load_model(source, "causal", compute_dtype(config.dtype, context.device), context.device)
        self.budget = context.batch_tokens
        self.task = context.task
        self.context: int | None = position_limit(self.model.config)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by the log-likelihood per token, EOS token included.

        Raises:
            DataError: A response alone is longer than the model's context.
        """
        # Before scoring: both instructions must see the same prompt.
        whole, comparisons = comparisons, [replace(c, prompt=self._truncate(c)) for c in comparisons]
        scores, tokens = self.score(comparisons, self.config.instruction)
        if self.config.against is not None:
            others, more = self.score(comparisons, self.config.against)
            scores = [(a - c, b - d) for (a, b), (c, d) in zip(scores, others, strict=True)]
            tokens = [a + b for a, b in zip(tokens, more, strict=True)]
        for original, comparison, (a, b), used in zip(whole, comparisons, scores, tokens, strict=True):
            first = float(expit((a - b) / self.config.scale))
            source_truncated = comparison.prompt is not original.prompt
            evidence = Evidence(self.config.kind, scores=(a, b), prompt_tokens=used, source_truncated=source_truncated)
            yield Preference(comparison.id, (first, 1.0 - first), evidence)

    def _truncate(self, comparison: Comparison) -> Prompt:
        """Truncate a prompt to fit the model's context, in the same way for both responses and instructions."""
        if self.context is None:
            return comparison.prompt
        room = self.context - max(len(encode_response(self.tokenizer, text)) for text in comparison.responses)
        instructions = [self.config.instruction, self.config.against or ""]

        def fits(text: str) -> bool:
            return all(len(encode_prompt(self.tokenizer, instruct(i, text))) <= room for i in instructions)

        if fits(comparison.prompt.text):
            return comparison.prompt
        try:
            return self.task.truncate(comparison.prompt, fits)
        except DataError as error:
            raise DataError(
                f"labeler 'likelihood', comparison '{comparison.id}': a response alone is longer than the "
                "model's context"
            ) from error

    @torch.no_grad()
    def score(self, comparisons: Sequence[Comparison], instruction: str) -> tuple[list[tuple[float, float]], list[int]]:
        """Return the mean log-probability per token of both responses of each comparison, and the tokens processed."""
        groups = [
            Group(
                encode_prompt(self.tokenizer, instruct(instruction, c.prompt.text)),
                [encode_response(self.tokenizer, text) for text in c.responses],
            )
            for c in comparisons
        ]
        scores: dict[int, tuple[float, float]] = {}
        for batch in split_by_tokens([group.length for group in groups], self.budget):
            packed = pack_groups([groups[i] for i in batch], self.tokenizer.pad_token_id, self.model.device)
            sums = packed.per_response(response_logprobs(self.model, packed))  # (responses,)
            # Per token, the EOS token included: sums would favour short responses.
            lengths = packed.per_response(torch.ones_like(packed.targets, dtype=torch.float32))
            means = iter((sums / lengths).tolist())
            for i in batch:
                scores[i] = (next(means), next(means))
        return [scores[i] for i in range(len(groups))], [group.length for group in groups]


def instruct(instruction: str, text: str) -> str:
    """Prepend an instruction to a prompt, if there is one."""
    return f"{instruction}\n\n{text}" if instruction else text
