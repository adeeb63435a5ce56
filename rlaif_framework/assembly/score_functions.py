"""Call the functions of users that score responses, in the way that TRL calls the reward functions of its trainers."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from rlaif_framework.contracts.values import read_exactly, read_number
from rlaif_framework.errors import PluginError, RlaifError
from rlaif_framework.plugins.failures import describe_error
from rlaif_framework.plugins.own_code import OwnCode, split_target
from rlaif_framework.records.preferences import Prompt

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

ATTRIBUTES = ("id", "source", "reference")
"""Attributes of a prompt that a function can take as columns, besides the columns of the prompt's row."""
GIVEN = ("prompts", "completions", "completion_ids", "log_metric", "log_extra")
"""Arguments of TRL's reward functions that a function can take, besides columns."""
UNAVAILABLE = {
    "trainer_state": "a score must not depend on the progress of training",
    "environments": "there are no environments",
}


class ScoreFunction:
    """A function `score(prompts, completions, **columns)` that returns a score for each completion.

    Args:
        target: The function, as `FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION`.
        code: Finds the function.
        load_tokenizer: Loads the tokenizer of the policy, for a function that takes `completion_ids`.
        available: Names of the columns of prompts.
        columns: The column or attribute of a prompt for each column of another name, such as `{"answer": "reference"}`.
        conversational: If True, prompts are lists of messages and a completion is a list of one message.
        owner: Name of the component that calls it, for error messages.

    Raises:
        SpecError: The code is not allowed to run.
        PluginError: There is no such function, or it takes something that it cannot be given.
    """

    def __init__(
        self,
        target: str,
        code: OwnCode,
        load_tokenizer: Callable[[], Any],
        available: Sequence[str],
        columns: Mapping[str, str],
        conversational: bool,
        owner: str,
    ) -> None:
        self.load_tokenizer = load_tokenizer
        self.conversational = conversational
        self.owner = f"{owner}: {target}"
        self.available = (*ATTRIBUTES, *available)
        self.columns = {name: name for name in self.available} | self._check_columns(columns)
        self.function = code.find_function(target)
        self.module = code.load(split_target(target)[0]).__name__
        self.accepted = self._find_accepted()
        self.logged: dict[str, list[float]] = {}
        """What the last call logged by `log_metric`, by name."""

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
        """Score the responses to prompts, pairwise; None where the function returns None: it does not apply there.

        Raises:
            PluginError: The function raises an error, or does not return a finite number or None for each response.
        """
        self.logged = {}
        if not responses:
            return []
        values = self._call(self._collect(prompts, responses))
        items = read_exactly(values, len(responses), "scores", "completions", self.owner)
        return [self._check(item, prompt, text) for item, prompt, text in zip(items, prompts, responses, strict=True)]

    def _check_columns(self, columns: Mapping[str, str]) -> dict[str, str]:
        for name, column in columns.items():
            if column not in self.available:
                raise PluginError(f"{self.owner}: columns: {name}: prompts have no column '{column}'; {self._advise()}")
        return dict(columns)

    def _advise(self) -> str:
        return f"they have {', '.join(self.available)}; task.columns of the task 'text' lists others of the data"

    def _find_accepted(self) -> set[str]:
        """Return the names of the arguments that the function takes."""
        available = {*GIVEN, *self.columns}
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):  # of code that is not Python
            return available
        for parameter in parameters:
            named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            needed = parameter.default is parameter.empty and (named or parameter.kind is parameter.POSITIONAL_ONLY)
            if needed and not (named and parameter.name in available):
                raise PluginError(f"{self.owner} takes '{parameter.name}': {self._explain_missing(parameter.name)}")
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            # Tokens are computed only for a function that names them.
            return available - {"completion_ids"} | {parameter.name for parameter in parameters} & available
        return {parameter.name for parameter in parameters} & available

    def _explain_missing(self, name: str) -> str:
        if name in UNAVAILABLE:
            return UNAVAILABLE[name]
        return f"prompts have no such column; {self._advise()}. To rename one, set columns: {{{name}: reference}}"

    def _collect(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, Any]:
        """Collect the arguments that the function takes."""
        values: dict[str, Callable[[], Any]] = {
            "prompts": lambda: [self._show_prompt(prompt) for prompt in prompts],
            "completions": lambda: [self._show_response(text) for text in responses],
            "completion_ids": lambda: [self._tokenizer(text, add_special_tokens=False).input_ids for text in responses],
            "log_metric": lambda: self._log_metric,
            "log_extra": lambda: _ignore,
        }
        found = {name: make() for name, make in values.items() if name in self.accepted}
        for name, column in self.columns.items():
            if name in self.accepted:
                found[name] = [self._read_column(prompt, column) for prompt in prompts]
        return found

    def _read_column(self, prompt: Prompt, column: str) -> Any:
        if column in ATTRIBUTES:
            return getattr(prompt, column)
        if column not in prompt.columns:
            raise PluginError(f"{self.owner}: prompt '{prompt.id}' has no column '{column}'; its row has no value")
        return prompt.columns[column]

    def _show_prompt(self, prompt: Prompt) -> str | list[dict[str, str]]:
        if not self.conversational:
            return prompt.text
        return [{"role": turn.role, "content": turn.content} for turn in prompt.conversation]

    def _show_response(self, text: str) -> str | list[dict[str, str]]:
        return [{"role": "assistant", "content": text}] if self.conversational else text

    @cached_property
    def _tokenizer(self) -> Any:
        return self.load_tokenizer()

    @cached_property
    def _loop(self) -> AbstractEventLoop:
        """An event loop in a thread: the caller may run in a loop of its own, as in a notebook."""
        import asyncio  # here: every command imports this module

        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="rlaif-score-function", daemon=True).start()
        return loop

    def _call(self, arguments: Mapping[str, Any]) -> Any:
        try:
            values = self.function(**arguments)
            if inspect.iscoroutine(values):
                values = self._wait(values)
        except (KeyboardInterrupt, RlaifError):
            raise
        except BaseException as error:  # the function may raise anything
            raise PluginError(f"{self.owner} failed: {describe_error(error, self.module)}") from error
        return values

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _log_metric(self, name: str, value: float) -> None:
        self.logged.setdefault(name, []).append(value)

    def _check(self, item: object, prompt: Prompt, response: str) -> float | None:
        if item is None:
            return None
        score = read_number(item)
        if score is None or not math.isfinite(score):
            shown = short(item) if score is None else str(score)
            raise PluginError(
                f"{self.owner}: the score of a response to prompt '{prompt.id}' is {shown}, not a finite number or "
                f"None: {response[:80]!r}"
            )
        return score


def _ignore(column: str, values: Sequence[Any]) -> None:
    """Ignore a column for TRL's table of completions."""
