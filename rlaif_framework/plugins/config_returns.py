"""Validate what the methods and properties of configs return, and the values of their class attributes.

A member is declared by the first class of the framework that has it, whose annotation is the type of its values.
`check_overrides` is called when the class of a config is defined.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache, wraps
from reprlib import repr as short
from types import FunctionType, SimpleNamespace
from typing import Any, Protocol, get_type_hints, runtime_checkable

from rlaif_framework.contracts.values import read_value
from rlaif_framework.errors import PluginError, RlaifError
from rlaif_framework.plugins.failures import describe_error
from rlaif_framework.plugins.namespaces import find_source

CLASS_ATTRIBUTE = "ClassVar["
"""Start of the annotation of a class attribute."""


@runtime_checkable
class Descriptor(Protocol):
    """A method, a property, or another attribute of a class that has a value for each instance."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Return the value for an instance."""
        ...


def check_overrides(config: type[Any]) -> None:
    """Validate the members that the class of a config overrides, or that a base of it overrides without being one.

    Methods and properties are replaced by those that validate what they return at each call; class attributes are
    validated at once.

    Raises:
        PluginError: A class attribute has a wrong value or stands for a method, or a setting has the name of a member.
    """
    for name, base in find_members(config).items():
        if name in config.model_fields:
            raise PluginError(f"{config.__name__}: a setting cannot be named '{name}', which {base.__name__} defines")
        owner = next(part for part in config.__mro__ if name in vars(part))
        # In a subclass of the base, the member was validated when this class was defined.
        if owner is config or not issubclass(owner, base):
            setattr(config, name, _check_member(config, owner, base, name))


def find_members(config: type[Any]) -> dict[str, type[Any]]:
    """Return the public members that a config has from the framework, by name, each with the class that declares it."""
    found: dict[str, type[Any]] = {}
    for part in reversed(config.__mro__[1:]):
        if part.__module__.startswith("rlaif_framework."):
            for name in list_members(part):
                found.setdefault(name, part)
    return found


@cache
def list_members(part: type[Any]) -> list[str]:
    """Return the names of the public methods, properties and class attributes of a class."""
    attributes = [name for name, text in inspect.get_annotations(part).items() if text.startswith(CLASS_ATTRIBUTE)]
    methods = [name for name, value in vars(part).items() if isinstance(value, FunctionType | property)]
    return [name for name in (*attributes, *methods) if not name.startswith("_")]


def find_form(base: type[Any], name: str) -> Any:
    """Return the type of a class attribute, or of what a method or property returns, by its annotation."""
    member = vars(base)[name]
    function = member.fget if isinstance(member, property) else member
    if isinstance(function, FunctionType):
        text = inspect.get_annotations(function)["return"]
    else:
        text = inspect.get_annotations(base)[name].removeprefix(CLASS_ATTRIBUTE).removesuffix("]")
    # Only this annotation: the types of arguments may be imported for type checkers only.
    alone: Any = SimpleNamespace(__annotations__={"return": text})
    return get_type_hints(alone, vars(sys.modules[base.__module__]), include_extras=True)["return"]


def _check_member(config: type[Any], owner: type[Any], base: type[Any], name: str) -> Any:
    """Return what stands for a member that a class overrides.

    Args:
        config: The class that gets it.
        owner: The class that overrides the member: the config, or one of its bases.
        base: The class that declares the member.
        name: Name of the member.
    """
    found, declared = vars(owner)[name], vars(base).get(name)
    is_bound = isinstance(found, Descriptor)
    form = cache(lambda: find_form(base, name))  # later, when all names in annotations are defined
    if isinstance(declared, FunctionType):
        if not is_bound:
            raise PluginError(f"{config.__name__}: {name} is {short(found)} instead of a method")

        @wraps(found)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _read(self, f"{name}()", form(), lambda: found.__get__(self, type(self))(*args, **kwargs), owner)

        return method
    if isinstance(declared, property) and is_bound:
        return property(
            lambda self: _read(self, name, form(), lambda: found.__get__(self, type(self)), owner), doc=found.__doc__
        )
    return read_value(form(), found, f"{config.__name__}: {name}")


def _read(config: Any, place: str, form: Any, compute: Callable[[], Any], owner: type[Any]) -> Any:
    """Return what a member of a config computes, after validating it.

    Args:
        config: The config.
        place: The member, for error messages.
        form: The type of the value.
        compute: Computes the value.
        owner: The class with the code.

    Raises:
        PluginError: The code fails, or the value is wrong.
    """
    try:
        value = _collect(compute())
    except (KeyboardInterrupt, RlaifError):
        raise
    except BaseException as error:  # plugin code may raise anything
        raise PluginError(f"{_title(config)}: {place} failed: {describe_error(error, owner.__module__)}") from error
    try:
        return read_value(form, value, place)
    except PluginError as error:
        raise PluginError(f"{_title(config)}: {error}") from error


def _collect(value: object) -> object:
    """Return a list of what a generator yields, which can be read once only, and a set as it is annotated."""
    if isinstance(value, Iterator):
        return list(value)
    return frozenset(value) if isinstance(value, set) else value


def _title(config: Any) -> str:
    """Return the title of a component with its distribution and version, as `PluginManager.title` does."""
    return f"{config._slot} '{config.kind}' of {find_source(config.kind, type(config).__module__)}"
