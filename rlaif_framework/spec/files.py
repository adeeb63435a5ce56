"""Read mappings from YAML, TOML and JSON files, and apply `--set` overrides to them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from rlaif_framework.errors import SpecError

SUFFIXES = (".yaml", ".yml", ".toml", ".json")


class SpecLoader(yaml.SafeLoader):
    """A YAML 1.2 loader, as editors expect: `no` is a string, `2024-01-01` is a string, and `5e-4` is a number."""

    # YAML 1.1's booleans include `no` and `on`. Dates would become objects that pydantic refuses as strings.
    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name and form)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; a duplicate key is an error (PyYAML would silently drop the first value)."""
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"duplicate key '{key.value}', first in line {seen[key.value].line + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[str(key.value)] = key.start_mark
        return super().construct_mapping(node, deep)


_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
# YAML 1.1 reads a number with an exponent as a string if it has no decimal point.
_FLOAT = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+][0-9]+$")
SpecLoader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, "tTfF")
SpecLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, "-+0123456789")


def read_mapping(path: Path, what: str = "spec") -> dict[str, Any]:
    """Read a YAML, TOML or JSON file that holds a mapping.

    Args:
        path: The file; its suffix determines the format.
        what: Description of the contents, for errors.

    Raises:
        SpecError: The file cannot be read, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "; see specs/ for examples" if what == "spec" else ""
        raise SpecError(f"no {what} file at {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    try:
        data = _parse(text, path)
    except (yaml.YAMLError, ValueError) as error:  # TOML's and JSON's errors are ValueErrors
        reason = str(error).replace("<unicode string>", path.name)  # PyYAML's name for a string
        reason = reason.partition("; use sys.")[0]  # Python's advice on numbers with thousands of digits
        raise SpecError(f"{path} is not valid {path.suffix[1:].upper()}: {reason}") from error
    except RecursionError as error:
        raise SpecError(f"{path} cannot be read: its lists and mappings are nested too deeply") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path} does not hold a mapping of keys to values at its top level")
    return data


def _parse(text: str, path: Path) -> Any:
    match path.suffix.lower():
        case ".yaml" | ".yml":
            return _copy_shared(yaml.load(text, SpecLoader))
        case ".toml":
            return tomllib.loads(text)
        case ".json":
            return json.loads(text)
        case other:
            raise SpecError(f"{path}: unknown file type '{other}'; use .yaml, .toml or .json")


def _copy_shared(value: Any) -> Any:
    """Copy the values that YAML anchors share, so that an override changes one place only."""
    if isinstance(value, dict):
        return {key: _copy_shared(nested) for key, nested in value.items()}
    return [_copy_shared(nested) for nested in value] if isinstance(value, list) else value


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
        return yaml.load(text, SpecLoader)
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
