"""Read mappings from YAML, TOML and JSON files."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.files import read_regular
from rlaif_framework.records.jsonl import DECODER

SUFFIXES = (".yaml", ".yml", ".toml", ".json")

LARGEST = 2**20
"""Maximum size of a file in bytes."""

MAX_VALUES = 50_000
"""Maximum number of values in a YAML file, where a value counts as often as it is referred to."""

DEPTH = 100
"""Maximum depth of nested lists and mappings."""

MAX_NUMBER = 100
"""Maximum length of a number, in characters or in digits: longer ones take long to convert and cannot be printed."""

_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{DEPTH}}}")
"""A dotted key of TOML with too many parts."""


class YamlLoader(yaml.SafeLoader):
    """A YAML 1.2 loader, as editors expect: `no`, `1:30` and `2024-01-01` are strings, and `5e-4` is a number.

    What aliases refer to is counted before it is copied.
    """

    composed = 0
    """Number of values that have been read."""

    # The others are those of YAML 1.1: `no` is true or false there, `017` is 15, `1:30` is 90, and a date is an object.
    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name and form)
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":merge", ":null"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a value, of which there may not be too many."""
        self.composed += 1
        if self.composed > MAX_VALUES:
            raise yaml.YAMLError(f"it has more than {MAX_VALUES:,} values")
        return super().compose_node(parent, index)

    def construct_document(self, node: yaml.Node) -> Any:
        """Construct the value of a document; one that is too large or too deep is an error."""
        _count_values(node, {}, 1)
        try:
            return super().construct_document(node)
        except (LookupError, AttributeError, ValueError) as error:  # PyYAML takes for granted that a value fits its tag
            raise yaml.YAMLError("a value does not fit its tag") from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Construct an integer, which may not be too long."""
        text = self._read_number(node)
        return int(text, 0 if text.startswith(("0x", "0o")) else 10)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        """Construct a number, which may not be too long; one beyond all bounds is a text, such as a git revision."""
        text = self._read_number(node)
        if text.lower().endswith(("inf", "nan")):  # with a dot in YAML and none in Python
            return float(text.replace(".", ""))
        return text if math.isinf(number := float(text)) else number

    def _read_number(self, node: yaml.ScalarNode) -> str:
        if len(node.value) > MAX_NUMBER:
            raise yaml.YAMLError(f"the number in line {node.start_mark.line + 1} has more than {MAX_NUMBER} characters")
        return str(self.construct_scalar(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; a duplicate key is an error (PyYAML would silently drop the first value)."""
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"duplicate key '{key.value}', first in line {seen[key.value].line + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[str(key.value)] = key.start_mark
        return super().construct_mapping(node, deep)


_SCALARS = {
    "bool": ("tTfF", r"true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": (
        "-+.0123456789",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
}
"""The values without quotes that are no strings: their possible first characters, and their form."""
for _name, (_first, _form) in _SCALARS.items():
    YamlLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_form})$"), _first)
YamlLoader.add_constructor("tag:yaml.org,2002:int", YamlLoader.construct_yaml_int)
YamlLoader.add_constructor("tag:yaml.org,2002:float", YamlLoader.construct_yaml_float)


class YamlDumper(yaml.SafeDumper):
    """Writes what `YamlLoader` reads, and puts quotes around strings that it would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as above)
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
            *YamlLoader.yaml_implicit_resolvers.get(first, ()),
        ]
        for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **YamlLoader.yaml_implicit_resolvers}
    }


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
        text = read_regular(path, LARGEST).decode("utf-8-sig")  # some editors put a byte order mark at the start
    except FileNotFoundError:
        hint = "; see specs/ for examples" if what == "spec" else ""
        raise error(f"no {what} file at {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as raised:
        raise error(f"cannot read {path}: {raised}") from raised
    if path.suffix.lower() not in SUFFIXES:
        raise error(f"{path}: unknown file type '{path.suffix}'; use .yaml, .toml or .json")
    try:
        data = _parse(text, path.suffix.lower())
    except (yaml.YAMLError, ValueError, DataError) as raised:  # TOML's and JSON's errors are ValueErrors
        reason = str(raised).replace("<unicode string>", path.name)  # PyYAML's name for a string
        reason = reason.partition("; use sys.")[0]  # Python's advice on numbers with thousands of digits
        raise error(f"{path} is not valid {path.suffix[1:].upper()}: {reason}") from raised
    except RecursionError as raised:
        raise error(f"{path} cannot be read: its lists and mappings are nested too deeply") from raised
    if (fault := _find_fault(data)) is not None:
        raise error(f"{path} cannot be read: {fault}")
    if not isinstance(data, dict):
        raise error(f"{path} does not hold a mapping of keys to values at its top level")
    return data


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return DECODER.decode(text)
    if suffix == ".toml":
        if _DOTTED.search(text):  # tomllib takes the square of the length of a key
            raise RecursionError
        return tomllib.loads(text)
    return _copy_shared(yaml.load(text, YamlLoader))


def _count_values(node: yaml.Node, counts: dict[yaml.Node, int], depth: int) -> int:
    """Count the values of a YAML document, each as often as it occurs when all aliases are written out."""
    if node in counts:
        if not counts[node]:  # it is being counted
            raise yaml.YAMLError(f"the value in line {node.start_mark.line + 1} contains an alias of itself")
        return counts[node]
    if depth > DEPTH:
        raise RecursionError
    counts[node] = 0
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    items = [item for pair in inner for item in pair] if isinstance(node, yaml.MappingNode) else inner
    total = 1 + sum(_count_values(item, counts, depth + 1) for item in items)
    if total > MAX_VALUES:
        raise yaml.YAMLError(f"it has more than {MAX_VALUES:,} values when all aliases are written out")
    counts[node] = total
    return total


def _find_fault(data: Any) -> str | None:
    """Return what is wrong with data: their depth, or the length of an integer. None if there is nothing."""
    level, depth = [data], 0
    while level:
        if any(isinstance(item, int) and abs(item) >= 10**MAX_NUMBER for item in level):
            return f"it has a number of more than {MAX_NUMBER} digits"
        level = [item for item in level if isinstance(item, dict | list)]
        depth += bool(level)
        if depth > DEPTH:
            return "its lists and mappings are nested too deeply"
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return None


def _copy_shared(value: Any) -> Any:
    """Copy the values that YAML anchors share, so that an override changes one place only."""
    if isinstance(value, dict):
        return {key: _copy_shared(nested) for key, nested in value.items()}
    return [_copy_shared(nested) for nested in value] if isinstance(value, list) else value
