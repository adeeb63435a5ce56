"""Read the texts, log-probabilities and usage of completions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif_plugins.backends.openai.lengths import estimate_prompt, estimate_tokens

MAX_ROUNDING = 0.01
"""Maximum by which rounding can make a log-probability positive."""
MAX_MASS = 1.05
"""Maximum by which rounding, as to bfloat16, can raise the sum of probabilities of different tokens."""
MAX_USAGE = 10**7
"""Maximum number of tokens that a server can plausibly count for one request."""
TOKEN_ID = "token_id:"
"""Precedes the number of a token in the responses of vLLM, with `return_tokens_as_token_ids`."""
SPACES = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n"})
"""White space as the vocabularies of byte-level BPE and SentencePiece spell it."""
BYTE_TOKEN = re.compile("<0x([0-7][0-9A-F])>")
"""A byte as the vocabularies of SentencePiece spell it, if it is a whole character."""
END_TOKENS = re.compile(
    r"<\|(?:im_end|eot|eot_id|eom_id|end|endoftext|end_of_text|end_of_turn|END_OF_TURN_TOKEN|return|user)\|>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>|<end_of_turn>|<eos>|\[\|endofturn\|\]"
)
"""End tokens that some servers leave in the text. What follows the end of a turn is not part of the answer."""
# `</s>` is HTML as well, so it counts only at the very end. A search for it would take minutes in a text of many lines
# without a word, as it would look for the end from each of them; backwards there is only one place to look at.
LAST_TOKENS = re.compile(r"\s*(?:>s/<\s*)+")
"""`</s>` at the end of a text, backwards."""
CUT = frozenset({"length", "max_tokens", "model_length"})
"""Reasons to finish of answers that have reached the maximum length."""
ENDED = CUT | {"", "stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"}
"""Reasons to finish of complete answers, in lower case; empty if the server states none."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer to one request."""

    text: str
    logprobs: Sequence[tuple[str, float]]
    """The most likely first tokens with their log-probabilities; empty if the server returns none."""
    prompt_tokens: int
    generated_tokens: int
    dropped: tuple[str, ...] = ()
    """Settings that were not sent because the server had refused them."""
    by_id: Mapping[int, float] = field(default_factory=dict)
    """Log-probabilities of the requested tokens, by token id; empty if none were requested."""
    key: bytes = b""
    """Key of the request in the journal."""


def find_choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the choice to read: the one with index 0 if there are several.

    Raises:
        LookupError, TypeError, ValueError: There is none.
    """
    choices = data["choices"]
    if not isinstance(choices, list):
        raise TypeError("its choices are not a list")
    found = [choice for choice in choices if isinstance(choice, dict)]
    if not found:
        raise ValueError("it has no choices")
    return next((choice for choice in found if choice.get("index") == 0), found[0])


def read_finish(choice: Mapping[str, Any]) -> str:
    """Return why the answer of a choice ended, in lower case; an empty text if the server does not say."""
    reason = choice.get("finish_reason")
    return "" if reason is None else str(reason).lower().replace("-", "_")


def find_message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message of a choice. The text of a completion is in the choice itself.

    Raises:
        LookupError: There is none.
    """
    message = choice.get("message")
    return message if isinstance(message, dict) else {"content": choice["text"]}


def read_completion(data: Any, body: Mapping[str, Any]) -> Completion:
    """Read a response of `/chat/completions` or `/completions`.

    Args:
        data: The parsed JSON.
        body: The request.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: It does not conform to the API, or has log-probabilities
            that are none.
    """
    choice = find_choice(data)
    content = find_message(choice)["content"]
    text = _read_text(content)
    logprobs = _read_logprobs(choice.get("logprobs"))
    if not content and not logprobs:
        _check_empty(content, read_finish(choice))
    prompt, generated = read_usage(data, body)
    return Completion(
        text,
        [(token, logprob) for token, logprob in logprobs if not token.startswith(TOKEN_ID)],
        prompt,
        estimate_tokens(text) if generated is None else generated,
        by_id={int(t.removeprefix(TOKEN_ID)): p for t, p in logprobs if t.startswith(TOKEN_ID)},
    )


def _check_empty(content: Any, finish: str) -> None:
    """Check that an answer without a text is complete.

    Raises:
        ValueError: It is not.
    """
    # With the maximum length, all tokens may have been used for thoughts, as they will be again. Otherwise a complete
    # answer without a text is an empty text: null is that of a tool call, or was lost.
    if finish not in ENDED or (content is None and finish not in CUT):
        raise ValueError(f"it has no text, with finish_reason {finish or 'null'}")


def read_scores(data: Any, body: Mapping[str, Any]) -> Completion:
    """Read a response of SGLang's `/score` to a request for probabilities over the whole vocabulary.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: It does not conform to the API.
    """
    ids = body["label_token_ids"]
    scores = data["scores"][0]
    if len(scores) != len(ids) or not all(_is_number(p) and 0 <= p <= 1 + MAX_ROUNDING for p in scores):
        raise ValueError("its scores are not probabilities of the label tokens")
    _check_mass(scores)
    by_id = {i: math.log(min(1.0, p)) if p > 0 else -math.inf for i, p in zip(ids, scores, strict=True)}
    return Completion("", [], read_usage(data, body)[0], 0, by_id=by_id)


def read_usage(data: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return the number of tokens of the prompt and of the answer.

    A number that a server does not count, or that is none, is estimated for the prompt, and None for the answer.
    """
    usage = data.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt, generated = (_read_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return prompt or estimate_prompt(body), generated or None


def _read_count(value: Any) -> int:
    return int(value) if _is_number(value) and 0 <= value <= MAX_USAGE else 0


def _read_text(content: Any) -> str:
    """Return the text of an answer, which may be a list of parts: those with thoughts are left out."""
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else _read_part(part) for part in content]
        content = "".join(parts)
    if not isinstance(content, str | None):
        raise TypeError("its text is not a string")
    text = END_TOKENS.split(content or "", maxsplit=1)[0]
    last = LAST_TOKENS.match(text[::-1])
    return text[: len(text) - last.end()] if last else text


def _read_part(part: Mapping[str, Any]) -> str:
    if part.get("type") not in ("text", "output_text"):
        return ""
    text = part["text"]
    if not isinstance(text, str):
        raise TypeError("its text is not a string")
    return text


def _read_logprobs(logprobs: Any) -> list[tuple[str, float]]:
    """Return the most likely first tokens with their log-probabilities, in the form of either endpoint.

    Raises:
        ValueError: A log-probability is not a number, infinite or positive, all are those of probability 0, or the
            probabilities add up to more than 1.
    """
    # llama.cpp uses the form of chats for both endpoints, and llama-cpp-python that of completions.
    pairs = [(_spell_token(str(token)), logprob) for token, logprob in _list_first(logprobs or {})]
    # Some servers list the chosen token once more.
    read = list(dict.fromkeys((token, _read_logprob(token, logprob)) for token, logprob in pairs))
    if read and all(logprob == -math.inf for _, logprob in read):
        raise ValueError("all its log-probabilities are those of probability 0")
    _check_mass(math.exp(logprob) for _, logprob in read)
    return read


def _spell_token(token: str) -> str:
    """Return a token as it is in texts."""
    byte = BYTE_TOKEN.fullmatch(token)
    return chr(int(byte[1], 16)) if byte else token.translate(SPACES)


def _check_mass(probabilities: Iterable[float]) -> None:
    """Check that probabilities of different tokens do not exceed 1 together by more than rounding.

    Raises:
        ValueError: They do.
    """
    if (mass := sum(probabilities)) > MAX_MASS:
        raise ValueError(f"the probabilities of its tokens add up to {mass:.3g}")


def _read_logprob(token: str, logprob: Any) -> float:
    # The logarithm of 0 arrives as null or as -Infinity, because JSON has no infinite numbers.
    if logprob is None or logprob == -math.inf:
        return -math.inf
    if not _is_number(logprob) or logprob > MAX_ROUNDING:
        raise ValueError(f"the log-probability of {token!r} is {logprob!r}")
    return min(0.0, float(logprob))


def _list_first(logprobs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the most likely tokens at the first position."""
    content = logprobs.get("content") or []
    tops = content[0].get("top_logprobs") if content else next(iter(logprobs.get("top_logprobs") or []), None)
    if isinstance(tops, Mapping):
        yield from tops.items()
    else:
        yield from ((top["token"], top["logprob"]) for top in tops or [])


def _is_number(value: Any) -> bool:
    # Integers may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
