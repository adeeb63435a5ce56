"""Describe components for artefact keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.models.source import ModelSource, find_model
from rlaif_framework.plugins.component import SLOTS, ComponentConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.store import hash_content

VERSIONS_THAT_MATTER = ("torch", "transformers", "tokenizers", "peft")


def describe_component(config: ComponentConfig, context: Context) -> dict[str, Any]:
    """A component's settings, who provides it and what is inside it, and what is in the models it loads."""
    return {
        "config": config.model_dump(mode="json"),
        "models": {name: source.identity for name, source in find_models(config, context).items()},
        "from": sorted({_provider(part, context.manager) for part in _walk(config)}),
    }


def find_models(config: ComponentConfig, context: Context) -> dict[str, ModelSource]:
    """Find the models that a component loads beside the policy, by name. Nothing is loaded.

    Raises:
        ModelError: There is no such model.
    """
    policy = context.policy_model
    names = [load.model for load in config.loads(policy) if load.model != policy]
    return {name: find_model(name) for name in names}


def describe_task(context: Context) -> dict[str, Any]:
    """The task's settings and its words, which may come from a file."""
    return {
        **describe_component(context.task_config, context),
        "annotator_prompts": context.task.annotator_prompts().model_dump(mode="json"),
    }


def _provider(config: ComponentConfig, manager: PluginManager) -> str:
    for slot in SLOTS:
        for component, plugin in manager.components(slot):
            if component.config is type(config):
                return f"{plugin.distribution} {plugin.version}"
    return "unknown"


def _walk(config: ComponentConfig) -> list[ComponentConfig]:
    """A config and all those in its slots, whatever their depth."""
    return [config, *(inner for nested in config.nested() for inner in _walk(nested))]


def _hash_rows(rows: Sequence[Prompt | Comparison]) -> str:
    return hash_content([asdict(row) for row in rows])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
