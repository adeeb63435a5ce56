"""Write an example of a component's settings, for errors about those that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlaif_framework.data.mappings import YamlDumper
from rlaif_framework.data.paths import Location, find_location
from rlaif_framework.plugins.component import Component, Slot, SlotMark

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from rlaif_framework.plugins.manager import PluginManager

ANY = "..."
"""Stands for a value of which the settings give no example."""

NAMED = {Location.MODEL: "HuggingFaceTB/SmolLM2-360M-Instruct", Location.DATA: "data.jsonl", Location.FILE: "file.yaml"}
"""Examples of what settings name."""


def add_example(error: ValidationError, component: Component, manager: PluginManager) -> ValidationError:
    """Add an example to the problems of settings that lack required keys."""
    lines: list[InitErrorDetails] = []
    for item in error.errors(include_url=False):
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing" and len(item["loc"]) == 1:
            message = f"{message}, as in {format_example(component, manager)}"
        reason = PydanticCustomError(item["type"], "{message}", {"message": message})
        lines.append({"type": reason, "loc": item["loc"], "input": item["input"]})
    return ValidationError.from_exception_data(component.config.__name__, lines)


def format_example(component: Component, manager: PluginManager) -> str:
    """Return settings with all required keys, in one line of YAML."""
    text = yaml.dump(
        make_example(component, manager), Dumper=YamlDumper, default_flow_style=True, sort_keys=False, width=10**6
    )
    return text.strip().replace(f"'{ANY}'", ANY)


def make_example(component: Component, manager: PluginManager, depth: int = 0) -> dict[str, Any]:
    """Return settings with all required keys."""
    required = {name: field for name, field in component.config.model_fields.items() if field.is_required()}
    return {"kind": component.name} | {name: _give_value(field, manager, depth) for name, field in required.items()}


def _give_value(field: FieldInfo, manager: PluginManager, depth: int) -> Any:
    if field.examples:
        return field.examples[0]
    location = find_location(field)
    if location is not None:
        return NAMED[location]
    slot = _find_slot([*field.metadata, field.annotation])
    if slot is None or depth > 3:
        return ANY
    shortest = min(
        (component for component, _ in manager.components(slot)),
        key=lambda component: sum(field.is_required() for field in component.config.model_fields.values()),
    )
    example: Any = make_example(shortest, manager, depth + 1)
    example = example["kind"] if len(example) == 1 else example
    match get_origin(field.annotation):
        case origin if origin is dict:
            return {"a": example, "b": example}
        case origin if origin is list:
            return [example, example]
    return example


def _find_slot(parts: list[Any]) -> Slot | None:
    """Return the slot that a type has, also inside a list or mapping."""
    for part in parts:
        if isinstance(part, SlotMark):
            return part.name
        found = _find_slot([*getattr(part, "__metadata__", ()), *get_args(part)]) if get_args(part) else None
        if found is not None:
            return found
    return None
