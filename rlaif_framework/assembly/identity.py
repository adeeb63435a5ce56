"""Describe components and tasks for the keys of artefacts."""

from __future__ import annotations

from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.config import Config
from rlaif_framework.models.source import ModelSource
from rlaif_framework.plugins.code import hash_code
from rlaif_framework.plugins.component import ComponentConfig, configs_in, walk_configs
from rlaif_framework.plugins.configs import BackendConfig, MetricConfig, TaskConfig, slot_of
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.own_code import split_target


def describe_component(config: ComponentConfig, context: Context) -> dict[str, Any]:
    """Describe a component: its settings, the contents of its models, and the distributions that provide it."""
    return {
        "config": describe_settings(config, config.model_dump(mode="json")),
        "models": {name: source.identity for name, source in find_models(config, context).items()},
        "from": sorted({describe_provider(part, context.manager) for part in walk_configs([config])}),
        "own_code": [_describe_code(target, context) for part in walk_configs([config]) for target in part.own_code],
        "backends": {part.kind: _hash_backend(part, context.manager) for part in _find_backends(config)},
    }


def _describe_code(target: str, context: Context) -> list[str]:
    name, function = split_target(target)
    return [function, context.manager.code.hash(name)]


def _find_backends(config: ComponentConfig) -> list[BackendConfig]:
    return [part for part in walk_configs([config]) if isinstance(part, BackendConfig)]


def _hash_backend(config: BackendConfig, manager: PluginManager) -> str:
    """Hash the code that reads answers: labels by older code must not be reused, even by the same version."""
    return hash_code(manager.find("backend", config.kind).target.partition(":")[0])


def describe_settings(value: object, dumped: Any) -> Any:
    """Remove the settings that cannot change a result (`unused_settings`) from dumped settings, at any depth."""
    if isinstance(value, Config):
        unused = value.unused_settings if isinstance(value, ComponentConfig) else frozenset()
        return {name: describe_settings(inner, dumped[name]) for name, inner in value if name not in unused}
    if isinstance(value, dict):
        return {name: describe_settings(value[name], inner) for name, inner in dumped.items()}
    if isinstance(value, list | tuple):
        return [describe_settings(inner, plain) for inner, plain in zip(value, dumped, strict=True)]
    return dumped


def find_models(config: ComponentConfig, context: Context) -> dict[str, ModelSource]:
    """Find the models that a component loads besides the policy, by name. Nothing is loaded.

    Raises:
        ModelError: There is no such model.
    """
    policy = context.policy_model
    # The policy is another input of the artefacts that depend on it, at its own revision.
    loads = [load for load in config.loads(policy) if load.model != policy or load.trust_remote_code]
    return {load.model: context.find_loaded(load) for load in loads}


def without_metrics(config: TaskConfig) -> TaskConfig:
    """Return the config of a task without its metrics, on which most stages do not depend."""
    metrics: dict[str, list[Any]] = {
        name: [] for name, value in config if any(isinstance(p, MetricConfig) for p in configs_in(value))
    }
    return config.model_copy(update=metrics)


def describe_task(config: TaskConfig, context: Context) -> dict[str, Any]:
    """Describe the task with this config, and its annotator prompts, which may come from a file."""
    return {
        **describe_component(config, context),
        "annotator_prompts": context.task.annotator_prompts().model_dump(mode="json"),
    }


def describe_provider(config: ComponentConfig, manager: PluginManager) -> str:
    """Return the name and version of the distribution that provides a component."""
    for component, plugin in manager.components(slot_of(config)):
        if component.name == config.kind:
            return f"{plugin.distribution} {plugin.version}"
    return "unknown"
