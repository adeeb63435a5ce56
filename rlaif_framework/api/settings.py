"""Read the settings that a caller gives: names, mappings, files or configs, and values to override."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_framework.errors import SpecError
from rlaif_framework.plugins.configs import LabelerConfig, TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.spec.families import FamilyKeys
from rlaif_framework.spec.loading import SETTING, build_labeler, build_task, load_labeler, load_task, to_plain
from rlaif_framework.spec.merging import set_value
from rlaif_framework.spec.model import Spec

LabelerLike = str | Path | Mapping[str, Any] | LabelerConfig
TaskLike = str | Path | Mapping[str, Any] | TaskConfig


def to_overrides(values: Mapping[str, Any]) -> list[str]:
    """Convert values by their paths to overrides `path=value`, as the option `--set` has them.

    Raises:
        SpecError: A value cannot be written in a spec.
    """
    return [f"{path}={_to_yaml(path, value)}" for path, value in values.items()]


def check_keywords(keywords: Mapping[str, Any]) -> None:
    """Check that keyword arguments are settings of a spec.

    Raises:
        SpecError: One is not; the message has the way to write a setting inside another one.
    """
    known = [*Spec.model_fields, *FamilyKeys.model_fields]
    for name in keywords:
        if name.partition(".")[0] not in known:
            path = name.replace("__", ".")
            hint = f"; write set={{'{path}': ...}}" if path != name else f"; the settings are {', '.join(known)}"
            raise SpecError(f"a spec has no '{name}'{hint}")


def read_labeler(given: LabelerLike, overrides: Mapping[str, Any], manager: PluginManager) -> LabelerConfig:
    """Read the settings of a labeler.

    Raises:
        SpecError: They are not valid.
    """
    values = to_overrides(overrides)
    if isinstance(given, str | Path):
        return load_labeler(str(given), values, manager, SETTING)
    if isinstance(given, LabelerConfig) and not overrides:
        return given
    return build_labeler(_override(given, values, "labeler"), "the labeler", manager)


def read_task(given: TaskLike, manager: PluginManager) -> TaskConfig:
    """Read the settings of a task.

    Raises:
        SpecError: They are not valid.
    """
    if isinstance(given, str | Path):
        return load_task(str(given), (), manager)
    return given if isinstance(given, TaskConfig) else build_task(_override(given, [], "task"), "the task", manager)


def _override(given: object, overrides: list[str], what: str) -> dict[str, Any]:
    data = to_plain(given)
    if not isinstance(data, dict):
        raise SpecError(f"a {what} is a name, a file, a mapping or a config, not a {type(given).__name__}")
    for override in overrides:
        set_value(data, override, SETTING)
    return data


def _to_yaml(path: str, value: Any) -> str:
    try:
        return json.dumps(to_plain(value), ensure_ascii=False)  # JSON is YAML
    except TypeError as error:
        raise SpecError(f"{path}: {error}, so it cannot be a value of a spec") from error
