"""Find out whether a model puts a space between the end of a question and its answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from rlaif_framework.contracts.protocols import Backend
from rlaif_framework.prompting.coroutines import run_coroutines
from rlaif_framework.records.ballots import LOW_MASS
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.requests import Answer, Asked, Choose

_TEXT = "It rained on Sunday, so we stayed at home, played cards and baked a cake."
PROBE = Prompt("probe", _TEXT, _TEXT)
"""A prompt whose questions decide about the ending, the same in every run."""
PROBE_RESPONSES = ("We stayed at home because of the rain.", "We went to the sea on Sunday.")


def choose_ending(ending: str, ask: Callable[[str], Choose], backend: Backend) -> str:
    """Return an ending, followed by a space if the model puts one before its answer.

    After `SCORE:`, many models write a space before a number. If the space is a token of its own, the numbers have
    little probability right after the colon, and what they have says little about the score.

    Args:
        ending: The text right before the answer.
        ask: Returns the request with another ending. It must not depend on the data, so that the choice is the same
            when a run is resumed.
        backend: Answers the requests; with chat templates and tokenizers of its own.
    """
    if not ending or ending[-1].isspace():
        return ending
    plain = _measure_mass(ask(ending), backend)
    if plain is None or plain >= 0.5:
        return ending
    spaced = _measure_mass(ask(f"{ending} "), backend)
    if spaced is None or spaced < LOW_MASS:
        return ending
    # The model writes a space at most where it writes no label.
    return f"{ending} " if (1 - plain) * spaced > plain else ending


def _measure_mass(request: Choose, backend: Backend) -> float | None:
    def elicit() -> Generator[Asked, Any, Answer]:
        answer: Answer = yield request
        return answer

    (outcome,) = run_coroutines([elicit()], backend)
    return outcome.value.mass if outcome.value is not None else None
