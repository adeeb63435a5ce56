"""Find the Python code that a spec names, before anything of it is validated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlaif_framework.plugins.own_code import absolute_name, anchor_target, split_target

PLUGINS = "plugins"
"""Key of a spec that lists files."""
FUNCTION, TARGET = "function", "target"
"""Kind of the components that call a function, and the setting that names it."""


def anchor_code(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of code in the contents of a file absolute; they are relative to the folder of the file."""
    found: dict[str, Any] = _anchor_targets(data, folder)
    if isinstance(found.get(PLUGINS), list):
        found[PLUGINS] = [absolute_name(x, folder) if isinstance(x, str) else x for x in found[PLUGINS]]
    return found


def _anchor_targets(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_anchor_targets(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    anchored = {key: _anchor_targets(item, folder) for key, item in value.items()}
    if value.get("kind") == FUNCTION and isinstance(value.get(TARGET), str):
        anchored[TARGET] = anchor_target(value[TARGET], folder)
    return anchored


def find_code(data: object) -> dict[str, list[str]]:
    """Return the files and modules that a spec or a part of it names, each with the places that name it."""
    found: dict[str, list[str]] = {}
    for place, name in _find_code(data, ""):
        found.setdefault(name, []).append(place)
    return found


def _find_code(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _find_code(item, f"{place}.{number}")
    if not isinstance(value, dict):
        return
    names = value.get(PLUGINS)
    if not place and isinstance(names, list):
        yield from ((PLUGINS, absolute_name(name)) for name in names if isinstance(name, str))
    for key, item in value.items():
        yield from _find_code(item, f"{place}.{key}" if place else str(key))
    if value.get("kind") == FUNCTION and isinstance(value.get(TARGET), str):
        try:
            name, function = split_target(value[TARGET])
        except ValueError:
            return  # reported by validation
        yield f"{place}.{TARGET}: {function}" if place else f"{TARGET}: {function}", absolute_name(name)
