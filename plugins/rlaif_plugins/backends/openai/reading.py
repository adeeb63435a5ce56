"""Read the content of responses: texts, log-probabilities, usage, and reasons why there is no answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif_plugins.backends.openai.lengths import estimate_prompt, estimate_tokens

MAX_ROUNDING = 0.01
"""Maximum by which rounding can make a log-probability positive."""
TOKEN_ID = "token_id:"
"""Precedes the number of a token in the responses of vLLM, with `return_tokens_as_token_ids`."""
FILTERED = ("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii")
"""Reasons to finish with which a content filter withholds an answer, in lower case: OpenAI's and Gemini's."""
SPACES = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n"})
"""White space as the vocabularies of byte-level BPE and SentencePiece spell it."""
# Text after the end of a turn is not part of the answer. `</s>` is HTML as well, so it counts only at the very end.
END_TOKENS = re.compile(
    r"(?:<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|end_of_turn|return)\|>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>|<end_of_turn>|<eos>).*|(?:\s*</s>)+\s*$",
    re.DOTALL,
)
"""End tokens that some servers leave in the text, with what follows them."""


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
    declined: str | None = None
    """Reason why the server or the model declined to answer; None if it did not."""
    by_id: Mapping[int, float] = field(default_factory=dict)
    """Log-probabilities of the requested tokens, by token id; empty if none were requested."""


def find_error(data: Any) -> tuple[int, str] | None:
    """Return the HTTP status and the message of an error inside a response with status 200; None if there is none.

    Gateways report errors in this way, in the response or in its choice. Without a status of their own, they are
    regarded as passing failures (502).
    """
    if not isinstance(data, dict):
        return None
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = data.get("error") or choice.get("error")
    if not error:
        return (502, "the answer was finished by an error") if choice.get("finish_reason") == "error" else None
    details = error if isinstance(error, dict) else {"message": error}
    code = str(details.get("code")).lower()
    status = int(code) if re.fullmatch(r"[45]\d\d", code) else 400 if code in FILTERED else 502
    return status, " ".join(str(details.get("message") or error).split())


def read_completion(data: Any, body: Mapping[str, Any]) -> Completion:
    """Parse a response of `/chat/completions` or `/completions`.

    Args:
        data: The parsed JSON.
        body: The request.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: It does not conform to the API, or has log-probabilities
            that are none.
    """
    choices = data["choices"]
    if not choices:
        raise ValueError("it has no choices")
    choice = choices[0]
    # The text of a completion is in the choice itself.
    message = choice["message"] if isinstance(choice.get("message"), dict) else {"content": choice["text"]}
    declined = _find_refusal(choice, message)
    text = _read_text(message.get("content") if declined else message["content"])
    logprobs = _read_logprobs(choice.get("logprobs"))
    usage = data.get("usage") or {}  # optional on some servers; estimated if missing
    return Completion(
        text,
        [(token, logprob) for token, logprob in logprobs if not token.startswith(TOKEN_ID)],
        int(usage.get("prompt_tokens") or estimate_prompt(body)),
        int(usage.get("completion_tokens") or estimate_tokens(text)),
        declined=declined,
        by_id={int(t.removeprefix(TOKEN_ID)): p for t, p in logprobs if t.startswith(TOKEN_ID)},
    )


def read_scores(data: Any, body: Mapping[str, Any]) -> Completion:
    """Parse a response of SGLang's `/score` to a request for probabilities over the whole vocabulary.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: It does not conform to the API.
    """
    ids = body["label_token_ids"]
    scores = data["scores"][0]
    if len(scores) != len(ids) or not all(_is_number(p) and 0 <= p <= 1 + MAX_ROUNDING for p in scores):
        raise ValueError("its scores are not probabilities of the label tokens")
    usage = data.get("usage") or {}
    by_id = {i: math.log(min(1.0, p)) if p > 0 else -math.inf for i, p in zip(ids, scores, strict=True)}
    return Completion("", [], int(usage.get("prompt_tokens") or estimate_prompt(body)), 0, by_id=by_id)


def _read_text(content: Any) -> str:
    """Return the text of an answer, which may be a list of parts: those with thoughts are left out."""
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else _read_part(part) for part in content]
        content = "".join(parts)
    if not isinstance(content, str | None):
        raise TypeError("its text is not a string")
    return END_TOKENS.sub("", content or "")


def _read_part(part: Mapping[str, Any]) -> str:
    if part.get("type") not in ("text", "output_text"):
        return ""
    text = part["text"]
    if not isinstance(text, str):
        raise TypeError("its text is not a string")
    return text


def _find_refusal(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str | None:
    """Return the reason why there is no answer: a content filter, or the model declined. None if there is one."""
    parts = message.get("content")
    inner = [part.get("refusal") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if refusal := next((r for r in (message.get("refusal"), *inner) if r), None):
        return f"the model declined to answer: {' '.join(str(refusal).split())}"
    finished = str(choice.get("finish_reason")).lower()
    return f"a content filter withheld the answer (finish_reason {finished})" if finished in FILTERED else None


def _read_logprobs(logprobs: Any) -> list[tuple[str, float]]:
    """Return the most likely first tokens with their log-probabilities, in the form of either endpoint.

    Raises:
        ValueError: A log-probability is not a number, infinite or positive.
    """
    # llama.cpp uses the form of chats for both endpoints, and llama-cpp-python that of completions.
    pairs = [(str(token).translate(SPACES), logprob) for token, logprob in _list_first(logprobs or {})]
    return [(token, _read_logprob(token, logprob)) for token, logprob in pairs]


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
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
