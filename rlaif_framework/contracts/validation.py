"""Validate and convert what labelers, rewards, backends, strategies and algorithms return."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from operator import index
from reprlib import repr as short
from typing import Any

from rlaif_framework.contracts.protocols import ReportingReward, Reward
from rlaif_framework.contracts.values import read_exactly, read_items, read_number, read_record
from rlaif_framework.errors import PluginError, TrainingError
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.preferences import Comparison, Preference, Prompt
from rlaif_framework.records.requests import Answer, Choose, Request
from rlaif_framework.records.samples import Sample

LARGEST = 1e15
"""Largest valid score. Sums of squares of larger ones may overflow in fp32, and whitening would return zeros."""

TOLERANCE = 1e-6
"""Largest deviation of the sum of probabilities from 1, for rounding in fp32."""

THE_REWARD = "the reward"
"""Title of a reward that no component was loaded from, in error messages."""


def score_responses(reward: Reward, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """Score responses with a reward, and validate the scores.

    Raises:
        TrainingError: The number of scores is wrong, or a score is not a finite number or larger than 1e15.
    """
    return check_scores(reward.score(prompts, responses), prompts, responses)


def check_scores(
    value: object, prompts: Sequence[Prompt], responses: Sequence[str], owner: str = THE_REWARD
) -> list[float]:
    """Return scores as floats after validating them; see `score_responses`."""
    try:
        items = read_exactly(value, len(responses), "scores", "responses", owner)
    except PluginError as error:
        raise TrainingError(str(error)) from error
    scores = []
    for prompt, text, item in zip(prompts, responses, items, strict=True):
        score = read_number(item)
        if score is None or not abs(score) <= LARGEST:  # written so that NaN fails as well
            shown = short(item) if score is None else str(score)
            raise TrainingError(
                f"{owner}: the reward of a response to prompt '{prompt.id}' is {shown}, "
                f"not a number from -1e15 to 1e15: {text[:80]!r}"
            )
        scores.append(score)
    return scores


def read_measures(reward: Reward) -> Mapping[str, Sequence[float]]:
    """Return what the last call of a reward measured besides the scores; nothing for most rewards."""
    return reward.measures() if isinstance(reward, ReportingReward) else {}


def check_measures(value: object, owner: str) -> dict[str, list[float]]:
    """Return the measures of a reward as floats.

    Raises:
        TrainingError: They are not lists of finite numbers by name.
    """
    if not isinstance(value, Mapping):
        raise TrainingError(f"{owner}: measures() returned {short(value)} instead of lists of numbers by name")
    found = {}
    for name, values in value.items():
        items = read_items(values)
        numbers = [read_number(item) for item in items or ()]
        kept = [number for number in numbers if number is not None and math.isfinite(number)]
        if not isinstance(name, str) or items is None or len(kept) < len(items):
            raise TrainingError(f"{owner}: measures() returned {short(values)} for {name!r}, not finite numbers")
        found[name] = kept
    return found


def check_terms(
    value: object, prompts: Sequence[Prompt], responses: Sequence[str], owner: str
) -> dict[str, list[float]]:
    """Return the terms of a reward's scores as floats.

    Raises:
        TrainingError: They are not valid scores by name.
    """
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        raise TrainingError(f"{owner}: score_terms() returned {short(value)} instead of scores by the name of the term")
    return {name: check_scores(scores, prompts, responses, f"{owner}, term '{name}'") for name, scores in value.items()}


def check_metric(value: object, prompts: Sequence[Prompt], owner: str) -> dict[str, list[float | None]]:
    """Return the numbers of a metric as floats.

    Raises:
        PluginError: They are not a finite number or None for each response, by name.
    """
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise PluginError(f"{owner}: measure() returned {short(value)} instead of a list of numbers by name")
    return {name: _check_numbers(name, numbers, prompts, owner) for name, numbers in value.items()}


def _check_numbers(name: str, value: object, prompts: Sequence[Prompt], owner: str) -> list[float | None]:
    found: list[float | None] = []
    items = read_exactly(value, len(prompts), "numbers", "responses", f"{owner}: measure(): '{name}'")
    for prompt, item in zip(prompts, items, strict=True):
        number = None if item is None else read_number(item)
        if item is not None and (number is None or not math.isfinite(number)):
            raise PluginError(
                f"{owner}: measure() of a response to prompt '{prompt.id}': '{name}' is {short(item)}, not a finite "
                "number or None"
            )
        found.append(number)
    return found


def check_preferences(preferences: object, comparisons: Sequence[Comparison], owner: str) -> Iterator[Preference]:
    """Yield a labeler's preferences after validating that there is one per comparison, in their order.

    The last one is held back until the labeler has ended, so that further ones are noticed by every caller.

    Raises:
        PluginError: A preference is missing, out of order, not a probability distribution, cannot be written to a
            file, or there are too many.
    """
    total = len(comparisons)
    if not isinstance(preferences, Iterable):
        raise PluginError(f"{owner}: returned {short(preferences)} instead of preferences for {total} comparisons")
    found, nothing = iter(preferences), object()
    for count, comparison in enumerate(comparisons):
        preference = next(found, nothing)
        if preference is nothing:
            raise PluginError(f"{owner}: returned {count} preferences for {total} comparisons")
        checked = _check_preference(preference, comparison, owner)
        if count == total - 1 and next(found, nothing) is not nothing:
            raise PluginError(f"{owner}: returned more than {total} preferences for {total} comparisons")
        yield checked


def _check_preference(value: object, comparison: Comparison, owner: str) -> Preference:
    preference = read_record(Preference, value, f"{owner}, comparison '{comparison.id}'")
    if preference.comparison != comparison.id:
        raise PluginError(f"{owner}: returned a preference for '{preference.comparison}', not '{comparison.id}'")
    if preference.probabilities is not None and not _is_distribution(preference.probabilities):
        first, second = preference.probabilities
        raise PluginError(
            f"{owner}: comparison '{comparison.id}': {first:g} and {second:g} are not probabilities that sum to 1"
        )
    return preference


def _is_distribution(probabilities: Sequence[float]) -> bool:
    return all(0 <= p <= 1 for p in probabilities) and abs(sum(probabilities) - 1) < TOLERANCE


def check_ballot(value: object, owner: str) -> Ballot:
    """Return the ballot of a prompt strategy after validating it.

    Raises:
        PluginError: It is not a ballot, or its probabilities are not a distribution.
    """
    ballot = read_record(Ballot, value, owner)
    if ballot.probabilities is not None and not _is_distribution(ballot.probabilities):
        raise PluginError(f"{owner}: {short(ballot.probabilities)} are not probabilities that sum to 1")
    return ballot


def check_answers(answers: object, requests: Sequence[Request], owner: str) -> Iterator[tuple[int, Answer]]:
    """Yield a backend's answers after validating each.

    Raises:
        PluginError: An answer has no request, or is not valid, or a request has no answer.
    """
    if not isinstance(answers, Iterable):
        raise PluginError(f"{owner}: returned {short(answers)} instead of answers to {len(requests)} requests")
    seen: set[int] = set()
    try:
        for item in answers:
            if not isinstance(item, tuple) or len(item) != 2:
                raise PluginError(f"{owner}: returned {short(item)} instead of (index of the request, answer)")
            number, answer = _read_index(item[0], len(requests), owner), read_record(Answer, item[1], owner)
            if number in seen:
                raise PluginError(f"{owner}: answered request {number} twice")
            seen.add(number)
            _check_answer(answer, requests[number], owner)
            yield number, answer
    finally:
        if isinstance(answers, Generator):  # which may wait for a server
            answers.close()
    if len(seen) < len(requests):
        raise PluginError(f"{owner}: answered {len(seen)} of {len(requests)} requests")


def _read_index(value: object, total: int, owner: str) -> int:
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < total:
        raise PluginError(f"{owner}: answered request {short(value)}, but was asked {total}")
    return number


def _check_answer(answer: Answer, request: Request, owner: str) -> None:
    if not isinstance(request, Choose) or not answer.probabilities:
        return
    if len(answer.probabilities) != len(request.options) or not _is_distribution(answer.probabilities):
        raise PluginError(
            f"{owner}: {short(answer.probabilities)} are not probabilities of {len(request.options)} options that "
            "sum to 1"
        )


def check_samples(value: object, prompts: Sequence[Prompt], owner: str) -> list[Sample]:
    """Return the responses of an algorithm to test prompts after validating them.

    Raises:
        PluginError: There is not one sample for each prompt.
    """
    items = read_exactly(value, len(prompts), "samples", "prompts", owner)
    return [
        read_record(Sample, item, f"{owner}, prompt '{prompt.id}'") for prompt, item in zip(prompts, items, strict=True)
    ]


def check_token_values(value: object, like: Any, where: str, both: bool, finite: bool) -> tuple[Any, Any]:
    """Return two tensors of an algorithm after validating that they have one value for each token.

    Args:
        value: What the algorithm returned.
        like: (tokens,) what it was given.
        where: Component and method, for error messages.
        both: False if only the first one is for tokens. The second one may be None.
        finite: True if the values must be finite, because those that they are computed from are.

    Raises:
        TrainingError: There are not two tensors, or one has another shape, which broadcasting could hide, or a value
            is not finite.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        raise TrainingError(f"{where} returned {short(value)} instead of two values: advantages, and targets or None")
    first, second = value
    for tensor in (first, second) if both and second is not None else (first,):
        if not isinstance(tensor, type(like)):
            raise TrainingError(f"{where} returned a {type(tensor).__name__} instead of a {type(like).__name__}")
        if tensor.shape != like.shape:
            raise TrainingError(
                f"{where} returned a tensor of shape {tuple(tensor.shape)} for {len(like)} tokens; return shape "
                f"({len(like)},)"
            )
        if finite and not tensor.isfinite().all():
            wrong = tensor[~tensor.isfinite()]
            raise TrainingError(
                f"{where} returned {wrong[0].item()} for {len(wrong)} of {len(like)} tokens; return finite numbers"
            )
    return first, second
