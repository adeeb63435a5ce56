"""Validate what components return: preferences and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlaif_framework.contracts.protocols import Reward
from rlaif_framework.errors import RlaifError, TrainingError
from rlaif_framework.records.preferences import Comparison, Preference, Prompt

LARGEST = 1e15
"""Scores beyond have squares whose sums may overflow in fp32, so that whitening and scaling would give zeros."""


def score_responses(reward: Reward, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """Scores of a reward, checked.

    Raises:
        TrainingError: There are not as many as responses, or one is no number or beyond 1e15; its prompt is named.
    """
    scores = list(reward.score(prompts, responses))
    check_scores(scores, prompts, responses)
    return scores


def check_scores(scores: Sequence[float], prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
    """Refuse scores that a policy must not learn from; see `score_responses`."""
    if len(scores) != len(responses):
        raise TrainingError(f"the reward gave {len(scores)} scores for {len(responses)} responses")
    for prompt, text, score in zip(prompts, responses, scores, strict=True):
        if not abs(score) <= LARGEST:  # NaN too
            raise TrainingError(f"the reward of a response to prompt '{prompt.id}' is {score}: {text[:80]!r}")


def check_preferences(
    preferences: Iterator[Preference], chunk: Sequence[Comparison], kind: str
) -> Iterator[Preference]:
    """Pass on a labeler's preferences, one for each comparison and in their order, and refuse anything else."""
    count = 0
    for comparison, preference in zip(chunk, preferences, strict=False):
        if preference.comparison != comparison.id:
            raise RlaifError(f"labeler '{kind}' gave a preference for '{preference.comparison}', not '{comparison.id}'")
        if preference.probabilities is not None:
            first, second = preference.probabilities
            if not (0 <= first <= 1 and abs(first + second - 1) < 1e-6):
                raise RlaifError(
                    f"labeler '{kind}', comparison '{comparison.id}': {first} and {second} are no probabilities"
                )
        count += 1
        yield preference
    if count < len(chunk):
        raise RlaifError(f"labeler '{kind}' gave {count} preferences for {len(chunk)} comparisons")
