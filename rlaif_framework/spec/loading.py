"""Load and validate specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlaif_framework.config import Config
from rlaif_framework.data.mappings import SUFFIXES
from rlaif_framework.data.paths import PACKAGE_PREFIX, anchor_paths
from rlaif_framework.errors import SpecError
from rlaif_framework.files import user_path
from rlaif_framework.plugins.component import AnyConfig
from rlaif_framework.plugins.configs import LabelerConfig, TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.own_code import is_file
from rlaif_framework.plugins.slots import LabelerSlot, TaskSlot
from rlaif_framework.plugins.versions import require_plugins
from rlaif_framework.spec.code import PLUGINS, anchor_code, find_code
from rlaif_framework.spec.families import Family, Member, Variation, expand, is_family, remove_family_keys
from rlaif_framework.spec.layers import Layers, find_spec_file, read_layer, read_layers
from rlaif_framework.spec.model import PUBLISHED, LabelersFile, Spec, slug
from rlaif_framework.spec.problems import explain

SETTING = "setting"
"""How errors name a value that was set in Python."""


def load_spec(
    path: Path | str | Sequence[Path | str],
    overrides: Sequence[str] = (),
    manager: PluginManager | None = None,
    unset: Sequence[str] = (),
) -> Spec:
    """Load and validate the spec of a single run.

    Args:
        path: A `.yaml`, `.yml`, `.toml` or `.json` file, `package:NAME/path` for a file of an installed package, or
            several of these, which are merged in order.
        overrides: Overrides of the form `path.to.value=VALUE`; VALUE is parsed as YAML.
        manager: The available components; by default those of all installed plugins. Files that the spec lists as
            plugins are added to it, if its `code` allows them.
        unset: Paths of values to remove before the overrides are applied.

    Raises:
        SpecError: The spec is not valid, and the message lists all problems with their paths in the file; or it names
            code that is not allowed; or it is a family of several runs.
    """
    loaded = load_family(path, overrides, manager, unset)
    if isinstance(loaded, Family):
        raise SpecError(
            f"{_join_names(path)} is a family of {len(loaded.members)} runs, by its seeds or matrix; load it by "
            "load_family(...), or remove these keys"
        )
    return loaded


def load_family(
    path: Path | str | Sequence[Path | str],
    overrides: Sequence[str] = (),
    manager: PluginManager | None = None,
    unset: Sequence[str] = (),
) -> Spec | Family:
    """Load and validate a spec, which `seeds` or `matrix` makes a family of several runs.

    Args:
        path: As for `load_spec`.
        overrides: As for `load_spec`; they are applied before the family is expanded.
        manager: As for `load_spec`.
        unset: As for `load_spec`.

    Returns:
        The spec if it has neither key.

    Raises:
        SpecError: The spec or one of its members is not valid, or names code that is not allowed.
    """
    given = [path] if isinstance(path, Path | str) else list(path)
    return _load_files(given, overrides, manager or PluginManager.load(), unset)


def _load_files(
    given: Sequence[Path | str],
    overrides: Sequence[str],
    manager: PluginManager,
    unset: Sequence[str] = (),
    option: str = "--set",
) -> Spec | Family:
    layers = read_layers(given)
    _apply(layers, overrides, unset, option)
    return _build_runs(layers, _join_names(given), slug(find_spec_file(given[0]).stem), manager)


def _join_names(path: Path | str | Sequence[Path | str]) -> str:
    return str(path) if isinstance(path, Path | str) else ", ".join(map(str, path))


def resolve_spec(
    given: str | Path | Sequence[str | Path] | Mapping[str, Any] | Spec,
    overrides: Sequence[str],
    manager: PluginManager,
) -> Spec | Family:
    """Load a spec from files, or validate one that was built in Python.

    Args:
        given: The path of a file or several, as for `load_spec`, a mapping with the contents of one, or a spec. Parts
            of a mapping may be settings, such as `Arm(...)`.
        overrides: As for `load_family`.
        manager: The available components.

    Raises:
        SpecError: The spec is not valid, or names code that is not allowed.
    """
    if isinstance(given, str | Path):
        given = [given]
    expected = "a spec is the path of a file, a mapping or a Spec"
    if not isinstance(given, Spec | Mapping | Sequence) or given == []:
        raise SpecError(f"{expected}, not a {type(given).__name__}")
    if isinstance(given, Sequence):
        if strange := [part for part in given if not isinstance(part, str | Path)]:
            raise SpecError(f"{expected}, not a {type(strange[0]).__name__} in a {type(given).__name__}")
        paths = [name if str(name).startswith(PACKAGE_PREFIX) else user_path(str(name)) for name in given]
        return _load_files(paths, overrides, manager, option=SETTING)
    layers = Layers(data=to_plain(given))
    _apply(layers, overrides, option=SETTING)
    if isinstance(given, Spec) and not overrides:
        _check_code(layers, "the spec", manager)
        return given
    return _build_runs(layers, "the spec", None, manager)


def _build_runs(layers: Layers, origin: str, name: str | None, manager: PluginManager) -> Spec | Family:
    """Validate a spec, or the members of a family.

    Args:
        layers: The settings.
        origin: Their name in errors.
        name: The name of a spec that states none.
        manager: The available components.
    """
    if name is not None:
        layers.data.setdefault("name", name)
    if not is_family(layers.data):
        layers.data = remove_family_keys(layers.data)
        return _build_run(layers, origin, manager)
    title = str(layers.data.get("name", Spec.model_fields["name"].default))
    members = tuple(_build_member(v, origin, title, manager) for v in expand(layers, origin))
    # A family may be printed into a file elsewhere, where relative paths would lead to other files.
    settings = anchor_paths(layers.data, [member.spec.model_dump(mode="json") for member in members])
    return Family(title, to_plain(settings), members)


def _build_member(variation: Variation, origin: str, family: str, manager: PluginManager) -> Member:
    # A path in the matrix may lead to the name of a function.
    variation.layers.data = anchor_code(variation.layers.data)
    spec = _build_run(variation.layers, f"{origin}, member '{variation.name}',", manager)
    choices = {choice.axis: choice.value for choice in variation.choices}
    return Member(variation.name, variation.variant or family, choices, spec)


def _build_run(layers: Layers, origin: str, manager: PluginManager) -> Spec:
    _check_code(layers, origin, manager)
    return build_spec(layers.data, origin, manager, layers)


def _check_code(layers: Layers, origin: str, manager: PluginManager) -> None:
    """Check that required plugins are installed and that code is allowed, and load the files that are plugins."""
    # Before validation, which would report the components of a missing plugin as unknown.
    unmet = require_plugins(_valid_requirements(layers.data))
    if unmet:
        place = f"{origin}: " if layers.files else ""
        raise SpecError(f"{place}plugins are missing:\n" + "\n".join(f"  {line}" for line in unmet))
    manager.code.check(origin, find_code(layers.data))
    manager.add_files(_valid_files(layers.data))


def to_plain(value: Any) -> Any:
    """Return a value of a spec as files have it: settings as mappings, paths as text."""
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path | str) else value


def build_spec(data: Mapping[str, Any], origin: str, manager: PluginManager, layers: Layers | None = None) -> Spec:
    """Validate a spec given as a mapping.

    Args:
        data: The spec.
        origin: Its name in errors.
        manager: The available components.
        layers: The files that it was read from, whose lines are named in errors.

    Raises:
        SpecError: The spec is not valid. The message lists all problems.
    """
    # Without a name in the file, it is that of the file; files of labelers may have `published`, too.
    stated = data.keys() - {"name", "published"}
    if stated and not stated & Spec.model_fields.keys():
        raise SpecError(
            f"{origin} has none of the keys of a spec, such as task and policy; files of labelers and tasks are for "
            "'rlaif label', as --labeler, --compare or --task"
        )
    try:
        return Spec.model_validate(dict(data), context={"manager": manager})
    except ValidationError as error:
        raise explain(error, data, f"{origin} is not a valid spec", layers) from error


def build_labeler(data: Mapping[str, Any], origin: str, manager: PluginManager) -> LabelerConfig:
    """Validate the config of a labeler given as a mapping; `origin` names it in errors."""
    adapter: TypeAdapter[LabelerConfig] = TypeAdapter(LabelerSlot)
    return _validate("labeler", adapter, Layers(data=dict(data)), origin, manager)


def build_task(data: Mapping[str, Any], origin: str, manager: PluginManager) -> TaskConfig:
    """Validate the config of a task given as a mapping; `origin` names it in errors."""
    adapter: TypeAdapter[TaskConfig] = TypeAdapter(TaskSlot)
    return _validate("task", adapter, Layers(data=dict(data)), origin, manager)


def load_task(given: str, overrides: Sequence[str], manager: PluginManager) -> TaskConfig:
    """Load the config of a task from its name, or from a file with the contents of a spec's `task`.

    Raises:
        SpecError: The config is not valid. The message lists all problems.
    """
    adapter: TypeAdapter[TaskConfig] = TypeAdapter(TaskSlot)
    return _load_component("task", adapter, given, overrides, manager)


def load_labeler(given: str, overrides: Sequence[str], manager: PluginManager, option: str = "--set") -> LabelerConfig:
    """Load the config of a labeler from its name, or from a file with the contents of a spec's `labeler`.

    Args:
        given: The name or the file.
        overrides: As for `load_spec`.
        manager: The available components.
        option: How a user states overrides, for errors.

    Raises:
        SpecError: The config is not valid. The message lists all problems.
    """
    adapter: TypeAdapter[LabelerConfig] = TypeAdapter(LabelerSlot)
    return _load_component("labeler", adapter, given, overrides, manager, option)


def _load_component(
    slot: str,
    adapter: TypeAdapter[AnyConfig],
    given: str,
    overrides: Sequence[str],
    manager: PluginManager,
    option: str = "--set",
) -> AnyConfig:
    path = Path(given)
    is_settings = path.suffix.lower() in SUFFIXES
    layers = read_layer(path, slot) if is_settings else Layers(data={"kind": given})
    _apply(layers, overrides, option=option)
    return _validate(slot, adapter, layers, given, manager)


def _validate(
    slot: str, adapter: TypeAdapter[AnyConfig], layers: Layers, origin: str, manager: PluginManager
) -> AnyConfig:
    manager.code.check(origin, find_code(layers.data))
    try:
        return adapter.validate_python(layers.data, context={"manager": manager})
    except ValidationError as error:
        raise explain(error, layers.data, f"{origin} is not a valid {slot}", layers) from error


def load_labelers(path: Path, overrides: Sequence[str], manager: PluginManager) -> LabelersFile:
    """Load several labelers from a file that maps names to labelers; `published` is no labeler.

    Raises:
        SpecError: The file is not valid. The message lists all problems with their paths in the file.
    """
    layers = read_layer(path, "labelers")
    _apply(layers, overrides)
    manager.code.check(str(path), find_code(layers.data))
    published = layers.data.get(PUBLISHED, [])
    named = {name: value for name, value in layers.data.items() if name != PUBLISHED}
    raw = {"labelers": named, PUBLISHED: [published] if isinstance(published, dict) else published}
    try:
        found = LabelersFile.model_validate(raw, context={"manager": manager})
    except ValidationError as error:
        raise explain(error, layers.data, f"{path} does not map names to labelers", layers) from error
    if not found.labelers:
        raise SpecError(f"{path} names no labeler; write one per line, such as 'mine: {{kind: similarity}}'")
    return found


def _apply(layers: Layers, overrides: Sequence[str], unset: Sequence[str] = (), option: str = "--set") -> None:
    """Apply overrides, and make the paths of code absolute: relative to the file or the option that states them."""
    layers.apply(overrides, unset, option)
    layers.data = anchor_code(layers.data)


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
