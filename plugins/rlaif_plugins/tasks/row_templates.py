"""Render prompts from the columns of a row with Jinja templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from rlaif_framework import Prompt, Turn
from rlaif_framework.data import ASSISTANT_CUE, RowFault, Template, TemplateFault, hash_texts, join_transcript
from rlaif_framework.records import Role

ROW = "row"
"""Name of the mapping of all columns in templates, for columns whose names cannot be written in a template."""

Values = Mapping[str, Any]


def plain_values(row: Values) -> dict[str, Any]:
    """Return the columns of a row for templates: empty cells are empty texts, and dates and the like are texts."""
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: object, empty: str | None = "") -> Any:
    if value is None or value != value:  # NaN, which pandas writes for empty cells
        return empty
    if isinstance(value, Mapping):
        return {str(name): _plain(item, empty) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, empty) for item in value]
    return value if isinstance(value, str | int | float) else str(value)


def select_columns(row: Values, names: Iterable[str]) -> dict[str, Any]:
    """Return columns of a row as JSON has them: empty cells are None, and dates and the like are texts.

    Raises:
        RowFault: The row does not have one of them.
    """
    for name in names:
        if name not in row:
            raise RowFault(f"no column '{name}', which task.columns lists; the row has {', '.join(map(str, row))}")
    return {name: _plain(row[name], None) for name in names}


class RowTemplate:
    """A template of the columns of a row.

    Args:
        name: Name of the setting, for errors.
        source: The template. One line break at its end is dropped, which YAML adds to a block.

    Raises:
        TemplateFault: It is invalid.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self._template = Template(name, source.removesuffix("\n"))

    @property
    def names(self) -> frozenset[str]:
        """The names that the template reads."""
        return self._template.names

    def columns(self, values: Values) -> list[str]:
        """Return the columns that the template may use: those it names, or all if it uses `row`."""
        return [name for name in values if ROW in self.names or name in self.names]

    def render(self, values: Values) -> str:
        """Render the template.

        Raises:
            RowFault: It fails with these columns.
        """
        try:
            return self._template.render(**{ROW: values, **values})
        except TemplateFault as fault:
            unknown = sorted(self.names - values.keys() - {ROW})
            raise RowFault(f"{fault}{_suggest_column(fault.reason, unknown, values)}", str(fault)) from fault


def _suggest_column(reason: str, unknown: Iterable[str], values: Values) -> str:
    """Return a hint for a column that the row does not have, if this is the reason of a fault."""
    name = next((name for name in unknown if f"'{name}' is undefined" in reason), None)
    if name is None:
        return ""
    near = get_close_matches(name, values, n=1, cutoff=0.6)
    columns = ", ".join(list(values)[:12])
    return f"; did you mean '{near[0]}'? The row has {columns}" if near else f"; the row has {columns}"


@dataclass(frozen=True)
class PromptTemplates:
    """The templates of a prompt."""

    text: RowTemplate | None
    """The text for a policy without a chat template; by default it is made from the turns."""
    turns: Sequence[tuple[Role, RowTemplate]] = ()
    """The messages for a policy with a chat template; by default the text is one message of the user."""
    source: RowTemplate | None = None
    """What a response is about, which annotators see; by default the text or the only message."""
    truncate: str | None = None
    """The column that may be truncated. By default, and where it is empty, it is the longest one of the row that the
    prompt has unchanged; if there is none, the source."""
    noun: str = "column '{}'"
    """Names the column in errors."""
    strip: bool = True
    """If True, prompts have no white space at both ends."""

    @cached_property
    def parts(self) -> list[RowTemplate]:
        """The templates that are truncated with the source."""
        return [part for part in (self.text, *(template for _, template in self.turns), self.source) if part]

    def render(
        self, values: Values, identity: str | None = None, reference: str | None = None, system: str | None = None
    ) -> Prompt:
        """Return the prompt of a row.

        Args:
            values: The columns; see `plain_values`.
            identity: The id; by default a hash of the text.
            reference: The reference response.
            system: The system prompt.

        Raises:
            RowFault: A template fails, the prompt is empty, or it changes the column that may be truncated.
        """
        turns = [Turn(role, self._render(template, values)) for role, template in self.turns]
        text = self._render(self.text, values) if self.text else _join_turns(turns)
        source = self._render(self.source, values) if self.source else text if self.text else _strip_cue(turns)
        for name, part in (("prompt", text), ("source", source)):
            if not part:
                raise RowFault(f"the {name} is empty; see task.{name}")
        if system:
            turns = [Turn("system", system), *(turns or [Turn("user", text)])]
        span = self._find_passage(values, source, [text, *(["\n".join(t.content for t in turns)] if turns else [])])
        whole = None if span == (0, len(source)) else span
        return Prompt(identity or hash_texts(text), text, source, reference, tuple(turns), whole)

    def _render(self, template: RowTemplate, values: Values) -> str:
        text = template.render(values)
        return text.strip() if self.strip else text

    def _find_passage(self, values: Values, source: str, texts: Sequence[str]) -> tuple[int, int]:
        """Return which part of the source may be truncated; an empty one if nothing is in the texts unchanged."""
        if self.truncate is not None and self.truncate not in values:
            raise RowFault(f"task.truncate: the row has no column '{self.truncate}'; it has {', '.join(values)}")
        used = {name for part in self.parts for name in part.columns(values)}
        # Of columns of equal length, the first one of the row: a set has another order in every process.
        longest = sorted((name for name in values if name in used), key=lambda name: -_size(values[name]))
        named = self.truncate is not None and _size(values[self.truncate]) > 0
        for name in [self.truncate or ""] if named else longest:
            column = values[name].strip() if isinstance(values[name], str) else ""
            start = source.rfind(column)
            if column and start >= 0 and all(column in text for text in texts):
                return start, start + len(column)
        if named:
            raise RowFault(
                f"{self._find_changed(values, self.truncate or '')} changes the {self.noun.format(self.truncate)}; "
                "prompts must contain it unchanged, so that it can be truncated"
            )
        return (0, len(source)) if self.source and all(source in text for text in texts) else (0, 0)

    def _find_changed(self, values: Values, column: str) -> str:
        """Return the name of the first template whose text does not have a column."""
        changed = (part.name for part in self.parts if values[column].strip() not in part.render(values))
        return next(changed, "task.prompt")


def _size(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def _join_turns(turns: Sequence[Turn]) -> str:
    """Return the text of a prompt: a single message as it is, others as a transcript with a cue."""
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return join_transcript(turns) + ASSISTANT_CUE


def _strip_cue(turns: Sequence[Turn]) -> str:
    spoken = [turn for turn in turns if turn.role != "system"]
    return spoken[0].content if len(spoken) == 1 else join_transcript(spoken)
