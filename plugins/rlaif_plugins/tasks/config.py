"""The settings that the built-in tasks share."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from rlaif_framework import MetricSlots, SpecPath, TaskConfig, default_components


class DataTaskConfig(TaskConfig):
    """Base of the config of a task with rows of data."""

    annotator_prompts: SpecPath | dict[str, object] | None = None
    """Annotator prompts that override those of the task, key by key: a YAML file, or the keys themselves."""
    metrics: MetricSlots = default_components("words", "copy-rate", "rouge")
    """Metrics of responses, which are logged in training and reported in the evaluation."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of texts held out for validation, chosen by a hash of the text, if the data names no splits, or only
    `train` and `test`."""
    test_fraction: float = Field(0.1, ge=0, lt=1)
    """Fraction of texts held out for testing, chosen in the same way, if the data names no splits, or only `train` and
    `validation`."""

    @property
    def unused_settings(self) -> frozenset[str]:
        """The changes to annotator prompts: the keys of what they change have the prompts."""
        return frozenset({"annotator_prompts"})

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                "validation_fraction and test_fraction leave nothing to train on: their sum must be below 1"
            )
        return self
