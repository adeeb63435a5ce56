"""Describe components for artefact keys."""

from __future__ import annotations

from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.models.source import find_model
from rlaif_framework.plugins.component import SLOTS, ComponentConfig
from rlaif_framework.plugins.manager import PluginManager


def describe_component(config: ComponentConfig, context: Context) -> dict[str, Any]:
    """A component's settings, who provides it and what is inside it, and what is in the models it loads."""
    policy = context.policy.model
    loads = [load.model for load in config.loads(policy) if load.model != policy]
    return {
        "config": config.model_dump(mode="json"),
        "models": {name: find_model(name).identity for name in loads},
        "from": sorted({describe_provider(part, context.manager) for part in _walk(config)}),
    }


def describe_task(context: Context) -> dict[str, Any]:
    """The task's settings and its words, which may come from a file."""
    return {
        **describe_component(context.task_config, context),
        "annotator_prompts": context.task.annotator_prompts().model_dump(mode="json"),
    }


def describe_provider(config: ComponentConfig, manager: PluginManager) -> str:
    """Return the distribution that provides a component, with its version."""
    for slot in SLOTS:
        for component, plugin in manager.components(slot):
            if component.config is type(config):
                return f"{plugin.distribution} {plugin.version}"
    return "unknown"


def _walk(config: ComponentConfig) -> list[ComponentConfig]:
    """A config and all those in its slots, whatever their depth."""
    return [config, *(inner for nested in config.nested() for inner in _walk(nested))]
