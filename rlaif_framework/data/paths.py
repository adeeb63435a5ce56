"""Settings that name files, models and data sets, with paths relative to the file that states them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from rlaif_framework.records.preferences import Split

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""Name of a model or data set on the Hugging Face Hub. A data set always has an owner before its name."""

_DATA_ID = re.compile(r"[\w.-]+/[\w.-]+")

PACKAGE_PREFIX = "package:"
"""Prefix of the name of an installed Python package that contains weights or specs."""

_FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet|gguf|ya?ml|toml|txt)(\.gz)?$")
"""Ends of the names of files, which no hub id has."""


class FileText(str):
    """A string that was read from a file, whose folder paths in it are relative to."""

    __slots__ = ("folder",)
    folder: Path

    def __new__(cls, text: str, folder: Path) -> Self:
        """Create the string of a file in a folder."""
        self = super().__new__(cls, text)
        self.folder = folder
        return self

    def __getnewargs__(self) -> tuple[str, Path]:  # type: ignore[override]  # it has one more than `str`
        """Return the arguments that a copy is created with."""
        return str(self), self.folder


FileText.__name__ = "str"  # messages about values of the wrong type, also those of plugins, name their type


def locate_texts(value: Any, folder: Path) -> Any:
    """Return nested mappings and lists in which every string has the folder of its file."""
    if isinstance(value, dict):
        return {key: locate_texts(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [locate_texts(inner, folder) for inner in value]
    return FileText(value, folder) if type(value) is str else value


class Location(Enum):
    """What a setting names. It determines what stands for the name in the keys of artefacts."""

    FILE = "file"
    """A file or folder: the hash of its contents."""
    MODEL = "model"
    """A model: the identity of its contents."""
    DATA = "data"
    """A data set: nothing, because the keys have its rows."""


def find_location(field: FieldInfo) -> Location | None:
    """Return what a setting names; None for other settings."""
    return next((item for item in _find_metadata(field) if isinstance(item, Location)), None)


def _find_metadata(annotation: Any) -> Iterator[Any]:
    """Yield the metadata of a type and of its alternatives, such as `SpecPath | None`."""
    if isinstance(annotation, FieldInfo):
        yield from annotation.metadata
        yield from _find_metadata(annotation.annotation)
    else:
        yield from getattr(annotation, "__metadata__", ())
        for inner in getattr(annotation, "__args__", ()):
            yield from _find_metadata(inner)


def _resolve_path(value: Any) -> Any:
    """Return the absolute path of a file or folder."""
    if not isinstance(value, str | Path) or not str(value):
        return value
    path = _join(value)
    _check_elsewhere(value, path)
    return path


def _resolve_name(value: Any, hub_id: re.Pattern[str] = HUB_ID) -> Any:
    """Return the absolute path of what is or must be a path, and other names unchanged, as hub ids."""
    if not isinstance(value, str) or not value or "\0" in value or value.startswith(PACKAGE_PREFIX):
        return value
    path, name = _join(value), str(value).partition(":")[0]
    # Also for hub ids: libraries would take the folder of this name.
    _check_elsewhere(value, path)
    if _exists(path) or value.startswith(".") or _FILE.search(value) or not hub_id.fullmatch(name):
        return path
    return str(value)


def _check_elsewhere(value: str | Path, path: str) -> None:
    """Refuse a path that exists in the current folder only, if it was read from a file of another folder.

    Raises:
        ValueError: It does.
    """
    if isinstance(value, FileText) and not _exists(path) and _exists(value):
        raise ValueError(
            f"'{value}' is in the current folder and not in {value.folder}, and paths in a file are relative to its "
            "folder; write the path from there, or give the value by --set"
        )


def _resolve_data(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {split: _resolve_name(place, _DATA_ID) for split, place in value.items()}
    return _resolve_name(value, _DATA_ID)


def _join(value: str | Path) -> str:
    """Return an absolute path; one that starts with `~` is kept, and expanded where the file is opened."""
    if str(value).startswith("~"):
        return str(value)
    path = Path(value.folder if isinstance(value, FileText) else Path.cwd(), value)
    # Not the last part: a link may have a name with a suffix, and its target none.
    return str(Path(os.path.realpath(path.parent), path.name) if ".." in path.parts else path)


def anchor_paths(stated: Any, validated: Sequence[Any]) -> Any:
    """Return settings as they are stated, with the absolute paths of their validated forms in place of relative ones.

    Args:
        stated: Settings; texts that were read from a file have its folder.
        validated: Validated forms of them as plain JSON, such as those of the members of a family.
    """
    if isinstance(stated, Mapping):
        inner = [form for form in validated if isinstance(form, Mapping)]
        return {key: anchor_paths(value, [x[key] for x in inner if key in x]) for key, value in stated.items()}
    if isinstance(stated, list):
        lists = [form for form in validated if isinstance(form, list)]
        return [anchor_paths(value, [x[i] for x in lists if i < len(x)]) for i, value in enumerate(stated)]
    if not isinstance(stated, str):
        return stated
    changed = [form for form in validated if isinstance(form, str) and form != stated]  # most texts are not
    return _join(stated) if changed and _join(stated) in changed else stated


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - `Path.exists` raises an error for names that are too long


SpecPath = Annotated[Path, BeforeValidator(_resolve_path), Location.FILE]
"""Path of a file or folder, relative to the file that states it."""

ModelName = Annotated[str, BeforeValidator(_resolve_name), Location.MODEL]
"""Name of a model: a path, relative to the file that states it, a hub id, or `package:NAME`."""

DataPlace = Annotated[str | dict[Split, str], BeforeValidator(_resolve_data), Location.DATA]
"""A file or folder of data, relative to the file that states it, a hub id, or one of these for each split."""
