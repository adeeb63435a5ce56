"""Load and validate specs, and explain what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlaif_framework.config import Config
from rlaif_framework.data.mappings import SUFFIXES
from rlaif_framework.errors import SpecError
from rlaif_framework.files import user_path
from rlaif_framework.plugins.component import AnyConfig
from rlaif_framework.plugins.configs import LabelerConfig, TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.own_code import is_file
from rlaif_framework.plugins.slots import LabelerSlot, TaskSlot
from rlaif_framework.plugins.versions import require_plugins
from rlaif_framework.spec.code import PLUGINS, anchor_code, find_code
from rlaif_framework.spec.files import read_mapping, set_value
from rlaif_framework.spec.model import Name, Spec, slug


def load_spec(path: Path, overrides: Sequence[str] = (), manager: PluginManager | None = None) -> Spec:
    """Load and validate a spec.

    Args:
        path: A `.yaml`, `.yml`, `.toml` or `.json` file.
        overrides: Overrides of the form `path.to.value=VALUE`; VALUE is parsed as YAML.
        manager: The available components; by default those of all installed plugins. Files that the spec lists as
            plugins are added to it, if its `code` allows them.

    Raises:
        SpecError: The spec is not valid, and the message lists all problems with their paths in the file; or it names
            code that is not allowed.
    """
    data = _read_with_overrides(path, "spec", overrides)
    manager = manager or PluginManager.load()
    # Before validation, which would report the components of a missing plugin as unknown.
    unmet = require_plugins(_valid_requirements(data))
    if unmet:
        raise SpecError(f"{path}: plugins are missing:\n" + "\n".join(f"  {line}" for line in unmet))
    manager.code.check(path.name, find_code(data))
    manager.add_files(_valid_files(data))
    data.setdefault("name", slug(path.stem))
    return build_spec(data, path.name, manager)


def resolve_spec(
    given: str | Path | Mapping[str, Any] | Spec, overrides: Sequence[str], manager: PluginManager
) -> Spec:
    """Load a spec from a file, or validate one that was built in Python.

    Args:
        given: The path of a file, a mapping with the contents of one, or a spec. Parts of a mapping may be settings,
            such as `Arm(...)`.
        overrides: As for `load_spec`.
        manager: The available components.

    Raises:
        SpecError: The spec is not valid, or names code that is not allowed.
    """
    if isinstance(given, str | Path):
        return load_spec(user_path(str(given)), overrides, manager)
    if not isinstance(given, Spec | Mapping):
        raise SpecError(f"a spec is the path of a file, a mapping or a Spec, not a {type(given).__name__}")
    data = to_plain(given)
    for override in overrides:
        set_value(data, override)
    unmet = require_plugins(_valid_requirements(data))
    if unmet:
        raise SpecError("plugins are missing:\n" + "\n".join(f"  {line}" for line in unmet))
    data = anchor_code(data, Path.cwd())
    manager.code.check("the spec", find_code(data))
    manager.add_files(_valid_files(data))
    return given if isinstance(given, Spec) and not overrides else build_spec(data, "the spec", manager)


def to_plain(value: Any) -> Any:
    """Return a value of a spec as files have it: settings as mappings, paths as text."""
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def build_spec(data: Mapping[str, Any], origin: str, manager: PluginManager) -> Spec:
    """Validate a spec given as a mapping; `origin` names it in errors."""
    try:
        return Spec.model_validate(dict(data), context={"manager": manager})
    except ValidationError as error:
        raise _explain(error, data, f"{origin} is not a valid spec") from error


def build_labeler(data: Mapping[str, Any], origin: str, manager: PluginManager) -> LabelerConfig:
    """Validate the config of a labeler given as a mapping; `origin` names it in errors."""
    adapter: TypeAdapter[LabelerConfig] = TypeAdapter(LabelerSlot)
    return _validate("labeler", adapter, data, origin, manager)


def build_task(data: Mapping[str, Any], origin: str, manager: PluginManager) -> TaskConfig:
    """Validate the config of a task given as a mapping; `origin` names it in errors."""
    adapter: TypeAdapter[TaskConfig] = TypeAdapter(TaskSlot)
    return _validate("task", adapter, data, origin, manager)


def load_task(given: str, overrides: Sequence[str], manager: PluginManager) -> TaskConfig:
    """Load the config of a task from its name, or from a file with the contents of a spec's `task`.

    Raises:
        SpecError: The config is not valid. The message lists all problems.
    """
    adapter: TypeAdapter[TaskConfig] = TypeAdapter(TaskSlot)
    return _load_component("task", adapter, given, overrides, manager)


def load_labeler(given: str, overrides: Sequence[str], manager: PluginManager) -> LabelerConfig:
    """Load the config of a labeler from its name, or from a file with the contents of a spec's `labeler`.

    Raises:
        SpecError: The config is not valid. The message lists all problems.
    """
    adapter: TypeAdapter[LabelerConfig] = TypeAdapter(LabelerSlot)
    return _load_component("labeler", adapter, given, overrides, manager)


def _load_component(
    slot: str, adapter: TypeAdapter[AnyConfig], given: str, overrides: Sequence[str], manager: PluginManager
) -> AnyConfig:
    path = Path(given)
    is_settings = path.suffix.lower() in SUFFIXES
    data = _read(path, slot) if is_settings else {"kind": given}
    for override in overrides:
        set_value(data, override)
    return _validate(slot, adapter, data, given, manager)


def _validate(
    slot: str, adapter: TypeAdapter[AnyConfig], data: Mapping[str, Any], origin: str, manager: PluginManager
) -> AnyConfig:
    manager.code.check(origin, find_code(data))
    try:
        return adapter.validate_python(data, context={"manager": manager})
    except ValidationError as error:
        raise _explain(error, data, f"{origin} is not a valid {slot}") from error


def load_labelers(path: Path, overrides: Sequence[str], manager: PluginManager) -> dict[str, LabelerConfig]:
    """Load several labelers from a file that maps names to labelers.

    Raises:
        SpecError: The file is not valid. The message lists all problems with their paths in the file.
    """
    data = _read_with_overrides(path, "labelers", overrides)
    manager.code.check(str(path), find_code(data))
    adapter: TypeAdapter[dict[str, LabelerConfig]] = TypeAdapter(dict[Name, LabelerSlot])
    try:
        found = adapter.validate_python(data, context={"manager": manager})
    except ValidationError as error:
        raise _explain(error, data, f"{path} does not map names to labelers") from error
    if not found:
        raise SpecError(f"{path} names no labeler; write one per line, such as 'mine: {{kind: similarity}}'")
    return found


def _read_with_overrides(path: Path, what: str, overrides: Sequence[str]) -> dict[str, Any]:
    data = _read(path, what)
    for override in overrides:
        set_value(data, override)
    return data


def _read(path: Path, what: str) -> dict[str, Any]:
    return anchor_code(read_mapping(path, what), path.absolute().parent)


def _explain(error: ValidationError, data: Mapping[str, Any], what: str) -> SpecError:
    problems: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        where = ".".join(_find_place(item["loc"], data, missing=item["type"] == "missing"))
        problems.setdefault(where and f"{where}: ", []).append(item["msg"].removeprefix("Value error, "))
    # Several problems at one path come from a union: each describes one valid form.
    lines = [f"  {where}{'; or: '.join(messages)}" for where, messages in problems.items()]
    return SpecError(f"{what}:\n" + "\n".join(lines))


def _find_place(location: Sequence[str | int], data: object, missing: bool) -> list[str]:
    """Return a problem's path in the file: pydantic's location without the names of types it tried."""
    path = []
    for i, part in enumerate(location):
        inside: Any = data if isinstance(data, Mapping) else dict(enumerate(data)) if isinstance(data, list) else {}
        # The last part of a missing key's location is the key, which the data does not have.
        if part in inside or (missing and i == len(location) - 1):
            path.append(str(part))
        data = inside.get(part, data)
    return path


def _valid_files(data: Mapping[str, Any]) -> list[str]:
    """Return the files that an unvalidated spec lists as plugins; validation reports what is no name of a file."""
    names = data.get(PLUGINS)
    return [name for name in names if isinstance(name, str) and is_file(name)] if isinstance(names, list) else []


def _valid_requirements(data: Mapping[str, Any]) -> list[str]:
    """Return the well-formed requirements of an unvalidated spec; validation reports the others with their paths."""
    from packaging.requirements import InvalidRequirement, Requirement

    valid = []
    requires = data.get("requires")
    for text in requires if isinstance(requires, list) else []:
        try:
            requirement = Requirement(str(text))
        except InvalidRequirement:
            continue  # reported by `Spec`
        if requirement.url is None:  # `Spec` refuses addresses
            valid.append(str(requirement))
    return valid
