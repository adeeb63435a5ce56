"""Find out whether servers return the probabilities of chosen tokens, and which tokens the options are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlaif_framework import Question
from rlaif_framework.prompting import option_paths

LOGPROB_TOKEN_IDS: Literal["logprob_token_ids"] = "logprob_token_ids"
"""A setting of vLLM's `/completions` and `/chat/completions`."""
SCORE: Literal["score"] = "score"
"""SGLang's endpoint `/score`. vLLM's endpoint of the same name is for reranking models."""
Method = Literal["logprob_token_ids", "score"]
"""How a server returns the probabilities of chosen tokens."""
METHODS: tuple[Method, ...] = (LOGPROB_TOKEN_IDS, SCORE)
"""All methods, the cheapest first."""
ENDING_LENGTH = 40
"""Number of characters before an option that are tokenised with it: only the last ones can merge with it."""


def read_methods(description: Any, path: str) -> frozenset[Method]:
    """Return how a server returns the probabilities of chosen tokens, from its description of its API.

    Args:
        description: The parsed `/openapi.json`, which FastAPI generates.
        path: Path of the endpoint that answers questions, as `/chat/completions`.
    """
    try:
        if "/tokenize" not in description["paths"]:  # without ids of tokens nothing can be chosen
            return frozenset()
        found: set[Method] = set()
        if LOGPROB_TOKEN_IDS in _list_settings(description, f"/v1{path}"):
            found.add(LOGPROB_TOKEN_IDS)
        if {"label_token_ids", "apply_softmax"} <= _list_settings(description, "/v1/score"):
            found.add(SCORE)
        return frozenset(found)
    except (LookupError, TypeError, AttributeError):
        return frozenset()


def _list_settings(description: Mapping[str, Any], path: str) -> set[str]:
    """Return the names of the settings of an endpoint; none if there is no such endpoint."""
    post = description["paths"].get(path, {}).get("post")
    if post is None:
        return set()
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    return set((description["components"]["schemas"][name] if name else schema)["properties"])


def read_token_ids(data: Any) -> list[int]:
    """Return the token ids in a response of `/tokenize`.

    Raises:
        LookupError, TypeError, ValueError: There are none.
    """
    tokens = data["tokens"]
    if not all(isinstance(token, int) for token in tokens):
        raise ValueError("the tokens have no ids")
    return list(tokens)


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """The tokens of a choice's options, and where their probabilities must be read."""

    spaces: int
    """Number of spaces at the end of the question that are part of the options' tokens, as the one of ` 1`."""
    options: tuple[tuple[int, ...], ...]
    """Token ids of each option when it follows the question."""
    reads: Mapping[tuple[int, ...], tuple[str, tuple[int, ...]]]
    """For each path of `option_paths`: the text that follows the question, and the next tokens to read."""

    def place(self, question: Question, text: str) -> Question:
        """Return a question after which a token is read: without its last spaces, and with a text that follows."""
        if question.prefill:
            return replace(question, prefill=question.prefill[: len(question.prefill) - self.spaces] + text)
        return replace(question, text=question.text[: len(question.text) - self.spaces] + text)


async def find_label_tokens(
    ending: str, options: Sequence[str], tokenize: Callable[[str], Awaitable[list[int] | None]]
) -> LabelTokens | None:
    """Find the tokens of options, which depend on the characters before them.

    Args:
        ending: The end of the question.
        options: Texts that may follow it.
        tokenize: Returns the token ids of a text, or None.

    Returns:
        None if the options cannot be read after this ending.
    """
    after = [await tokenize(ending + option) for option in options]
    # An option's token may begin with the spaces before it.
    for kept in dict.fromkeys((ending, ending.rstrip())):
        before = await tokenize(kept)
        if before is None or not all(after):
            return None
        spaces = ending[len(kept) :]
        plan = plan_reads([spaces + option for option in options], before, [ids or [] for ids in after])
        if plan is not None:
            return LabelTokens(len(spaces), *plan)
    return None


def plan_reads(
    options: Sequence[str], before: Sequence[int], after: Sequence[Sequence[int]]
) -> tuple[tuple[tuple[int, ...], ...], dict[tuple[int, ...], tuple[str, tuple[int, ...]]]] | None:
    """Plan how to read the probabilities of options.

    Args:
        options: Texts that may follow the question.
        before: Token ids of the end of the question.
        after: Token ids of the end of the question with each option.

    Returns:
        The token ids of each option, and `LabelTokens.reads`. None if options merge with the last token of the
        question, have the same tokens, or begin with the same tokens that are not an option themselves.
    """
    size = len(before)
    if any(list(ids[:size]) != list(before) or len(ids) == size for ids in after):
        return None
    found = tuple(tuple(ids[size:]) for ids in after)
    if len(set(found)) < len(found):
        return None
    # The text of a path is known if it is an option: the `1` of `10`.
    texts = {(): "", **dict(zip(found, options, strict=True))}
    reads = {}
    for path in option_paths(found):
        if path not in texts:
            return None
        wanted = {ids[len(path)] for ids in found if len(ids) > len(path) and ids[: len(path)] == path}
        reads[path] = (texts[path], tuple(sorted(wanted)))
    return found, reads
