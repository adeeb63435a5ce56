"""Find the line of each key of a file, for errors about its value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from rlaif_framework.data.mappings import LARGEST, YamlLoader
from rlaif_framework.files import read_regular

Place = tuple[str | int, ...]
"""Keys and numbers of items that lead to a value."""

_HEADER = re.compile(r"^\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def find_lines(path: Path) -> dict[Place, int]:
    """Return the line of each key and item of a file that `read_mapping` accepts; empty if it has changed.

    TOML's values in inline tables and arrays are not found.
    """
    try:
        text = read_regular(path, LARGEST).decode("utf-8-sig")
        if path.suffix.lower() == ".toml":
            return dict(_scan_toml(text))
        # JSON is YAML, but for tabs between its values.
        return _compose_lines(text.replace("\t", " ") if path.suffix.lower() == ".json" else text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}


def _compose_lines(text: str) -> dict[Place, int]:
    loader = YamlLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        loader.construct_document(node)  # checks its size, and puts what `<<` refers to into the nodes
        return dict(_walk(node, ()))
    finally:
        loader.dispose()


def _walk(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*place, i), value.start_mark.line + 1
            yield from _walk(value, (*place, i))


def _scan_toml(text: str) -> Iterator[tuple[Place, int]]:
    """Yield the places of tables and of the keys at the start of a line. tomllib does not tell where they are."""
    table: Place = ()
    seen: set[Place] = set()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = found = _split_key(header[1])
        elif key:
            found = (*table, *_split_key(key[1]))
        else:
            continue
        for end in range(1, len(found) + 1):
            if found[:end] not in seen:
                seen.add(found[:end])
                yield found[:end], number


def _split_key(text: str) -> Place:
    return tuple(part.strip("\"'") for part in _PART.findall(text))
