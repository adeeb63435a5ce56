"""The task `acme/titles`: write a title for a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field
from rlaif_framework import Component, DataPlace, TaskConfig, hookimpl


class TitlesConfig(TaskConfig):
    """Write a title for a text: the embedded examples, or a file with `text`, `title` and optionally `worse`."""

    kind: Literal["acme/titles"] = "acme/titles"
    data: Annotated[Literal["examples"] | DataPlace, Field(union_mode="left_to_right")] = "examples"
    """The data: `examples`, a file (JSON Lines, JSON, CSV, Parquet), a folder with a file for each split, or a hub
    id."""
    validation_fraction: float = Field(0.1, ge=0, lt=0.5)
    """Share of the texts for validation if the data has no splits, chosen by a hash of the text."""
    test_fraction: float = Field(0.2, ge=0, lt=0.5)
    """Share of the texts for testing, chosen in the same way."""


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `acme/titles`."""
    # The class is in a module of its own, which is imported on first use: reading data takes imports that commands
    # which only read specs do not need.
    yield Component("acme/titles", TitlesConfig, "rlaif_acme.titles:TitlesTask")
