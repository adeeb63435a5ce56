"""The dialogue tasks of the paper: helpful and harmless answers of an assistant (Bai et al. 2022; RLAIF 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rlaif_framework import Component, MetricSlots, TaskConfig, default_components, hookimpl
from rlaif_framework.data import PairField
from rlaif_plugins.tasks.splits import Place, check_fractions


class DialogueConfig(TaskConfig):
    """Answer the last turn of a dialogue, helpfully or harmlessly: Anthropic's HH data, or pairs in the same format."""

    kind: Literal["dialogue"] = "dialogue"
    data: Place | None = None
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
    annotator_prompts: Path | None = None
    """A YAML file with annotator prompts that override those of the task, key by key."""
    metrics: MetricSlots = default_components("words", "copy-rate")
    """Metrics of responses, which are logged in training and reported in the evaluation."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of dialogues held out for validation if the data has no splits, chosen by a hash of the dialogue."""
    test_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of dialogues held out for testing, chosen in the same way."""

    @model_validator(mode="after")
    def _check_fractions(self) -> DialogueConfig:
        check_fractions(self.validation_fraction, self.test_fraction)
        return self


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `dialogue`."""
    yield Component("dialogue", DialogueConfig, "rlaif_plugins.tasks.dialogue.task:DialogueTask")
