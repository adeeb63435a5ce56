"""Create steps, whose keys are hashes of their recipes as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.identity import (
    describe_component,
    describe_provider,
    describe_task,
    without_metrics,
)
from rlaif_framework.config import Config
from rlaif_framework.pipeline.steps import Recipe, Step, TaskScope
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.plugins.versions import DISTRIBUTION, framework_version
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.store import hash_content

KEYED_VERSIONS = ("torch", "transformers", "tokenizers", "peft")
"""Packages whose version is part of every key."""


NEVER_KEYED = frozenset({"gradient_checkpointing", "revision", "trust_remote_code"})
"""Settings of the policy that change no result: recomputed activations are equal, and the identity of the model says
more than its revision, and covers the code that is trusted."""


class StepFactory:
    """Creates the steps of one run."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.policy = context.policy.model
        self.common = {
            "seed": context.seed,
            "versions": {name: _installed(name) for name in KEYED_VERSIONS} | {DISTRIBUTION: framework_version()},
        }
        # The identity of its contents replaces the name of the model, which may be a path.
        self.policy_settings = {**context.policy.model_dump(mode="json"), "model": context.policy_source.identity}
        # Cached, because many steps have the same task and the same rows.
        self._tasks: dict[TaskScope, Any] = {}
        self._hashes: dict[int, tuple[Sequence[Any], str]] = {}
        """Hash of each sequence of records by its identity, with the sequence, so that no identity is reused."""

    def create(self, name: str, recipe: Recipe) -> Step:
        """Create a step. Its key depends on the recipe and not on the name."""
        unused = recipe.unused_policy_settings(self.policy) | NEVER_KEYED
        used = {setting: value for setting, value in self.policy_settings.items() if setting not in unused}
        contents = {**self.common, "policy": used, "recipe": self.describe(recipe)}
        return Step(name, recipe, contents, recipe.loads(self.policy))

    def describe(self, value: Any) -> Any:
        """Describe a value of a recipe as plain JSON.

        Raises:
            TypeError: A value of this type cannot be part of a key.
        """
        match value:
            case None | bool() | int() | float() | str():
                return value
            case Step():
                return {"stage": value.stage, "key": value.key}
            case TaskScope():
                return self._task(value)
            # Before `Config`, its base class: the key of a component has more than its settings, such as its version.
            case ComponentConfig():
                return describe_component(value, self.context)
            case Config():
                return value.model_dump(mode="json")
            case Mapping():
                return {key: self.describe(inner) for key, inner in value.items()}
            case [Prompt() | Comparison(), *_]:  # a hash, because a manifest with all rows would be too long
                return self._hash(value)
            case list() | tuple():
                return [self.describe(inner) for inner in value]
        if is_dataclass(value):
            return {field.name: self.describe(getattr(value, field.name)) for field in fields(value)}
        raise TypeError(f"{type(value).__name__} cannot be part of a recipe")

    def _hash(self, rows: Sequence[Prompt | Comparison]) -> str:
        if id(rows) not in self._hashes:
            self._hashes[id(rows)] = rows, hash_content([asdict(row) for row in rows])
        return self._hashes[id(rows)][1]

    def _task(self, scope: TaskScope) -> Any:
        if scope not in self._tasks:
            self._tasks[scope] = self._describe_task(scope)
        return self._tasks[scope]

    def _describe_task(self, scope: TaskScope) -> Any:
        context = self.context
        match scope:
            case TaskScope.CODE:
                return describe_provider(context.task_config, context.manager)
            case TaskScope.SETTINGS:
                return describe_component(without_metrics(context.task_config), context)
            case TaskScope.ANNOTATOR_PROMPTS:
                return describe_task(without_metrics(context.task_config), context)
            case TaskScope.METRICS:
                return describe_task(context.task_config, context)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
