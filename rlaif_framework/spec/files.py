"""Read mappings from YAML, TOML and JSON files, and apply `--set` overrides to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlaif_framework.data import mappings
from rlaif_framework.data.mappings import YamlLoader
from rlaif_framework.errors import SpecError


def read_mapping(path: Path, what: str = "spec") -> dict[str, Any]:
    """Read a file that holds a mapping; see `rlaif_framework.data.mappings.read_mapping`.

    Raises:
        SpecError: The file cannot be read, or does not hold a mapping.
    """
    return mappings.read_mapping(path, what, SpecError)


def set_value(data: dict[str, Any], override: str) -> None:
    """Apply one override, `path.to.value=VALUE`, to a nested mapping, in place.

    Missing mappings on the path are created, shorthand is expanded (`labeler: similarity` becomes
    `{kind: similarity, ...}`), and items of lists are indexed by number.

    Raises:
        SpecError: The override is malformed, or its path does not fit the mapping.
    """
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise SpecError(f"--set {override}: expected path=value, such as seed=1")
    value = _parse_value(text, path, override)  # as in a file: `true`, `5e-4` and `[a, b]` are not strings
    *parents, last = path.strip().split(".")
    node: Any = data
    for i, part in enumerate(parents):
        if isinstance(node, dict):
            if isinstance(node.get(part), str):  # shorthand, to which settings are added
                node[part] = {"kind": node[part]}
            elif node.get(part) is None:
                node[part] = {}
        node = _step(node, part, override, ".".join(parents[: i + 1]))
    if isinstance(node, list):
        _step(node, last, override, path)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise SpecError(f"--set {override}: '{'.'.join(parents)}' is a single value and has no '{last}'")


def _parse_value(text: str, path: str, override: str) -> Any:
    try:
        return yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).replace("<unicode string>", "--set")
        raise SpecError(f"--set {override}: the value is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise SpecError(f"--set {path}: the value is nested too deeply") from error


def _step(node: Any, part: str, override: str, where: str) -> Any:
    """Return the item of a mapping or list that one part of an override's path names."""
    if isinstance(node, dict):
        return node[part]
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    raise SpecError(f"--set {override}: the spec has no '{where}'")
