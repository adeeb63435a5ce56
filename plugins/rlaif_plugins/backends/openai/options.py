"""Read which option a server's answer chooses, from log-probabilities or from sampled text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rlaif_framework import Choose, Question

MAX_PREFIX_MASS = 0.01
"""Maximum probability mass on prefixes of options, relative to that on the options, for which the result is used."""
SHORT_LIST = 5
"""Number of listed tokens from which on options outside the list count as improbable."""
MAX_MISSING_MASS = 0.1
"""Maximum mass that options outside a shorter list could have, relative to that on those in it, for which the result
is used. With more, sampled answers err less."""
MIN_MASS = 0.1
"""Minimum mass on the options, relative to that on white space, which options would follow."""


def option_weights(options: Sequence[str], logprobs: Sequence[tuple[str, float]]) -> tuple[float, ...] | None:
    """Return the probability of each option as the next token, over the whole vocabulary; None if it is unknown.

    An option that is not among the most likely tokens has probability 0. The result is None if the list is so short
    that such an option could be likely; if a likely token is only a prefix of an option (`1` of `10`), so that the next
    token does not distinguish the options; or if nearly all of the probability is on white space.

    Args:
        options: The texts of the options.
        logprobs: Tokens with their log-probabilities. With a value that is none, the result is None.
    """
    if not all(logprob <= 0 for _, logprob in logprobs):  # false for NaN as well
        return None
    # Tokenizers differ in whether the space before a label belongs to its token.
    words = [option.strip() for option in options]
    weights = dict.fromkeys(words, 0.0)
    listed = [(token.strip(), math.exp(logprob)) for token, logprob in logprobs]
    missing = set(words) - {word for word, _ in listed}
    prefix_mass = blank_mass = 0.0
    for word, probability in listed:
        if word in weights:
            weights[word] += probability
        if not word:
            blank_mass += probability
        elif any(option.startswith(word) for option in missing):
            prefix_mass += probability
    mass = sum(weights.values())
    if not mass > 0 or prefix_mass > MAX_PREFIX_MASS * mass or mass < MIN_MASS * blank_mass:
        return None
    probabilities = [probability for _, probability in listed]
    # A token outside the list is less likely than all in it.
    missing_mass = min(len(missing) * min(probabilities), 1 - sum(probabilities))
    if len(listed) < SHORT_LIST and missing_mass > MAX_MISSING_MASS * mass:
        return None
    return tuple(weights[word] for word in words)


def last_line(question: Question) -> str:
    """Return the last line of a question, which the answer may repeat."""
    return (question.prefill or question.text).strip().rpartition("\n")[2].strip()


def sample_tokens(request: Choose) -> int:
    """Return the maximum length of a sampled answer to a choice, which may repeat the question's last line."""
    # An option has at most one token per character, and the repeated line about one for two characters.
    return 4 + max(len(option) for option in request.options) + min(32, len(last_line(request.question)) // 2)


def count_reads(request: Choose) -> int:
    """Return the number of requests for the exact probabilities of the options.

    An option that is a prefix of another one (`1` of `10`) may be its first token, after which the next one is read.
    """
    options = request.options
    return 1 + sum(any(other != option and other.startswith(option) for other in options) for option in options)


def read_option(options: Sequence[str], text: str, ending: str) -> int | None:
    """Return the index of the option with which a sampled answer begins; None if there is none.

    The answer may repeat the question's last line (`Preferred Summary=1`). A longer word or number is not the option:
    `15` and `1.5` are not `1`.
    """
    answer = text.strip().removeprefix(ending).strip()
    for index, option in enumerate(options):
        if re.match(rf"{re.escape(option.strip())}(?!\w|[.,]\d)", answer):
            return index
    return None
