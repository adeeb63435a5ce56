"""Import the classes of components, and check them against the protocols of their slots."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from rlaif_framework.contracts.protocols import (
    PROTOCOLS,
    Responder,
    ResultTracker,
    Reward,
    StageTracker,
    TableTracker,
)
from rlaif_framework.errors import MissingPackageError, PluginError, describe_missing
from rlaif_framework.plugins.component import Component, Slot
from rlaif_framework.plugins.configs import AlgorithmConfig, LabelerConfig, TrackerConfig
from rlaif_framework.plugins.failures import describe_error


def import_target(component: Component, slot: Slot) -> type[Any]:
    """Import the class of a component.

    Raises:
        MissingPackageError: A package that the component needs is not installed.
        PluginError: The target does not exist or does not satisfy the slot's protocol.
    """
    where = f"{slot} '{component.name}'"
    target: type[Any] = import_attribute(where, component.target)
    check_target(where, target, component, slot)
    return target


def import_attribute(where: str, target: str) -> Any:
    """Import the attribute of a module.

    Args:
        where: Who needs it, for error messages.
        target: `module:attribute`.

    Raises:
        MissingPackageError: A package that the module needs is not installed.
        PluginError: The module cannot be imported, or has no such attribute.
    """
    module, _, attribute = target.partition(":")
    package = module.partition(".")[0]
    try:
        return getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugin code may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        # A missing module of the plugin itself is an error in the plugin, not a package to install.
        if missing and missing.partition(".")[0] != package:
            raise MissingPackageError(f"{where}: {describe_missing(missing)}") from error
        raise PluginError(f"{where}: cannot import {target}: {describe_error(error, package)}") from error


def check_target(where: str, target: object, component: Component, slot: Slot) -> None:
    """Refuse a target that does not satisfy the protocol of its slot, or a protocol that its config promises.

    Raises:
        PluginError: The message has all faults.
    """
    if not inspect.isclass(target):
        raise PluginError(f"{where}: {component.target} is a {type(target).__name__}, not a class")
    protocols = [PROTOCOLS[slot]]
    if issubclass(component.config, LabelerConfig) and component.config.scores_responses:
        protocols.append(Reward)
    if issubclass(component.config, AlgorithmConfig) and component.config.responds:
        protocols.append(Responder)
    if issubclass(component.config, TrackerConfig):
        protocols += [x for x in (TableTracker, ResultTracker) if issubclass(target, x)]
        protocols += [StageTracker] if component.config.rewinds or issubclass(target, StageTracker) else []
    faults = list(_find_faults(target, protocols))
    if faults:
        raise PluginError(f"{where}: {component.target} {', '.join(faults)}")


def _find_faults(target: type[Any], protocols: list[type]) -> Iterator[str]:
    methods = [(name, value) for p in protocols for name, value in vars(p).items() if not name.startswith("_")]
    missing = [name for name, wanted in methods if _is_missing(target, name, wanted)]
    if missing:
        yield f"lacks {', '.join(missing)}()"
    for name, wanted in methods:
        if name not in missing:
            yield from _check_method(target, name, wanted)
    if not _accepts(target, ["config", "context"]):
        yield "cannot be called as Class(config, context)"
    if inspect.isabstract(target):
        yield f"is abstract: {', '.join(sorted(target.__abstractmethods__))}"


def _is_missing(target: type[Any], name: str, wanted: object) -> bool:
    """Return True if a class has no method of this name, or only inherits the empty one of the protocol."""
    found = getattr(target, name, None)
    return not callable(found) or found is wanted


def _check_method(target: type[Any], name: str, wanted: object) -> Iterator[str]:
    assert inspect.isfunction(wanted)
    method, expected = getattr(target, name), list(inspect.signature(wanted).parameters)
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        yield f"has an async {name}(); it must be a plain method"
    elif not _accepts(method, expected):
        yield f"cannot be called as {name}({', '.join(expected[1:])})"


def _accepts(function: Any, names: list[str]) -> bool:
    """Return True if a function can be called with this many positional arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of code that is not Python
        return True
    try:
        signature.bind(*names)
    except TypeError:
        return False
    return True
