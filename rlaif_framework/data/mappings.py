"""Read mappings from YAML, TOML and JSON files."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from rlaif_framework.errors import DataError, RlaifError

SUFFIXES = (".yaml", ".yml", ".toml", ".json")


class YamlLoader(yaml.SafeLoader):
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
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, "tTfF")
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, "-+0123456789")


def read_mapping(path: Path, what: str, error: type[RlaifError] = DataError) -> dict[str, Any]:
    """Read a YAML, TOML or JSON file that holds a mapping.

    Args:
        path: The file; its suffix determines the format.
        what: Description of the contents, for errors.
        error: Class of the errors.

    Raises:
        RlaifError: The file cannot be read, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "; see specs/ for examples" if what == "spec" else ""
        raise error(f"no {what} file at {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as raised:
        raise error(f"cannot read {path}: {raised}") from raised
    try:
        data = _parse(text, path, error)
    except (yaml.YAMLError, ValueError) as raised:  # TOML's and JSON's errors are ValueErrors
        reason = str(raised).replace("<unicode string>", path.name)  # PyYAML's name for a string
        reason = reason.partition("; use sys.")[0]  # Python's advice on numbers with thousands of digits
        raise error(f"{path} is not valid {path.suffix[1:].upper()}: {reason}") from raised
    except RecursionError as raised:
        raise error(f"{path} cannot be read: its lists and mappings are nested too deeply") from raised
    if not isinstance(data, dict):
        raise error(f"{path} does not hold a mapping of keys to values at its top level")
    return data


def _parse(text: str, path: Path, error: type[RlaifError]) -> Any:
    match path.suffix.lower():
        case ".yaml" | ".yml":
            return _copy_shared(yaml.load(text, YamlLoader))
        case ".toml":
            return tomllib.loads(text)
        case ".json":
            return json.loads(text)
        case other:
            raise error(f"{path}: unknown file type '{other}'; use .yaml, .toml or .json")


def _copy_shared(value: Any) -> Any:
    """Copy the values that YAML anchors share, so that an override changes one place only."""
    if isinstance(value, dict):
        return {key: _copy_shared(nested) for key, nested in value.items()}
    return [_copy_shared(nested) for nested in value] if isinstance(value, list) else value
