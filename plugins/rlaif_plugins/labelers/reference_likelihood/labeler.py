"""Score responses by the log-likelihood of the reference after them."""

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
from rlaif_plugins.labelers.reference_likelihood import ReferenceLikelihoodConfig


class ReferenceLikelihoodLabeler:
    """Scores each response independently, so it has no position bias."""

    def __init__(self, config: ReferenceLikelihoodConfig, context: Context) -> None:
        self.config = config
        source = find_model(config.model, config.revision, config.trust_remote_code)
        self.tokenizer = load_tokenizer(source)
        self.model = load_model(source, "causal", compute_dtype(config.dtype, context.device), context.device)
        self.budget = context.batch_tokens
        self.context: int | None = position_limit(self.model.config)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by the likelihood of the reference.

        Raises:
            DataError: A prompt has no reference, or a response and the reference exceed the model's context.
        """
        scores = self._score([(c.prompt, text) for c in comparisons for text in c.responses])
        for comparison, a, b in zip(comparisons, scores[::2], scores[1::2], strict=True):
            first = float(expit((a - b) / self.config.scale))
            tokens = sum(self._encode(comparison.prompt, text).length for text in comparison.responses)
            evidence = Evidence(self.config.kind, scores=(a, b), prompt_tokens=tokens)
            yield Preference(comparison.id, (first, 1.0 - first), evidence)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the log-likelihood per token of each prompt's reference after the response, EOS token included.

        Raises:
            DataError: A prompt has no reference, or a response and the reference exceed the model's context.
        """
        return self._score(list(zip(prompts, responses, strict=True)))

    def _score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """Score responses; one that occurs in several comparisons is computed once."""
        groups = {(prompt.reference, text): self._encode(prompt, text) for prompt, text in pairs}
        means = mean_logprobs(self.model, list(groups.values()), self.tokenizer, self.budget)
        found = {key: mean for key, (mean,) in zip(groups, means, strict=True)}
        return [found[prompt.reference, text] for prompt, text in pairs]

    def _encode(self, prompt: Prompt, response: str) -> Group:
        """Return the response and the connection as the context of the reference."""
        if not prompt.reference:
            raise DataError(f"labeler 'reference-likelihood': prompt '{prompt.id}' has no reference")
        before = encode_text(self.tokenizer, f"{response}\n\n{self.config.connection}".strip())
        group = Group(before, [encode_continuation(self.tokenizer, prompt.reference)])
        if self.context is not None and group.length > self.context:
            raise DataError(
                f"labeler 'reference-likelihood', prompt '{prompt.id}': a response and the reference have "
                f"{group.length} tokens, more than the {self.context} of the model's context"
            )
        return group
