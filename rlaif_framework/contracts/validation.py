"""Validate the preferences and scores that components return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rlaif_framework.contracts.protocols import ReportingReward, Reward
from rlaif_framework.errors import RlaifError, TrainingError
from rlaif_framework.records.preferences import Comparison, Preference, Prompt

LARGEST = 1e15
"""Largest valid score. Sums of squares of larger ones may overflow in fp32, and whitening would return zeros."""


def score_responses(reward: Reward, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """Score responses with a reward, and validate the scores.

    Raises:
        TrainingError: The number of scores is wrong, or a score is not finite or larger than 1e15.
    """
    scores = list(reward.score(prompts, responses))
    check_scores(scores, prompts, responses)
    return scores


def read_measures(reward: Reward) -> Mapping[str, Sequence[float]]:
    """Return what the last call of a reward measured besides the scores; nothing for most rewards."""
    return reward.measures() if isinstance(reward, ReportingReward) else {}


def check_scores(scores: Sequence[float], prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
    """Validate scores; see `score_responses`."""
    if len(scores) != len(responses):
        raise TrainingError(f"the reward returned {len(scores)} scores for {len(responses)} responses")
    for prompt, text, score in zip(prompts, responses, scores, strict=True):
        if not abs(score) <= LARGEST:  # written so that NaN fails as well
            raise TrainingError(f"the reward of a response to prompt '{prompt.id}' is {score}: {text[:80]!r}")


def check_preferences(
    preferences: Iterator[Preference], chunk: Sequence[Comparison], kind: str
) -> Iterator[Preference]:
    """Yield a labeler's preferences after validating that there is one per comparison, in their order.

    Raises:
        RlaifError: A preference is missing, out of order, or not a probability distribution.
    """
    count = 0
    # Not strict: too few preferences are reported below, with the labeler's name.
    for comparison, preference in zip(chunk, preferences, strict=False):
        if preference.comparison != comparison.id:
            found = preference.comparison
            raise RlaifError(f"labeler '{kind}' returned a preference for '{found}', not '{comparison.id}'")
        if preference.probabilities is not None:
            first, second = preference.probabilities
            if not (0 <= first <= 1 and abs(first + second - 1) < 1e-6):
                where = f"labeler '{kind}', comparison '{comparison.id}'"
                raise RlaifError(f"{where}: {first} and {second} are not probabilities")
        count += 1
        yield preference
    if count < len(chunk):
        raise RlaifError(f"labeler '{kind}' returned {count} preferences for {len(chunk)} comparisons")
