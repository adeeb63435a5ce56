"""The TL;DR task: summarise a Reddit post (Stiennon et al. 2020; RLAIF 3.1), or any text with a summary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlaif_framework import Component, DataPlace, hookimpl
from rlaif_framework.data import PairField, TemplateText
from rlaif_plugins.tasks.config import DataTaskConfig

TEMPLATE = """\
{% if subreddit %}SUBREDDIT: r/{{ subreddit }}

{% endif %}{% if title %}TITLE: {{ title }}

{% endif %}POST: {{ post }}

TL;DR:"""

INSTRUCTION = """\
Summarize the following text in one or two sentences.

{% if title %}{{ title }}

{% endif %}{{ post }}"""

Source = Annotated[Literal["mini"] | DataPlace, Field(union_mode="left_to_right")]
"""The embedded data, or any other."""


class TldrConfig(DataTaskConfig):
    """Summarise a post, from the embedded data `mini`, OpenAI's TL;DR data, or JSON Lines with texts and summaries."""

    kind: Literal["tldr"] = "tldr"
    data: Source = "mini"
    """Posts with reference summaries: `mini`, a file (JSON Lines, JSON, CSV, Parquet), a folder with one file per
    split, a hub id, or one of these for each split."""
    comparisons: Source | None = None
    """Comparisons, in the same forms. `mini` has its own."""
    fields: dict[Literal["subreddit", "title", "post", "summary", PairField], str] = Field({})
    """The data's columns for fields such as `post` and `summary`, if they have other names. A column may be a string or
    a list of strings (sentences of a post; several summaries, the first of which is the reference)."""
    template: TemplateText = TEMPLATE
    """Jinja template of the prompt for a policy without a chat template. It may use `subreddit`, `title` and `post`."""
    instruction: TemplateText = INSTRUCTION
    """Jinja template of the user's message to a policy with a chat template, with the same variables."""
    system: str | None = None
    """System prompt for a policy with a chat template."""


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `tldr`."""
    yield Component("tldr", TldrConfig, "rlaif_plugins.tasks.tldr.task:TldrTask")
