"""Classify responses: an answer, a refusal of the request, a passing fault, or a wrong set-up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rlaif_plugins.backends.openai.reading import (
    Completion,
    find_choice,
    read_completion,
    read_finish,
    read_usage,
)
from rlaif_plugins.backends.openai.transport import Response, join_lines

OVERLOAD_STATUSES = (408, 409, 425, 429)
"""Request timeout, conflict, too early, too many requests."""
SETUP_STATUSES = (401, 402, 407)
"""No valid key, no credit, a proxy without credentials: no request can be answered."""
CONTENT_STATUSES = (400, 413, 422)
"""Statuses that usually are caused by the content of one request, e.g. by a content filter."""
# Parts of names, since each provider has its own, and some add a suffix. A reason that has none of them is unknown: its
# answer is used if there is one, because a server may end each of its answers with a name of its own.
WITHHELD = re.compile(
    r"content_?filter|content_policy|safety|sensitive|recitation|blocklist|prohibited|spii|refus|guardrail|model_armor"
    r"|^image_"
)
"""Reasons to finish with which an answer is withheld, and codes of such errors, in lower case."""
INTERRUPTED = re.compile(r"error|abort|cancel|fail|time_?out|resource|network|interrupt|overload|unavailable")
"""Reasons to finish of a server that did not complete the answer, in lower case, such as vLLM's `abort`."""
CONTENT_CODES = ("invalid_request_error", "context_length_exceeded")
"""Other codes of errors about the content of a request, which gateways report with status 200 and no other status."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server or the model refuses this request, although others may be answered."""

    where: str
    """What the server answered, such as `answered 400`."""
    message: str
    """The server's message."""
    status: int | None = None
    """The status of an error; None if the model declined, or a filter withheld, an answer that was generated."""
    prompt_tokens: int = 0
    """Tokens that were used for an answer that is withheld."""
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PassingFault:
    """There is no answer, but the same request may be answered later."""

    where: str
    message: str = ""
    status: int | None = None
    is_outage: bool = False
    """True if the server says that it cannot answer now. Otherwise, the content of the request may be the reason."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.message else self.where


@dataclass(frozen=True, slots=True)
class SetupFault:
    """No request can be answered."""

    where: str
    message: str
    status: int
    refuses_short: bool = False
    """True if the server has refused a short question as well."""


Reading = Completion | Refusal | PassingFault | SetupFault
Read = Callable[[Any, Mapping[str, Any]], Completion]
"""Reads the response to a body; see `read_completion`."""


def classify(response: Response, body: Mapping[str, Any], read: Read = read_completion) -> Reading:
    """Classify a response to a request, whatever it is.

    Args:
        response: The response.
        body: The request.
        read: Reads an answer from the parsed JSON.
    """
    status = response.status
    where = f"answered {status}"
    if response.is_success:
        return _classify_success(response, body, read)
    if status < 200 or 300 <= status < 400:
        to = f", a redirect to {response.location} (redirects are not followed)" if response.location else ""
        return PassingFault(f"{where}{to}", response.message, status)
    if status in OVERLOAD_STATUSES or status >= 500:
        return PassingFault(where, response.message, status, is_outage=True)
    if status in SETUP_STATUSES:
        return SetupFault(where, response.message, status)
    return Refusal(where, response.message, status)


def _classify_success(response: Response, body: Mapping[str, Any], read: Read) -> Reading:
    where, data = f"answered {response.status}", response.data
    if response.fault is not None:
        return PassingFault(f"{where} with something other than a completion ({response.fault})", response.excerpt)
    try:
        if (error := _find_error(data)) is not None:
            status, message = error
            inside = f"{where} with an error inside ({status})"
            # It comes from a server behind the one that answers, and may concern one request whatever its status is.
            if status in OVERLOAD_STATUSES or status >= 500:
                return PassingFault(inside, message, status)
            return Refusal(inside, message, status)
        if (declined := _find_refusal(data)) is not None:
            prompt, generated = read_usage(data, body)
            return Refusal(where, declined, None, prompt, generated or 0)
        return read(data, body)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as fault:
        reason = f"{where} with something other than a completion ({fault})"
        return PassingFault(reason, json.dumps(data, ensure_ascii=False))


def _find_error(data: Any) -> tuple[int, str] | None:
    """Return the HTTP status and the message of an error inside a response with status 200; None if there is none.

    Gateways report errors in this way, in the response or in its choice. Without a status of their own, they are
    regarded as passing failures (500).
    """
    if not isinstance(data, dict):
        return None
    choice = _find_choice(data)
    error = data.get("error") or choice.get("error")
    details = error if isinstance(error, dict) else {"message": error}
    if not any(details.values()):
        finish = read_finish(choice)
        is_whole = WITHHELD.search(finish) or not INTERRUPTED.search(finish)
        return None if is_whole else (500, f"the answer was interrupted (finish_reason {finish})")
    codes = [str(details.get(name)).lower() for name in ("code", "status", "status_code", "type")]
    stated = next((int(code) for code in codes if re.fullmatch(r"[45][0-9][0-9]", code)), None)
    status = stated or (400 if any(code in CONTENT_CODES or WITHHELD.search(code) for code in codes) else 500)
    return status, str(details.get("message") or error)


def _find_refusal(data: Any) -> str | None:
    """Return the reason why there is no answer: a content filter, or the model declined. None if there is one."""
    choice = _find_choice(data)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    parts = message.get("content")
    inner = [part.get("refusal") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if refusal := next((r for r in (message.get("refusal"), *inner) if r), None):
        return f"the model declined to answer: {join_lines(str(refusal))}"
    finish = read_finish(choice)
    return f"a content filter withheld the answer (finish_reason {finish})" if WITHHELD.search(finish) else None


def _find_choice(data: Any) -> Mapping[str, Any]:
    """Return the choice to read; an empty one if there is none."""
    with suppress(LookupError, TypeError, ValueError):
        return find_choice(data)
    return {}
