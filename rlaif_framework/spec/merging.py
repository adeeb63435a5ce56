"""Merge the settings of several files, and apply `--set` and `--unset` to the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import yaml

from rlaif_framework.data.mappings import YamlLoader
from rlaif_framework.errors import SpecError
from rlaif_framework.plugins.component import SLOTS

SLOT_KEYS = frozenset({*SLOTS, "feedback", "judge"})
"""Keys whose value may be the name of a component, in place of `{kind: NAME}`."""

SLOT_PARENTS = frozenset({"judges", "labelers", "terms", "members"})
"""Keys of mappings and lists of components."""

MATRIX = "matrix"
"""Key of a spec whose keys are paths."""

Place = tuple[str | int, ...]
"""Keys and numbers of items that lead to a value."""


def merge_settings(lower: Any, upper: Any, is_slot: bool = False, is_group: bool = False) -> Any:
    """Merge two values, of which the upper one takes precedence.

    Mappings are merged key by key, and all else is replaced as a whole. So are components of different kinds, since the
    settings of one have no meaning for another.

    Args:
        lower: The value below.
        upper: The value on top.
        is_slot: True if a name stands for a component.
        is_group: True if the values of the mappings are components.
    """
    if is_slot:
        lower, upper = _expand(lower), _expand(upper)
    if not isinstance(lower, dict) or not isinstance(upper, dict):
        return upper
    if "kind" in upper and upper["kind"] != lower.get("kind", upper["kind"]):
        return upper
    merged = dict(lower)
    for key, value in upper.items():
        if key in lower:
            slot = is_group or key in SLOT_KEYS
            value = merge_settings(lower[key], value, slot, key in SLOT_PARENTS)
        merged[key] = value
    return merged


def _expand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def set_value(data: dict[str, Any], override: str, option: str = "--set") -> list[Place]:
    """Apply one override, `path.to.value=VALUE`, to a nested mapping, in place.

    Missing mappings on the path are created, shorthand is expanded (`labeler: similarity` becomes
    `{kind: similarity, ...}`), and items of lists are indexed by number. A part `*` stands for all keys of a mapping or
    all items of a list; below it nothing but the last key is created, and what lacks the part before it is left as it
    is.

    Args:
        data: The mapping.
        override: The override.
        option: How a user states overrides, for errors.

    Returns:
        The paths of the values that were set.

    Raises:
        SpecError: The override is malformed, or its path does not fit the mapping.
    """
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise SpecError(f"{option} {override}: expected path=value, such as seed=1")
    return assign(data, path.strip(), _parse_value(text, path, override, option), f"{option} {override}")


def assign(data: dict[str, Any], path: str, value: Any, origin: str) -> list[Place]:
    """Set the values that a path leads to, in place, by the rules of `set_value`.

    Args:
        data: The nested mapping.
        path: Keys joined by dots, `*` for all.
        value: The value, of which each of several places gets a copy.
        origin: Where the path is stated, for errors.

    Returns:
        The paths of the values that were set.

    Raises:
        SpecError: The path does not fit the mapping.
    """
    parts = _split(path)
    if "*" not in parts:
        return [_set_at(data, parts, value, origin)]
    if parts[-1] == "*":
        places = list(_match(data, parts))
    else:
        places = [(*parent, parts[-1]) for parent in _match(data, parts[:-1]) if _has_keys(data, parent)]
    if not places:
        raise SpecError(f"{origin}: nothing in the spec matches '{path}'")
    # A copy for each: a list or mapping that two places share would be changed in both.
    return [_set_at(data, [str(p) for p in place], deepcopy(value), origin) for place in places]


def unset_value(data: dict[str, Any], path: str) -> None:
    """Remove the keys or items that a path leads to, in place. A part `*` stands for all keys or items.

    Raises:
        SpecError: There are none.
    """
    parts = _split(path.strip())
    places = list(_match(data, parts))
    if not places:
        raise SpecError(f"--unset {path}: the spec has no '{path.strip()}'")
    for *parents, last in reversed(places):  # the last items of a list first, since those after them move
        node: Any = data
        for part in parents:
            node = node[part]
        del node[last]


def _split(path: str) -> list[str]:
    """Return the keys of a path. A key of the matrix is a path itself."""
    first, _, rest = path.partition(".")
    return [first, rest] if first == MATRIX and rest else path.split(".")


def _has_keys(data: Any, path: Place) -> bool:
    """Return True if a path leads to a mapping or list, or to the name of a component, which `--set` expands."""
    for part in path:
        data = data[part]
    is_slot = path[-1] in SLOT_KEYS or (len(path) > 1 and path[-2] in SLOT_PARENTS)
    return isinstance(data, dict | list) or (isinstance(data, str) and is_slot)


def _match(node: Any, parts: list[str]) -> Iterator[Place]:
    """Yield the paths of existing values that match a path with `*`."""
    if not parts:
        yield ()
        return
    first, *rest = parts
    items: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        items = list(node.items()) if first == "*" else [(first, node[first])] if first in node else []
    elif isinstance(node, list):
        items = [(i, item) for i, item in enumerate(node) if first in ("*", str(i))]
    for key, item in items:
        for path in _match(item, rest):
            yield (key, *path)


def _set_at(data: dict[str, Any], parts: list[str], value: Any, origin: str) -> Place:
    *parents, last = parts
    node: Any = data
    found: list[str | int] = []
    for i, part in enumerate(parents):
        if isinstance(node, dict):
            if isinstance(node.get(part), str):  # shorthand, to which settings are added
                node[part] = {"kind": node[part]}
            elif node.get(part) is None:
                node[part] = {}
        found.append(int(part) if isinstance(node, list) and _is_number(part) else part)
        node = _step(node, part, origin, ".".join(parents[: i + 1]))
    if isinstance(node, list):
        _step(node, last, origin, ".".join(parts))
        node[int(last)] = value
        return (*found, int(last))
    if not isinstance(node, dict):
        raise SpecError(f"{origin}: '{'.'.join(parents)}' is a single value and has no '{last}'")
    node[last] = value
    return (*found, last)


def _parse_value(text: str, path: str, override: str, option: str) -> Any:
    """Parse a value as in a file: `true`, `5e-4` and `[a, b]` are not strings."""
    try:
        return yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).replace("<unicode string>", option)
        raise SpecError(f"{option} {override}: the value is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise SpecError(f"{option} {path}: the value is nested too deeply") from error


def _step(node: Any, part: str, origin: str, where: str) -> Any:
    """Return the item of a mapping or list that one part of a path names."""
    if isinstance(node, dict):
        return node[part]
    if isinstance(node, list) and _is_number(part) and int(part) < len(node):
        return node[int(part)]
    raise SpecError(f"{origin}: the spec has no '{where}'")


def _is_number(part: str) -> bool:
    """Return True if a part of a path is the number of an item. Digits of other scripts are none, as in YAML."""
    return re.fullmatch("[0-9]{1,9}", part) is not None
