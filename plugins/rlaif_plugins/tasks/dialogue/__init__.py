"""The dialogue tasks of the paper: helpful and harmless answers of an assistant (Bai et al. 2022; RLAIF 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, DataPlace, MetricSlots, default_components, hookimpl
from rlaif_framework.data import PairField
from rlaif_plugins.tasks.config import DataTaskConfig


class DialogueConfig(DataTaskConfig):
    """Answer the last turn of a dialogue, helpfully or harmlessly: Anthropic's HH data, or pairs in the same format."""

    kind: Literal["dialogue"] = "dialogue"
    data: DataPlace | None = None
    """Pairs of answers: a file (JSON Lines, JSON, CSV, Parquet), a folder with one file per split, a hub id, or one of
    these for each split. Rows have the forms that `rlaif label` reads."""
    fields: dict[PairField, str] = Field({})
    """The data's columns for fields such as `prompt` and `chosen`, if they have other names."""
    quality: Literal["helpful", "harmless"] = "helpful"
    """The criterion for annotators. The harmlessness prompt asks for the MORE harmful answer (RLAIF, Table 22), and the
    answer is inverted to get the label."""
    system: str | None = None
    """System prompt for a policy with a chat template; a dialogue's own one takes precedence."""
    skip_invalid: bool = False
    """Skip invalid rows. Anthropic's data has a few, with empty answers or different dialogues."""
    metrics: MetricSlots = default_components("words", "copy-rate")
    """Metrics of responses, which are logged in training and reported in the evaluation."""


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `dialogue`."""
    yield Component("dialogue", DialogueConfig, "rlaif_plugins.tasks.dialogue.task:DialogueTask")
