"""Checks of a plugin and its components before they are registered."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import pluggy
from packaging.utils import canonicalize_name
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from rlaif_framework.errors import PluginError, suggest
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.command import BUILTIN_COMMANDS, Command
from rlaif_framework.plugins.component import Component, ComponentConfig, Slot
from rlaif_framework.plugins.configs import BASES
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.namespaces import find_owner

NAME = re.compile(r"[\w-]+/[\w.-]+")
"""Name of a component that is not built in: a namespace and a name."""


def check_module(plugin: Plugin, others: Sequence[Plugin]) -> None:
    """Refuse a plugin whose module is already registered."""
    for other in others:
        if other.module is plugin.module:
            raise PluginError(f"{other.title} is the same module; uninstall one of the two")


def check_hooks(module: ModuleType, hooks: pluggy.PluginManager) -> None:
    """Refuse a function with the prefix of hooks that is not a hook: pluggy would ignore it silently."""
    known = [name for name in vars(hookspecs) if name.startswith("rlaif_")]
    for name, value in vars(module).items():
        if not name.startswith("rlaif_") or not inspect.isfunction(value):
            continue
        if name not in known:
            raise PluginError(f"no hook named '{name}'; {suggest(name, known)}")
        if hooks.parse_hookimpl_opts(module, name) is None:
            raise PluginError(f"'{name}' is not marked as a hook; write @hookimpl above it")


def has_hooks(module: ModuleType, hooks: pluggy.PluginManager) -> bool:
    """Return True if a module implements a hook."""
    return any(
        hooks.parse_hookimpl_opts(module, name) is not None for name in vars(module) if name.startswith("rlaif_")
    )


def check_component(
    slot: Slot, component: object, plugin: Plugin, taken: Mapping[str, tuple[Component, Plugin]]
) -> None:
    """Refuse a component that cannot be registered.

    Args:
        slot: The slot that the component is offered for.
        component: The object that the hook returned.
        plugin: The plugin that offers it.
        taken: Components of the slot by name, with the plugins that offer them.
    """
    if not isinstance(component, Component):
        raise PluginError(f"{hookspecs.SLOT_HOOKS[slot]} returned {component!r}, not a Component")
    where = f"{slot} '{component.name}'"
    _check_config(where, slot, component, plugin)
    if ":" not in str(component.target):
        raise PluginError(f"{where}: its target '{component.target}' is not 'module:attribute'")
    if not plugin.builtin and ("/" in component.name or component.name not in taken):
        _check_namespace(where, component.name, plugin)
    owner = taken[component.name][1] if component.name in taken else None
    if owner is plugin:
        raise PluginError(f"the plugin offers two components named {where}")
    if owner is not None:
        raise PluginError(
            f"{where} is already offered by {owner.title}; uninstall one, or choose with RLAIF_PLUGINS; "
            f"plugin authors: name yours '<namespace>/{component.name}'"
        )


def check_command(command: object, plugin: Plugin, taken: Mapping[str, tuple[Command, Plugin]]) -> None:
    """Refuse a command that cannot be registered.

    Args:
        command: The object that the hook returned.
        plugin: The plugin that offers it.
        taken: Commands by name, with the plugins that offer them.
    """
    if not isinstance(command, Command):
        raise PluginError(f"rlaif_commands returned {command!r}, not a Command")
    where = f"command '{command.name}'"
    if command.name in BUILTIN_COMMANDS:
        raise PluginError(f"{where} is a command of rlaif itself, which no plugin can replace; choose another name")
    # A whole namespace is the name of one distribution's command, like the names inside it.
    _check_namespace(where, command.name if "/" in command.name else f"{command.name}/{command.name}", plugin)
    if ":" not in str(command.target):
        raise PluginError(f"{where}: its target '{command.target}' is not 'module:attribute'")
    if command.name in taken:
        raise PluginError(f"{where} is already offered by {taken[command.name][1].title}")


def _check_namespace(where: str, name: str, plugin: Plugin) -> None:
    """Refuse a name outside the namespace that belongs to the plugin's distribution."""
    own = canonicalize_name(plugin.distribution).removeprefix("rlaif-")
    if not NAME.fullmatch(name):
        bare = "only built-ins have bare names; " if "/" not in name else ""
        raise PluginError(f"{where}: {bare}use '<namespace>/<name>', such as '{own}/{name.rpartition('/')[2]}'")
    namespace = name.partition("/")[0]
    owner = find_owner(namespace)
    if canonicalize_name(plugin.distribution) != owner:
        advice = f"rename the component to '{own}/{name.partition('/')[2]}', or the distribution"
        if not canonicalize_name(plugin.distribution).startswith("rlaif-"):
            advice = (
                "only a distribution named 'rlaif-<namespace>', or one with a namespace in the catalogue, can offer "
                "components"
            )
        raise PluginError(
            f"{where}: the namespace '{namespace}' belongs to the distribution '{owner}', and this one is "
            f"'{plugin.distribution}'; {advice}"
        )


def _check_config(where: str, slot: Slot, component: Component, plugin: Plugin) -> None:
    base = BASES[slot]
    if not (isinstance(component.config, type) and issubclass(component.config, base)):
        name = getattr(component.config, "__name__", repr(component.config))
        raise PluginError(f"{where}: its config {name} is not a {base.__name__}; derive it from {base.__name__}")
    if plugin.builtin:
        return  # built on first use: building all of them would slow every command down
    # Built now, so that an error is attributed to the plugin and does not stop a run that does not use it.
    try:
        component.config.model_rebuild()
    except Exception as error:  # of pydantic, a NameError, or any error of the plugin's own validators
        raise PluginError(f"{where}: its config cannot be built: {error}") from error
    kind = component.config.model_fields["kind"].annotation
    if get_origin(kind) is Literal and component.name not in get_args(kind):
        raise PluginError(
            f"{where}: the 'kind' of its config {component.config.__name__} is "
            f"{' or '.join(map(repr, get_args(kind)))}; use the same name in both"
        )
    _check_schema(where, component.config)


def _check_schema(where: str, config: type[ComponentConfig]) -> None:
    """Refuse a config without a JSON Schema: the schema of specs could not be built for anybody."""
    if _is_plain(config):
        return
    try:
        json.dumps(config.model_json_schema(), allow_nan=False)
    except Exception as error:  # of pydantic, of json, or of the plugin's own code for schemas
        fields = [name for name, field in config.model_fields.items() if not _has_schema(field)]
        which = f" (field '{fields[0]}')" if fields else ""
        reason = str(error).strip().partition("\n")[0]
        raise PluginError(f"{where}: its config has no JSON Schema{which}: {reason}") from error


_KNOWN = frozenset(ComponentConfig.__mro__)
"""Classes whose schemas are known to work."""


def _is_plain(config: type[ComponentConfig]) -> bool:
    """Return True if a config certainly has a schema, which takes much of the time of loading a plugin to build."""
    if "__get_pydantic_json_schema__" in {name for part in config.__mro__ if part not in _KNOWN for name in vars(part)}:
        return False
    return config.model_config.get("json_schema_extra") is None and all(
        (field.annotation in (str, int, float, bool) or get_origin(field.annotation) is Literal)
        and not field.metadata
        and field.json_schema_extra is None
        for field in config.model_fields.values()
    )


def _has_schema(field: FieldInfo) -> bool:
    try:
        annotation: Any = field.annotation
        TypeAdapter(annotation).json_schema()
    except Exception:  # as above
        return False
    return True
