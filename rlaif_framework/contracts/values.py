"""Convert what components return to plain numbers, lists and records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set, Sized
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import islice
from reprlib import repr as short
from types import GenericAlias
from typing import Any, Protocol, SupportsFloat, TypeVar, runtime_checkable

from pydantic import ConfigDict, TypeAdapter, ValidationError

from rlaif_framework.errors import PluginError

T = TypeVar("T")


@runtime_checkable
class Array(Protocol):
    """An array, a tensor or a scalar of numpy or torch."""

    def tolist(self) -> Any:
        """Return the values as numbers and lists of Python."""
        ...


def to_plain(value: object) -> Any:
    """Convert arrays, tensors and their scalars to lists and numbers; return anything else as it is."""
    if not isinstance(value, Array) or isinstance(value, type):
        return value
    try:
        return value.tolist()
    except Exception:  # sparse tensors and those without values have the method, and no list
        return value


def read_number(value: object) -> float | None:
    """Return a number, or an array of one number, as a float; None if the value is something else."""
    plain = to_plain(value)
    while plain is not value and isinstance(plain, list) and len(plain) == 1:
        plain = plain[0]
    if not isinstance(plain, SupportsFloat):
        return None
    try:
        return float(plain)
    except Exception:  # of tensors without values, and integers that are too large
        return None


def read_items(value: object, most: int | None = None) -> list[Any] | None:
    """Return the items of a list, an array or a generator; None if the value is none of these.

    Args:
        value: What a component returned.
        most: Expected number of items, if it is known. An iterator, which may be infinite, is read to one item more.
    """
    plain = to_plain(value)
    if isinstance(plain, str | bytes | Mapping | Set) or not isinstance(plain, Iterable):
        return None
    return list(plain if isinstance(plain, Sized) else islice(plain, None if most is None else most + 1))


def read_exactly(value: object, total: int, names: str, per: str, owner: str) -> list[Any]:
    """Return the items that a component returned, one for each of its inputs.

    Args:
        value: What the component returned.
        total: Number of inputs.
        names: Name of the items, such as `scores`.
        per: Name of the inputs, such as `responses`.
        owner: Title of the component, for error messages.

    Raises:
        PluginError: There are more or fewer, or the value is not a list.
    """
    items = read_items(value, total)
    if items is None:
        raise PluginError(f"{owner}: returned {short(value)} instead of {total} {names} for {total} {per}")
    if len(items) != total:
        count = len(items) if isinstance(value, Sized) or len(items) < total else f"more than {total}"
        raise PluginError(f"{owner}: returned {count} {names} for {total} {per}")
    return items


def read_record(kind: type[T], value: object, where: str) -> T:
    """Return a record with all its values converted to the types of its fields, as they are read from a file.

    Args:
        kind: The type of the record, a dataclass.
        value: What a component returned.
        where: Component and item, for error messages.

    Raises:
        PluginError: It is not a record of this type, or a value has another type, is not finite, or is not JSON.
    """
    if not isinstance(value, kind):
        raise PluginError(f"{where}: {short(value)} is not of type {kind.__name__}")
    return read_value(kind, value, where)  # type: ignore[no-any-return]


def read_value(form: Any, value: object, where: str) -> Any:
    """Return a value of a type, such as `Sequence[str]`, with all its parts converted, as they are read from a file.

    Args:
        form: The type.
        value: What a component returned.
        where: Component and method, for error messages.

    Raises:
        PluginError: The value, or a part of it, has another type, is not finite, or is not JSON.
    """
    adapter = _adapter(form)
    with suppress(ValueError):  # most values need no conversion: this takes a tenth of the time
        (found,) = adapter.validate_python((value,))
        adapter.dump_json((found,))
        return found
    try:
        text = json.dumps([value], default=_to_json, ensure_ascii=False)
        # Lone surrogates cannot be written to a file.
        (found,) = adapter.validate_json(text.encode("utf-8", "replace"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"][1:]))
        place = f"{where}: {path}" if path else where
        message = first["msg"].removeprefix("Value error, ")
        raise PluginError(f"{place} is {short(first['input'])}: {message}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginError(f"{where}: it cannot be written as JSON: {error}") from error
    return found


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    # Of a tuple, because the config applies to dataclasses inside another type only.
    one: Any = GenericAlias(tuple, (form,))
    return TypeAdapter(one, config=ConfigDict(strict=True, allow_inf_nan=False, revalidate_instances="always"))


def _to_json(value: object) -> Any:
    """Convert a value that JSON does not have; called by `json.dumps`."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    plain = to_plain(value)
    if plain is value:
        raise TypeError(f"{short(value)} is a {type(value).__name__}")
    return plain


def check_text(value: object, where: str) -> str:
    """Return a text that can be written to a file.

    Raises:
        PluginError: It is of another type, or not valid Unicode.
    """
    text = check_type(value, str, where)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # lone surrogates
        raise PluginError(
            f"{where} returned {short(text)}, which is not valid Unicode: {error.reason} at position {error.start}"
        ) from error
    return text


def check_type(value: object, kind: type[T], where: str) -> T:
    """Return a value of a type that needs no conversion.

    Raises:
        PluginError: It is of another type.
    """
    if not isinstance(value, kind):
        raise PluginError(f"{where} returned {short(value)} instead of a {kind.__name__}")
    return value
