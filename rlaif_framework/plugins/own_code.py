"""Python code of users: files beside a spec and functions in modules, which run only where the user allows it.

A spec may come from a stranger, so it can name code but never make it run.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator

from rlaif_framework.errors import PluginError, SpecError, suggest
from rlaif_framework.files import read_regular, user_path
from rlaif_framework.plugins.code import hash_code
from rlaif_framework.plugins.failures import describe_error

SUFFIX = ".py"
LARGEST = 2**22
"""Maximum size of a file in bytes."""


def is_file(name: str) -> bool:
    """Return True if a name is that of a file, False if it is that of a module."""
    return name.endswith(SUFFIX)


def absolute_name(name: str, folder: Path | None = None) -> str:
    """Return a file's absolute path, relative to a folder (default: the current one), or the name of a module.

    Raises:
        RlaifError: No file can have this name, or it is in the home folder of an unknown user.
    """
    if not is_file(name):
        return name
    # `..` is followed as in a shell, and links keep their names.
    return os.path.normpath(Path(folder or Path.cwd(), user_path(name)).absolute())


def split_target(target: str) -> tuple[str, str]:
    """Split `my_rewards.py:score` or `package.module:score` into the code and the function.

    Raises:
        ValueError: It has another form.
    """
    name, _, function = target.rpartition(":")
    if not name or not function.isidentifier():
        raise ValueError(f"'{target}' is not FILE.py:FUNCTION, such as my_rewards.py:score, or PACKAGE.MODULE:FUNCTION")
    if not is_file(name) and not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"'{name}' is neither the name of a Python file nor that of a module")
    return name, function


def check_target(target: str) -> str:
    """Return a function as it is named, after checking the form of its name; see `split_target`."""
    split_target(target)
    return target


FunctionName = Annotated[str, AfterValidator(check_target)]
"""A function of the user's own, as `FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION`."""


def anchor_target(target: str, folder: Path | None = None) -> str:
    """Make the path in the target of a function absolute, relative to a folder or to the current one."""
    name, colon, function = target.rpartition(":")
    return f"{absolute_name(name, folder)}{colon}{function}" if colon and is_file(name) else target


class OwnCode:
    """The code that a user allows to run, loaded at most once.

    Args:
        allowed: Files such as `my_rewards.py`, and modules such as `package.module`.
        allow_all: If True, whatever a spec names may run.
    """

    def __init__(self, allowed: Iterable[str] = (), allow_all: bool = False) -> None:
        self.allowed = [absolute_name(name) for name in allowed]
        self.allow_all = allow_all
        self._identities = {_identify(name) for name in self.allowed}
        self._modules: dict[str, tuple[ModuleType, str]] = {}

    def allows(self, name: str) -> bool:
        """Return True if a file or module may run."""
        return self.allow_all or _identify(absolute_name(name)) in self._identities

    def check(self, origin: str, named: Mapping[str, Iterable[str]]) -> None:
        """Refuse code that the user has not allowed.

        Args:
            origin: Name of the file that names the code.
            named: Each file or module with the places that name it.

        Raises:
            SpecError: The message lists all of the code.
        """
        refused = [name for name in named if not self.allows(name)]
        if not refused:
            return
        lines = [f"  {name} ({', '.join(named[name])})" for name in refused]
        options = " ".join(f"--plugin {shlex.quote(_shorten(name))}" for name in refused)
        raise SpecError(
            f"{origin} names Python code, which can do everything that you can:\n"
            + "\n".join(lines)
            + f"\nRead it, and allow it to run by {options}, or all that the spec names by --trust-local"
        )

    def load(self, name: str) -> ModuleType:
        """Import a file or a module.

        Raises:
            SpecError: It is not allowed, or there is no such file.
            PluginError: Its code fails.
        """
        return self._load(name)[0]

    def hash(self, name: str) -> str:
        """Return the hash of the contents of a file, or of the source of a module's package. No code of files runs.

        Raises:
            SpecError: It is not allowed, or there is no such file.
        """
        name = absolute_name(name)
        self._require(name)
        if name in self._modules:
            return self._modules[name][1]
        return _hash(_read(name)) if is_file(name) else hash_code(name)

    def find_function(self, target: str) -> Callable[..., Any]:
        """Import the function of a target; see `split_target`.

        Raises:
            SpecError: Its code is not allowed, or there is no such file.
            PluginError: Its code fails, or has no such function.
        """
        name, attribute = split_target(target)
        module = self.load(name)
        function = getattr(module, attribute, None)
        if not callable(function):
            functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            hint = suggest(attribute, functions)
            raise PluginError(f"{name}: no function named '{attribute}'; {hint}")
        return function  # type: ignore[no-any-return]

    def _load(self, name: str) -> tuple[ModuleType, str]:
        name = absolute_name(name)
        self._require(name)
        if name not in self._modules:
            self._modules[name] = _run_file(name) if is_file(name) else _import_module(name)
        return self._modules[name]

    def _require(self, name: str) -> None:
        self.check("the spec", {} if self.allows(name) else {name: ["a function"]})


def _identify(name: str) -> str:
    return os.path.realpath(name) if is_file(name) else name


def _shorten(name: str) -> str:
    """Return a file's path relative to the current folder, if that is shorter."""
    if not is_file(name):
        return name
    relative = os.path.relpath(name)
    return relative if len(relative) < len(name) else name


def _read(path: str) -> bytes:
    try:
        return read_regular(Path(path), LARGEST)
    except FileNotFoundError:
        raise SpecError(f"there is no file {path}; paths in a spec are relative to the spec") from None
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}") from error


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:16]


def _run_file(path: str) -> tuple[ModuleType, str]:
    """Run a file as a module, once for each content. What runs is what was hashed."""
    source = _read(path)
    digest = _hash(source)
    # A name of its own: files may have the name of an installed module, or of a file in another folder.
    name = f"rlaif_file_{_hash(path.encode())}_{digest}"
    if name in sys.modules:
        return sys.modules[name], digest
    module = ModuleType(name)
    module.__file__ = path
    # Before it runs, as for every import: pydantic and dataclasses look a class's module up.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise PluginError(f"{path} cannot be loaded: {describe_error(error, name)}") from error
    return module, digest


def _import_module(name: str) -> tuple[ModuleType, str]:
    try:
        return importlib.import_module(name), hash_code(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of a user may raise anything
        raise PluginError(f"cannot import {name}: {describe_error(error, name)}") from error
