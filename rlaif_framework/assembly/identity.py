"""Describe components and tasks for the keys of artefacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.config import Config
from rlaif_framework.data.paths import Location, find_location
from rlaif_framework.errors import SpecError
from rlaif_framework.files import check_regular, user_path
from rlaif_framework.models.source import ModelSource
from rlaif_framework.plugins.code import hash_code
from rlaif_framework.plugins.component import ComponentConfig, configs_in, walk_configs
from rlaif_framework.plugins.configs import BackendConfig, MetricConfig, TaskConfig, slot_of
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.own_code import split_target

MAX_ENTRIES = 20_000
"""Maximum number of files and folders in a folder that a setting names."""


def describe_component(config: ComponentConfig, context: Context) -> dict[str, Any]:
    """Describe a component: its settings, the contents of its models, and the distributions that provide it."""
    models = {name: source.identity for name, source in find_models(config, context).items()}
    # The policy's model is another input of these artefacts.
    named = {context.policy_model: "policy", **models}
    return {
        "config": describe_settings(config, config.model_dump(mode="json"), named),
        "models": list(models.values()),
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


def describe_settings(value: object, dumped: Any, models: Mapping[str, str]) -> Any:
    """Describe dumped settings, at any depth, without those that cannot change a result (`unused_settings`).

    Contents stand for paths, so that a key does not depend on where files are.

    Args:
        value: The settings.
        dumped: The same as plain JSON.
        models: Identities of models by name.
    """
    if isinstance(value, Config):
        unused = value.unused_settings if isinstance(value, ComponentConfig) else frozenset()
        return {
            name: _describe_setting(find_location(field), getattr(value, name), dumped[name], models)
            for name, field in type(value).model_fields.items()
            if name not in unused
        }
    if isinstance(value, dict):  # names that are no texts are texts in JSON
        pairs = zip(value.values(), dumped.items(), strict=True)
        return {name: describe_settings(inner, plain, models) for inner, (name, plain) in pairs}
    if isinstance(value, set | frozenset):  # in another order in every process
        return sorted(dumped, key=json.dumps)
    if isinstance(value, list | tuple):
        return [describe_settings(inner, plain, models) for inner, plain in zip(value, dumped, strict=True)]
    return dumped


def _describe_setting(location: Location | None, value: object, dumped: Any, models: Mapping[str, str]) -> Any:
    match location:
        case Location.DATA:
            return None
        case Location.MODEL if isinstance(dumped, str):
            return models.get(dumped, dumped)
        case Location.FILE if isinstance(dumped, str):
            return hash_contents(user_path(dumped))
    return describe_settings(value, dumped, models)


def hash_contents(path: Path) -> str:
    """Hash a file, or all files of a folder with their names; the path if there is none.

    Raises:
        SpecError: The folder has too many files.
    """
    try:
        files = [path]
        if path.is_dir():
            entries = list(islice(path.rglob("*"), MAX_ENTRIES + 1))
            if len(entries) > MAX_ENTRIES:
                raise SpecError(
                    f"{path} has more than {MAX_ENTRIES:,} files and folders, and the contents of all of them would be "
                    "part of the results; name a file, or a smaller folder"
                )
            files = sorted(file for file in entries if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            check_regular(file)
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            # Names need not be UTF-8.
            digest.update(f"{file.relative_to(path)}\0{content}\0".encode("utf-8", "surrogateescape"))
    except OSError:  # reported where it is used
        return str(path)
    return f"sha256:{digest.hexdigest()[:32]}"


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
