"""Find the settings and the length that servers accept, by sending requests. Error messages only suggest an order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from rlaif_framework import Question
from rlaif_plugins.backends.openai.classification import PassingFault, Reading, Refusal, SetupFault
from rlaif_plugins.backends.openai.lengths import estimate_prompt
from rlaif_plugins.backends.openai.reading import Completion
from rlaif_plugins.backends.openai.wire import OPTIONAL, Ask, Call, Dialect, Settings

SHORT_QUESTION = "Which is the larger number, 1 or 2? Answer with 1 or 2."
"""A question that no filter refuses: a server that refuses it refuses all requests with these settings."""
RESTORED = ("prefill", "logprobs", *OPTIONAL)
"""What is added to the fewest settings, in this order."""
SETTING_STATUSES = (400, 406, 415, 422)
"""Statuses with which servers refuse settings."""
CRASH_STATUSES = (500, 501)
"""Statuses of servers that fail on settings, instead of refusing them."""
MIN_FILLER = 200
"""Minimum number of tokens of a prompt for which its length may be the reason of a refusal."""
FILLER_WORDS = ("one", "two", "six", "ten", "red", "cat", "sun", "map", "old", "new", "day")
FITTING_FRACTION = 0.6
"""Fraction of a question to try if it is too long, and nothing is known about the limit."""
LONGER = 1.25
"""A prompt that is longer by less than this factor than one that was answered is not refused for its length."""

Send = Callable[[Call], Awaitable[Reading]]


def may_concern_settings(reading: Reading) -> bool:
    """Return True if a server may refuse the settings of a request, rather than its content."""
    if isinstance(reading, Refusal):
        return reading.status in SETTING_STATUSES
    return isinstance(reading, PassingFault) and reading.status in CRASH_STATUSES


def make_short(ask: Ask) -> Ask:
    """Return the short question, asked as another one is."""
    question = Question(SHORT_QUESTION, "Answer=" if ask.question.prefill else "")
    return replace(ask, question=question, is_probe=True)


async def negotiate(dialect: Dialect, send: Send, ask: Ask, call: Call, refused: Reading) -> Reading:
    """Answer a request that was refused with settings that no server has accepted yet.

    First, the settings that the server's messages suggest are tried with the request itself. If none is accepted, a
    short question is asked with the same settings, then with the fewest, and then with one more at a time. The settings
    that are found are used from then on.

    Args:
        dialect: Its settings are updated.
        send: Sends a request.
        ask: What is asked.
        call: The request that was refused.
        refused: What the server replied.

    Returns:
        The answer, or the refusal if the content of the request is its reason; a wrong set-up if no setting helps.
    """
    tried, reading = call, refused
    while (suggested := _suggest(dialect, tried, reading)) is not None:
        tried = dialect.build(ask, suggested)
        reading = await send(tried)
        if isinstance(reading, Completion):
            dialect.settings = suggested
            return reading
        if not may_concern_settings(reading):
            return reading
    short = make_short(ask)
    reading = await send(dialect.build(short))
    if isinstance(reading, Completion):
        return refused  # the settings are accepted, so the content of the request is the reason
    if not may_concern_settings(reading):
        return reading
    basic = await _first_accepted(dialect, send, short, dialect.basics())
    if basic is None:
        return _give_up(refused)
    dialect.settings = await _restore(dialect, send, short, basic)
    return await send(dialect.build(ask))


def _suggest(dialect: Dialect, call: Call, reading: Reading) -> Settings | None:
    message = reading.message if isinstance(reading, Refusal | PassingFault) else ""
    return dialect.suggest(call, message)


def _give_up(refused: Reading) -> Reading:
    if isinstance(refused, Refusal):
        return SetupFault(refused.where, refused.message, refused.status or 400, refuses_short=True)
    return refused


async def _restore(dialect: Dialect, send: Send, short: Ask, settings: Settings) -> Settings:
    """Return the settings with as many fields as the server accepts."""
    for name in RESTORED:
        candidates = list(dialect.restorations(settings, name))
        body = dialect.build(short, settings).body
        if candidates and dialect.build(short, candidates[0]).body == body:  # not part of this kind of request
            settings = candidates[0]
        else:
            settings = await _first_accepted(dialect, send, short, candidates) or settings
    return settings


async def _first_accepted(dialect: Dialect, send: Send, short: Ask, candidates: Iterable[Settings]) -> Settings | None:
    """Return the first settings with which a short question is answered; None if there are none."""
    for settings in candidates:
        for _ in range(2):  # a crash may have had another reason
            reading = await send(dialect.build(short, settings))
            if isinstance(reading, Completion):
                return settings
            if not isinstance(reading, PassingFault):
                break
    return None


async def is_too_long(dialect: Dialect, send: Send, ask: Ask, call: Call) -> bool:
    """Return True if a server refuses a request for its length: it refuses a meaningless text as long as well.

    Nothing is sent if a prompt of about this length has been answered before.
    """
    size = estimate_prompt(call.body)
    if size < MIN_FILLER or size <= LONGER * dialect.longest:
        return False
    # In most vocabularies, each of these words with its space is one token, so the text is as long as was estimated.
    filler = " ".join(FILLER_WORDS[i % len(FILLER_WORDS)] for i in range(size))
    question = Question(filler, ask.question.prefill)
    reading = await send(dialect.build(replace(ask, question=question, is_probe=True)))
    return isinstance(reading, Refusal) and reading.status is not None
