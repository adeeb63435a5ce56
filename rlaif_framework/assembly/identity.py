"""Describe components, tasks and data for the keys of artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.models.source import find_model
from rlaif_framework.plugins.component import ComponentConfig, walk_configs
from rlaif_framework.plugins.configs import slot_of
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.store import hash_content

VERSIONS_THAT_MATTER = ("torch", "transformers", "tokenizers", "peft")
"""Packages whose version is part of every artefact key, because results may change with it."""


def describe_component(config: ComponentConfig, context: Context) -> dict[str, Any]:
    """Describe a component: its settings, the contents of its models, and the distributions that provide it."""
    policy = context.policy.model
    loads = [load.model for load in config.loads(policy) if load.model != policy]
    return {
        "config": config.model_dump(mode="json"),
        "models": {name: find_model(name).identity for name in loads},
        "from": sorted({_provider(part, context.manager) for part in walk_configs([config])}),
    }


def describe_task(context: Context) -> dict[str, Any]:
    """Describe the task and its annotator prompts, which may come from a file."""
    return {
        **describe_component(context.task_config, context),
        "annotator_prompts": context.task.annotator_prompts().model_dump(mode="json"),
    }


def _provider(config: ComponentConfig, manager: PluginManager) -> str:
    for component, plugin in manager.components(slot_of(config)):
        if component.name == config.kind:
            return f"{plugin.distribution} {plugin.version}"
    return "unknown"


def hash_rows(rows: Sequence[Prompt | Comparison]) -> str:
    """Hash the contents of prompts or comparisons."""
    return hash_content([asdict(row) for row in rows])


def installed_version(name: str) -> str:
    """Return the version of an installed package, or `absent`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
