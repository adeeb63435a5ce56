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
        against = config.against
        self.instructions = [config.instruction] if against is None else [config.instruction, against]

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by the log-likelihood per token, EOS token included.

        Raises:
            DataError: A response alone is longer than the model's context.
        """
        # Truncated for both responses, which must be scored after the same prompt.
        prompts = [self._truncate(c.prompt, c.responses) for c in comparisons]
        scores = self._score([(p, text) for p, c in zip(prompts, comparisons, strict=True) for text in c.responses])
        for comparison, prompt, a, b in zip(comparisons, prompts, scores[::2], scores[1::2], strict=True):
            first = float(expit((a - b) / self.config.scale))
            evidence = Evidence(
                self.config.kind,
                scores=(a, b),
                prompt_tokens=sum(self._group(i, prompt.text, comparison.responses).length for i in self.instructions),
                source_truncated=prompt is not comparison.prompt,
            )
            yield Preference(comparison.id, (first, 1.0 - first), evidence)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the log-likelihoods of responses per token, EOS token included, or their contrasts.

        Raises:
            DataError: A response alone is longer than the model's context.
        """
        # Each prompt is truncated for one response: a score must not depend on the others.
        return self._score([(self._truncate(p, [text]), text) for p, text in zip(prompts, responses, strict=True)])

    def _truncate(self, prompt: Prompt, responses: Sequence[str]) -> Prompt:
        """Truncate a prompt to fit the model's context, in the same way for all responses and instructions."""
        if self.context is None:
            return prompt
        room = self.context - max(len(encode_continuation(self.tokenizer, text)) for text in responses)

        def fits(prompt: Prompt) -> bool:
            return all(self._group(instruction, prompt.text).length <= room for instruction in self.instructions)

        if fits(prompt):
            return prompt
        try:
            return self.task.truncate(prompt, fits)
        except DataError as error:
            raise DataError(
                f"labeler 'likelihood', prompt '{prompt.id}': a response alone is longer than the model's context"
            ) from error

    def _score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """Score responses under `instruction`, minus under `against`; each prompt is computed once."""
        found: dict[str, dict[str, float]] = {}  # by the prompt's text, which may have several ids
        for prompt, text in pairs:
            found.setdefault(prompt.text, {})[text] = 0.0
        for sign, instruction in zip((1.0, -1.0), self.instructions, strict=False):
            groups = [self._group(instruction, prompt, list(own)) for prompt, own in found.items()]
            # Per token, the EOS token included: sums would favour short responses.
            means = mean_logprobs(self.model, groups, self.tokenizer, self.budget)
            for own, values in zip(found.values(), means, strict=True):
                own.update({text: own[text] + sign * mean for text, mean in zip(own, values, strict=True)})
        return [found[prompt.text][text] for prompt, text in pairs]

    def _group(self, instruction: str, prompt: str, responses: Sequence[str] = ()) -> Group:
        """Encode responses to a prompt after an instruction."""
        before = encode_text(self.tokenizer, instruct(instruction, prompt))
        return Group(before, [encode_continuation(self.tokenizer, text) for text in responses])


def instruct(instruction: str, text: str) -> str:
    """Prepend an instruction to a prompt, if there is one."""
    return f"{instruction}\n\n{text}" if instruction else text
