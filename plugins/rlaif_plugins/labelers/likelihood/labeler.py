"""Score responses by their log-likelihood per token; the responses share the computation of their prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scipy.special import expit

from rlaif_framework import Comparison, Context, DataError, Evidence, Preference, Prompt
from rlaif_framework.models import (
    Group,
    compute_dtype,
    encode_continuation,
    encode_text,
    find_model,
    load_model,
    load_tokenizer,
    mean_logprobs,
    position_limit,
)
from rlaif_plugins.labelers.likelihood import LikelihoodConfig

Case = tuple[Prompt, Sequence[str]]
"""A prompt, and the responses that share its computation."""


class LikelihoodLabeler:
    """Scores each response independently, so it has no position bias."""

    def __init__(self, config: LikelihoodConfig, context: Context) -> None:
        self.config = config
        source = find_model(config.model, config.revision, config.trust_remote_code)
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
        prompts = [self._truncate(c.prompt, c.responses) for c in comparisons]
        scores, tokens = self._contrast([(p, c.responses) for p, c in zip(prompts, comparisons, strict=True)])
        for comparison, prompt, (a, b), used in zip(comparisons, prompts, scores, tokens, strict=True):
            first = float(expit((a - b) / self.config.scale))
            source_truncated = prompt is not comparison.prompt
            evidence = Evidence(self.config.kind, scores=(a, b), prompt_tokens=used, source_truncated=source_truncated)
            yield Preference(comparison.id, (first, 1.0 - first), evidence)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the log-likelihoods of responses per token, EOS token included, or their contrasts.

        Raises:
            DataError: A response alone is longer than the model's context.
        """
        # Each prompt is truncated for one response: a score must not depend on the others. Those that still have the
        # same prompt share its computation.
        places: dict[Prompt, list[int]] = {}
        for place, (prompt, text) in enumerate(zip(prompts, responses, strict=True)):
            places.setdefault(self._truncate(prompt, [text]), []).append(place)
        scores, _ = self._contrast([(prompt, [responses[i] for i in own]) for prompt, own in places.items()])
        found: dict[int, float] = {}
        for own, values in zip(places.values(), scores, strict=True):
            found.update(zip(own, values, strict=True))
        return [found[i] for i in range(len(responses))]

    def _truncate(self, prompt: Prompt, responses: Sequence[str]) -> Prompt:
        """Truncate a prompt to fit the model's context, in the same way for all responses and instructions."""
        if self.context is None:
            return prompt
        room = self.context - max(len(encode_continuation(self.tokenizer, text)) for text in responses)
        instructions = [self.config.instruction, self.config.against or ""]

        def fits(prompt: Prompt) -> bool:
            return all(len(encode_text(self.tokenizer, instruct(i, prompt.text))) <= room for i in instructions)

        if fits(prompt):
            return prompt
        try:
            return self.task.truncate(prompt, fits)
        except DataError as error:
            raise DataError(
                f"labeler 'likelihood', prompt '{prompt.id}': a response alone is longer than the model's context"
            ) from error

    def _contrast(self, cases: Sequence[Case]) -> tuple[list[list[float]], list[int]]:
        """Score the responses of each case under `instruction`, minus those under `against`; count the tokens."""
        scores, tokens = self._average(cases, self.config.instruction)
        if self.config.against is not None:
            others, more = self._average(cases, self.config.against)
            scores = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(scores, others, strict=True)]
            tokens = [a + b for a, b in zip(tokens, more, strict=True)]
        return scores, tokens

    def _average(self, cases: Sequence[Case], instruction: str) -> tuple[list[list[float]], list[int]]:
        """Return the mean log-probability per token of each response of each case, and the tokens processed."""
        groups = [
            Group(
                encode_text(self.tokenizer, instruct(instruction, prompt.text)),
                [encode_continuation(self.tokenizer, text) for text in responses],
            )
            for prompt, responses in cases
        ]
        # Per token, the EOS token included: sums would favour short responses.
        means = mean_logprobs(self.model, groups, self.tokenizer, self.budget)
        return means, [group.length for group in groups]


def instruct(instruction: str, text: str) -> str:
    """Prepend an instruction to a prompt, if there is one."""
    return f"{instruction}\n\n{text}" if instruction else text
