"""Checks of a plugin and its components before they are registered."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType

import pluggy

from rlaif_framework.contracts.protocols import PROTOCOLS, Reward
from rlaif_framework.errors import PluginError, suggest
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.component import Component, Slot
from rlaif_framework.plugins.configs import BASES, LabelerConfig
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.versions import DISTRIBUTION


def check_name(plugin: Plugin, others: Sequence[Plugin]) -> None:
    """Refuse a plugin whose name or module is already registered."""
    for other in others:
        if other.name == plugin.name:
            raise PluginError(f"{other.title} has the same name; uninstall one of the two")
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
    if ":" not in component.target:
        raise PluginError(f"{where}: its target '{component.target}' is not 'module:attribute'")
    owner = taken[component.name][1] if component.name in taken else None
    if owner is plugin:
        raise PluginError(f"the plugin offers two components named {where}")
    if owner is not None:
        raise PluginError(
            f"{where} is already offered by {owner.title}; uninstall one, or choose with RLAIF_PLUGINS; "
            f"plugin authors: name yours '<namespace>/{component.name}'"
        )
    if "/" not in component.name and plugin.distribution != DISTRIBUTION:
        raise PluginError(f"{where}: only built-ins have bare names; use '<namespace>/<name>'")


def _check_config(where: str, slot: Slot, component: Component, plugin: Plugin) -> None:
    base = BASES[slot]
    if not (isinstance(component.config, type) and issubclass(component.config, base)):
        name = getattr(component.config, "__name__", repr(component.config))
        raise PluginError(f"{where}: its config {name} is not a {base.__name__}; derive it from {base.__name__}")
    if plugin.distribution == DISTRIBUTION:
        return  # built on first use: building all of them would slow every command down
    # Built now, so that an error is attributed to the plugin and does not stop a run that does not use it.
    try:
        component.config.model_rebuild()
    except Exception as error:  # of pydantic, a NameError, or any error of the plugin's own validators
        raise PluginError(f"{where}: its config cannot be built: {error}") from error


def check_target(where: str, target: object, component: Component, slot: Slot) -> None:
    """Refuse a class without the methods of its slot's protocol, or of `Reward` if its config promises scores."""
    protocols = [PROTOCOLS[slot]]
    if issubclass(component.config, LabelerConfig) and component.config.scores_responses:
        protocols.append(Reward)
    methods = [name for protocol in protocols for name in vars(protocol) if not name.startswith("_")]
    missing = [name for name in methods if not callable(getattr(target, name, None))]
    if missing:
        raise PluginError(f"{where}: {component.target} lacks {', '.join(missing)}()")
