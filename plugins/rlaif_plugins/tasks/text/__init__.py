"""The task `text`: prompts, references and comparisons from the columns of any data set, without Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from rlaif_framework import Component, Config, DataPlace, PreferenceSource, Split, hookimpl
from rlaif_framework.data import TemplateText
from rlaif_framework.records import Role
from rlaif_plugins.tasks.config import DataTaskConfig

Choice = Literal["first", "second", "tie"] | Annotated[float, Field(ge=0, le=1)]


def plain_choice(value: object) -> str:
    """Return a rater's choice as text, the same for the types in which file formats store it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # Parquet stores integers with missing ones as floats
        return str(int(value))
    return str(value).strip()


def _name_choices(value: object) -> object:
    return {plain_choice(key): choice for key, choice in value.items()} if isinstance(value, Mapping) else value


class MessageTemplate(Config):
    """A message to a policy with a chat template."""

    role: Role
    """The speaker: `system`, `user` or `assistant`."""
    content: TemplateText
    """Jinja template of the message."""


class ComparisonsConfig(Config):
    """Pairs of responses, in the forms that `rlaif label` reads (docs/labelling.md)."""

    data: DataPlace | None = None
    """Rows with pairs of responses, in the forms of `task.data`. By default, its rows."""
    fields: dict[str, str] = Field({})
    """The rows' columns for `response_a`, `response_b`, `chosen` and so on, and for the columns that templates use, if
    they have other names."""
    preference: str | list[str] | None = None
    """Column with the rater's choice, or columns of several raters, whose choices are averaged. By default, the form
    of the rows states the preference."""
    values: Annotated[dict[str, Choice], BeforeValidator(_name_choices)] = Field({})
    """For each value of these columns, the choice: `first`, `second`, `tie`, or a probability that the first response
    is better. By default `a`, `b`, `tie`, and such probabilities."""
    gold_source: PreferenceSource = "human"
    """Source of the preferences: `human` raters, or `synthetic` if one response was written to be worse."""


def _read_comparisons(value: object) -> object:
    """Expand the shorthand for a data set alone: a path, or one for each split."""
    if isinstance(value, str) or (isinstance(value, Mapping) and value and set(value) <= set(get_args(Split))):
        return {"data": value}
    return value


class TextConfig(DataTaskConfig):
    """Respond to a prompt that is made from the columns of a row, by Jinja templates such as `{{ question }}`."""

    kind: Literal["text"] = "text"
    data: DataPlace | None = None
    """Rows with prompts: a file (JSON Lines, JSON, CSV, Parquet), a folder with one file per split, a hub id, or one of
    these for each split. By default, the prompts are those of the comparisons."""
    comparisons: Annotated[ComparisonsConfig | None, BeforeValidator(_read_comparisons)] = None
    """Pairs of responses, as a data set or with settings; `{}` for pairs in the rows of `data`."""
    fields: dict[str, str] = Field({})
    """The columns of `data` for `id`, `split` and others, if they have other names."""
    prompt: TemplateText = "{{ prompt }}"
    """Template of the prompt. For a policy with a chat template it is the user's message, unless `messages` is set."""
    messages: str | list[MessageTemplate] | None = None
    """The messages to a policy with a chat template: templates with their roles, or the column of a dialogue, as a list
    of messages or a transcript `Human: ... Assistant: ...`. The last message of the assistant is then the reference."""
    system: TemplateText | None = None
    """Template of the system prompt for a policy with a chat template."""
    source: TemplateText | None = None
    """Template of what annotators see as the prompt. By default, the prompt."""
    reference: TemplateText | None = None
    """Template of the reference response. By default the column `reference`, if there is one."""
    columns: list[str] = Field([])
    """Columns of the prompts' rows that functions of your own get, besides `id`, `source` and `reference`; see
    docs/own-code.md."""
    truncate: str | None = None
    """The column whose end is cut off if the prompt is too long. By default, in each row, the longest column that the
    prompt contains unchanged, or else the `source`. Dialogues lose their oldest turns instead."""
    skip_invalid: bool = False
    """Skip invalid rows, instead of stopping."""

    @property
    def prompt_columns(self) -> Sequence[str]:
        """The columns."""
        return self.columns

    @model_validator(mode="before")
    @classmethod
    def _check_prompt(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("messages"), str):
            for name in ("prompt", "source", "truncate"):
                if data.get(name) not in (None, cls.model_fields[name].default):
                    raise ValueError(
                        f"{name}: a dialogue in a column needs no {name}; remove it, or write 'messages' as templates"
                    )
        return data

    @model_validator(mode="after")
    def _check_values(self) -> TextConfig:
        taken = sorted({"id", "source", "reference"} & {*self.columns})
        if taken:
            raise ValueError(f"columns: functions get '{taken[0]}' anyway; remove it, or rename the column in 'fields'")
        if self.comparisons is not None:
            if self.comparisons.data is None and self.data is None:
                raise ValueError("data: name the data set, in 'data' or in 'comparisons.data'")
            if self.comparisons.values and self.comparisons.preference is None:
                raise ValueError("comparisons.values: name the column of these values in 'comparisons.preference'")
        return self


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `text`."""
    yield Component("text", TextConfig, "rlaif_plugins.tasks.text.task:TextTask")
