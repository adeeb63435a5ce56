"""The TL;DR task: summarise a Reddit post (Stiennon et al. 2020; RLAIF 3.1), or any text with a summary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rlaif_framework import Component, MetricSlots, TaskConfig, default_components, hookimpl
from rlaif_framework.data import PairField
from rlaif_plugins.tasks.splits import Place, check_fractions

TEMPLATE = """\
{% if subreddit %}SUBREDDIT: r/{{ subreddit }}

{% endif %}{% if title %}TITLE: {{ title }}

{% endif %}POST: {{ post }}

TL;DR:"""

INSTRUCTION = """\
Summarize the following text in one or two sentences.

{% if title %}{{ title }}

{% endif %}{{ post }}"""


class TldrConfig(TaskConfig):
    """Summarise a post, from the embedded data `mini`, OpenAI's TL;DR data, or JSON Lines with texts and summaries."""

    kind: Literal["tldr"] = "tldr"
    data: Place = "mini"
    """Posts with reference summaries: `mini`, a file (JSON Lines, JSON, CSV, Parquet), a folder with one file per
    split, a hub id, or one of these for each split."""
    comparisons: Place | None = None
    """Comparisons, in the same forms. `mini` has its own."""
    fields: dict[Literal["subreddit", "title", "post", "summary", PairField], str] = Field({})
    """The data's columns for fields such as `post` and `summary`, if they have other names. A column may be a string or
    a list of strings (sentences of a post; several summaries, the first of which is the reference)."""
    template: str = TEMPLATE
    """Jinja template of the prompt for a policy without a chat template. It may use `subreddit`, `title` and `post`."""
    instruction: str = INSTRUCTION
    """Jinja template of the user's message to a policy with a chat template, with the same variables."""
    system: str | None = None
    """System prompt for a policy with a chat template."""
    annotator_prompts: Path | None = None
    """A YAML file with annotator prompts that override those of the task, key by key."""
    metrics: MetricSlots = default_components("words", "copy-rate", "rouge")
    """Metrics of responses, which are logged in training and reported in the evaluation."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of posts held out for validation if the data has no splits, chosen by a hash of the post."""
    test_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of posts held out for testing, chosen in the same way."""

    @model_validator(mode="after")
    def _check_fractions(self) -> TldrConfig:
        check_fractions(self.validation_fraction, self.test_fraction)
        return self


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `tldr`."""
    yield Component("tldr", TldrConfig, "rlaif_plugins.tasks.tldr.task:TldrTask")
