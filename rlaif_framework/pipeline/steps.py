"""Recipes and steps: the dependencies of a stage and of its artefact.

A recipe is one frozen record of everything the result of a stage depends on. The key of the artefact is the hash of the
recipe (see `keys`), and the work of the stage receives the same recipe, so a setting that changes a result is always
part of the key. Seed and package versions, which all stages of a run share, are part of every key, as are the settings
of the policy, except those that a recipe declares as unused.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.store import hash_content


class TaskScope(Enum):
    """The part of the task that a stage depends on, besides the prompts and comparisons in its recipe."""

    CODE = "code"
    """The task's methods, such as `truncate`: identified by the version of the plugin that provides the task."""
    SETTINGS = "settings"
    """The methods and the task's settings, except for its metrics."""
    ANNOTATOR_PROMPTS = "annotator prompts"
    """The methods, these settings and the annotator prompts, which may come from a file."""
    METRICS = "metrics"
    """All of these and the metrics of responses."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Base of all recipes: a frozen record whose fields are all part of the key.

    Fields may be plain values, settings, component configs, prompts, comparisons, earlier steps, nested dataclasses,
    and sequences or mappings of these.
    """

    stage: ClassVar[str]
    """The kind of work; also the first name of the stage's random streams."""
    work: ClassVar[str]
    """`module:function` that does the work, called as `function(stage, context, recipe)`. It is imported when the stage
    runs, because listing the steps of a spec must not import torch."""
    distributed: ClassVar[bool] = False
    """If True, all processes of `accelerate launch` work on the stage; otherwise only the main process does."""

    round: int = 1
    """Number of the arm's round. Each round has random streams of its own, so that it draws other prompts."""

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return the settings of the policy that cannot change the result; `policy` is the policy's model name.

        All others, also those that are added later, are part of the key.
        """
        return frozenset()

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the models that the stage holds in memory; `policy` is the policy's model name."""
        return ()


@dataclass(frozen=True, eq=False)  # compared by identity: recipes may hold values that are not hashable
class Step:
    """One stage of a run."""

    name: str
    """Path of the artefact in the run folder, such as `rlaif/reward`."""
    recipe: Recipe
    contents: Mapping[str, Any]
    """The recipe and what is common to the run, as plain JSON: everything that the result depends on."""
    loads: Sequence[ModelLoad]
    """Models that the step holds in memory."""

    @property
    def stage(self) -> str:
        """The kind of work, such as `reward`."""
        return self.recipe.stage

    @cached_property
    def key(self) -> str:
        """Hash of everything that the artefact depends on."""
        return hash_content({"stage": self.stage, **self.contents})

    def run(self, stage: Stage, context: Context) -> None:
        """Do the work and write the result into the stage's folder."""
        pkgutil.resolve_name(self.recipe.work)(stage, context, self.recipe)


def find_steps(value: Any) -> Iterator[Step]:
    """Yield the earlier steps that a recipe or one of its values refers to."""
    if isinstance(value, Step):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from find_steps(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from find_steps(inner)
    # Without the rows of data: they have no steps, and there are many of them.
    elif is_dataclass(value) and not isinstance(value, Prompt | Comparison):
        for field in fields(value):
            yield from find_steps(getattr(value, field.name))
