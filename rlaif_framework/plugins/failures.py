"""Describe what goes wrong in the code of a plugin: the root cause, with the plugin's file and line."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from rlaif_framework.errors import PluginError


def describe_error(error: BaseException, package: str = "") -> str:
    """Return an error's message, with its type unless it is a `PluginError`.

    Args:
        error: The error.
        package: Name of the plugin's package. If it is given, the root cause of the error is added, and the last line
            of the plugin's code that led to it.
    """
    if isinstance(error, PluginError):
        return str(error)
    if not package:
        return _name(error)
    root = _find_root(error)
    cause = "" if root is error else f", caused by {_name(root)}"
    # The message of a syntax error has its file and line.
    place = "" if isinstance(root, SyntaxError) else _find_place(root, package) or _find_place(error, package)
    return f"{_name(error)}{cause}{place}"


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _find_root(error: BaseException) -> BaseException:
    """Return the first error of a chain, unless the plugin has hidden it with `from None`."""
    seen = {id(error)}
    while True:
        earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if earlier is None or id(earlier) in seen:
            return error
        seen.add(id(earlier))
        error = earlier


def _find_place(error: BaseException, package: str) -> str:
    """Format the last line of a package's code in the traceback of an error; empty if there is none."""
    places = [
        f" ({frame.tb_frame.f_code.co_filename}, line {frame.tb_lineno})"
        for frame in _frames(error.__traceback__)
        if str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == package.partition(".")[0]
        and not frame.tb_frame.f_code.co_filename.startswith("<")  # code that is in no file
    ]
    return places[-1] if places else ""


def _frames(frame: TracebackType | None) -> Iterator[TracebackType]:
    while frame is not None:
        yield frame
        frame = frame.tb_next
