"""Read the files of a spec: each with the specs that it is based on, merged in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlaif_framework.data.key_lines import Place, find_lines
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.data.paths import PACKAGE_PREFIX, locate_texts
from rlaif_framework.errors import RlaifError, SpecError
from rlaif_framework.files import user_path
from rlaif_framework.spec.merging import merge_settings, set_value, unset_value

BASE = "base"
"""Key that names the spec below."""

MAX_BASES = 20
"""Maximum number of specs below each other."""


@dataclass
class Layers:
    """The files that settings come from, and the settings that they make together."""

    files: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    """Each file with its own settings, the lowest first."""
    data: dict[str, Any] = field(default_factory=dict)
    """The merged settings, with overrides."""
    overrides: list[tuple[Place, str]] = field(default_factory=list)
    """The places that were set by overrides, and where each override is stated, such as `--set seed=1`."""
    _lines: dict[Path, dict[Place, int]] = field(default_factory=dict)
    """The lines of files that have been searched."""

    def apply(self, overrides: Sequence[str], unset: Sequence[str] = (), option: str = "--set") -> None:
        """Remove values (`--unset`), then set values (`--set`), in order.

        Args:
            overrides: The values to set, as `path=value`.
            unset: The paths of those to remove.
            option: How a user states overrides, for errors.

        Raises:
            SpecError: An override is malformed, or does not fit the settings.
        """
        for path in unset:
            unset_value(self.data, path)
        for override in overrides:
            self.overrides += [(place, f"{option} {override}") for place in set_value(self.data, override, option)]

    def locate(self, place: Place) -> str:
        """Return where a value, or else the nearest one around it, is stated: `file:line`, `--set ...`, or nothing."""
        for set_place, origin in reversed(self.overrides):
            if set_place == place[: len(set_place)]:  # an override replaces all that was there
                return origin
        in_file = any(_has_place(data, place) for _, data in self.files)
        for set_place, origin in reversed(self.overrides):
            if not in_file and place == set_place[: len(place)]:  # an override created what is around its value
                return origin
        for end in range(len(place), 0, -1):
            # The highest file that has the place: it would not be there if a file above had replaced what is around.
            for path, data in reversed(self.files):
                if _has_place(data, place[:end]):
                    if path not in self._lines:
                        self._lines[path] = find_lines(path)
                    line = self._lines[path].get(place[:end])
                    return f"{path}:{line}" if line else str(path)
        return ""


def _has_place(data: Any, place: Place) -> bool:
    for part in place:
        inside = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if part not in inside:
            return False
        data = inside[part]
    return True


def read_layers(given: Sequence[Path | str]) -> Layers:
    """Read specs, each with those that it is based on, and merge them in order.

    Args:
        given: Files, or `package:NAME/path` for a file in an installed package; later ones take precedence.

    Raises:
        SpecError: A file cannot be read, or a spec is based on itself.
    """
    layers = Layers()
    for name in given:
        merged: dict[str, Any] = {}  # a spec with its bases is a whole: it replaces what is below it
        for path, data in _read_chain(find_spec_file(name)):
            layers.files.append((path, data))
            merged = merge_settings(merged, data)
        # A copy, so that overrides do not change the settings of the files.
        layers.data = merge_settings(layers.data, deepcopy(merged))
    return layers


def read_layer(path: Path, what: str) -> Layers:
    """Read one file without a base, such as the settings of a labeler.

    Raises:
        SpecError: It cannot be read.
    """
    data = _read(path, what)
    return Layers([(path, data)], deepcopy(data))


def _read_chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read a spec and those that it is based on, the lowest first."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    seen: list[str] = []
    while True:
        names = " -> ".join(str(file) for file, _ in chain)
        if os.path.realpath(path) in seen:
            raise SpecError(f"a spec cannot be based on itself: {names} -> {path}")
        if len(chain) > MAX_BASES:
            raise SpecError(f"more than {MAX_BASES} specs are based on each other: {names}")
        try:
            data = _read(path, "spec")
        except SpecError as error:
            raise SpecError(f"{error}; it is the base in {names}" if chain else str(error)) from error
        base = data.pop(BASE, None)
        chain.append((path, data))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str) or not base:
            raise SpecError(f"{path}: base: expected the path of a spec, got {type(base).__name__}")
        seen.append(os.path.realpath(path))
        path = _find_base(path, base)


def _find_base(path: Path, base: str) -> Path:
    try:
        return find_spec_file(base if base.startswith(PACKAGE_PREFIX) else path.parent / user_path(base))
    except RlaifError as error:
        raise SpecError(f"{path}: base: {error}") from error


def _read(path: Path, what: str) -> dict[str, Any]:
    data: dict[str, Any] = locate_texts(read_mapping(path, what, SpecError), path.absolute().parent)
    return data


def find_spec_file(name: Path | str) -> Path:
    """Return the path of a spec: a file, or `package:NAME/path` for a file in an installed package.

    The package is not imported, so that none of its code runs.

    Raises:
        SpecError: There is no such package, or it has no such file.
    """
    text = str(name)
    if not text.startswith(PACKAGE_PREFIX):
        return Path(name)
    package, _, rest = text.removeprefix(PACKAGE_PREFIX).partition("/")
    module = package.replace("-", "_")
    parts, folders = Path(rest).parts, list[str]()
    if not module.isidentifier() or not parts or ".." in parts or Path(rest).is_absolute():
        raise SpecError(f"{text}: expected package:NAME/path/of/spec.yaml")
    with suppress(ValueError):  # of modules that were imported without a spec
        found = find_spec(module)  # of a module at the top level, which imports nothing
        folders = list(found.submodule_search_locations or []) if found else []
    if not folders:
        raise SpecError(f"{text}: the package '{package}' is not installed; install it with pip")
    for folder in folders:
        if (path := Path(folder, rest)).is_file():
            return path
    raise SpecError(f"{text}: the package '{package}' in {folders[0]} has no file {rest}{_list_specs(folders)}")


def _list_specs(folders: Sequence[str]) -> str:
    found = sorted(
        str(file.relative_to(folder))
        for folder in map(Path, folders)
        for pattern in ("*.yaml", "specs/*.yaml")
        for file in folder.glob(pattern)
    )
    return f"; it has {', '.join(found[:8])}" if found else ""
