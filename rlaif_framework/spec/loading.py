"""Read a spec file, apply `--set` overrides, validate, and explain what is wrong with it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from rlaif_framework.errors import SpecError
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.plugins.discovery import require_plugins
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import LabelerSlot, TaskSlot
from rlaif_framework.spec.model import Name, Spec, slug

SUFFIXES = (".yaml", ".yml", ".toml", ".json")


class SpecLoader(yaml.SafeLoader):
    """YAML as editors read it (1.2): `no` is a word, `2024-01-01` is text, and `5e-4` is a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name and form)
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":timestamp"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that stands there twice is an error, where PyYAML would drop the first value."""
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key '{key.value}' stands there twice, first in line {seen[key.value].line + 1}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[str(key.value)] = key.start_mark
        return super().construct_mapping(node, deep)


SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"
)


SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+][0-9]+$"), "-+0123456789"
)


def load_spec(path: Path, overrides: Sequence[str] = (), manager: PluginManager | None = None) -> Spec:
    """Load and validate a spec.

    Args:
        path: A `.yaml`, `.yml`, `.toml` or `.json` file.
        overrides: `path.to.value=VALUE` each; VALUE is read as YAML.
        manager: Components to resolve slots with; default: all installed.

    Raises:
        SpecError: Every problem found, each with its path in the file.
    """
    data = read_mapping(path)
    for override in overrides:
        set_value(data, override)
    unmet = require_plugins(_requirements(data))
    if unmet:
        raise SpecError(f"{path}: plugins are missing:\n" + "\n".join(f"  {line}" for line in unmet))
    data.setdefault("name", slug(path.stem))
    return build_spec(data, path.name, manager or PluginManager.load())


def build_spec(data: Mapping[str, Any], origin: str, manager: PluginManager) -> Spec:
    """Validate a spec that is already a mapping; `origin` names it in errors."""
    try:
        return Spec.model_validate(dict(data), context={"manager": manager})
    except ValidationError as error:
        raise _explain(error, data, f"{origin} is not a valid spec") from error


def load_component(
    slot: Literal["task", "labeler"], given: str, overrides: Sequence[str], manager: PluginManager
) -> Any:
    """A component's config from its name, or from a file that holds a slot as a spec does (`kind: length`).

    Raises:
        SpecError: Every problem found, each with its path in the file.
    """
    path = Path(given)
    data = read_mapping(path, slot) if path.suffix.lower() in SUFFIXES else {"kind": given}
    for override in overrides:
        set_value(data, override)
    adapter: TypeAdapter[ComponentConfig] = TypeAdapter({"task": TaskSlot, "labeler": LabelerSlot}[slot])
    try:
        return adapter.validate_python(data, context={"manager": manager})
    except ValidationError as error:
        raise _explain(error, data, f"{given} is not a valid {slot}") from error


def load_labelers(path: Path, overrides: Sequence[str], manager: PluginManager) -> dict[str, ComponentConfig]:
    """Labelers by name, from a file that maps each name to a labeler as a spec's slot does.

    Raises:
        SpecError: Every problem found, each with its path in the file.
    """
    data = read_mapping(path, "labelers")
    for override in overrides:
        set_value(data, override)
    try:
        found: dict[str, ComponentConfig] = TypeAdapter(dict[Name, LabelerSlot]).validate_python(
            data, context={"manager": manager}
        )
    except ValidationError as error:
        raise _explain(error, data, f"{path} does not map names to labelers") from error
    if not found:
        raise SpecError(f"{path} names no labeler; write one a line, such as 'mine: {{kind: similarity}}'")
    return found


def _explain(error: ValidationError, data: Mapping[str, Any], what: str) -> SpecError:
    problems: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        where = ".".join(_find_place(item["loc"], data, missing=item["type"] == "missing"))
        problems.setdefault(where and f"{where}: ", []).append(item["msg"].removeprefix("Value error, "))
    # Several problems in one place come from a choice of types: each says what would have been right.
    lines = [f"  {where}{'; or: '.join(messages)}" for where, messages in problems.items()]
    return SpecError(f"{what}:\n" + "\n".join(lines))


def _find_place(location: Sequence[str | int], data: object, missing: bool) -> list[str]:
    """A problem's path in the file: pydantic's own, less the names of types that it tried."""
    path = []
    for i, part in enumerate(location):
        inside: Any = data if isinstance(data, Mapping) else dict(enumerate(data)) if isinstance(data, list) else {}
        if part in inside or (missing and i == len(location) - 1):
            path.append(str(part))
        data = inside.get(part, data)
    return path


def _requirements(data: Mapping[str, Any]) -> list[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    valid = []
    requires = data.get("requires")
    for text in requires if isinstance(requires, list) else []:
        try:
            valid.append(str(Requirement(str(text))))
        except InvalidRequirement:
            continue  # reported with its path by the spec's own validation
    return valid


def read_mapping(path: Path, what: str = "spec") -> dict[str, Any]:
    """Read a YAML, TOML or JSON file that holds a mapping; `what` it is names it in errors."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "; see specs/ for examples" if what == "spec" else ""
        raise SpecError(f"no {what} file at {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    try:
        match path.suffix.lower():
            case ".yaml" | ".yml":
                data = _unshare(yaml.load(text, SpecLoader))
            case ".toml":
                data = tomllib.loads(text)
            case ".json":
                data = json.loads(text)
            case other:
                raise SpecError(f"{path}: unknown file type '{other}'; use .yaml, .toml or .json")
    except (yaml.YAMLError, ValueError) as error:  # TOML's and JSON's errors are ValueErrors
        reason = str(error).replace("<unicode string>", path.name)  # which is what YAML calls a text
        reason = reason.partition("; use sys.")[0]  # Python's advice on numbers of thousands of digits
        raise SpecError(f"{path} is not valid {path.suffix[1:].upper()}: {reason}") from error
    except RecursionError as error:
        raise SpecError(f"{path} cannot be read: its lists and mappings are nested too deeply") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path} does not hold a mapping of keys to values at its top")
    return data


def _unshare(value: Any) -> Any:
    """A copy in which nothing stands twice, as what YAML's anchors name does: a change to it would be several."""
    if isinstance(value, dict):
        return {key: _unshare(nested) for key, nested in value.items()}
    return [_unshare(nested) for nested in value] if isinstance(value, list) else value


def set_value(data: dict[str, Any], override: str) -> None:
    """Apply one `path.to.value=VALUE` to a nested mapping, in place; lists are indexed by number."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise SpecError(f"--set {override}: expected path=value, such as seed=1")
    try:
        value = yaml.load(text, SpecLoader)
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).replace("<unicode string>", "--set")
        raise SpecError(f"--set {override}: the value is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise SpecError(f"--set {path}: the value is nested too deeply") from error
    *parents, last = path.strip().split(".")
    node: Any = data
    for i, part in enumerate(parents):
        if isinstance(node, dict):
            if isinstance(node.get(part), str):
                node[part] = {"kind": node[part]}  # the short form of a slot, spelled out
            elif node.get(part) is None:
                node[part] = {}
        node = _step(node, part, override, ".".join(parents[: i + 1]))
    if isinstance(node, list):
        _step(node, last, override, path)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise SpecError(f"--set {override}: '{'.'.join(parents)}' holds a single value, it has no '{last}'")


def _step(node: Any, part: str, override: str, where: str) -> Any:
    if isinstance(node, dict):
        return node[part]
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    raise SpecError(f"--set {override}: there is no '{where}' in the spec")
