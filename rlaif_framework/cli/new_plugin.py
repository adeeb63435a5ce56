"""The command `new-plugin`: write a distribution with a component of each requested kind, to start a plugin from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from packaging.utils import canonicalize_name

from rlaif_framework.cli.listings import KINDS
from rlaif_framework.errors import PluginError, suggest
from rlaif_framework.files import atomic_path, locked, remove_leftovers, user_path
from rlaif_registry import read_owners

if TYPE_CHECKING:
    from rlaif_framework.plugins.component import Slot

NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
RESERVED = frozenset({"framework", "local", "plugins", "registry", "testing"})
"""Namespaces of the framework: those of its distributions and modules, and of plugins in files."""

README_PARTS = re.compile(r"<!-- (components|usage) -->")
SKIPPED = frozenset({"plugin.py", "test.py", "usage.yaml"})
"""Files of a template that do not go into the package under their own names."""

Files = dict[str, str]
"""Texts of the files of a distribution, by path."""


def new_plugin(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Namespace of the components: NAME/... of the distribution rlaif-NAME."),
    ],
    kind: Annotated[
        list[str],
        typer.Option(metavar="KIND", help=f"Kind of component: {KINDS} Repeat it for several."),
    ],
    out: Annotated[
        Path | None, typer.Option(parser=user_path, metavar="PATH", help="Folder to create [default: rlaif-NAME].")
    ] = None,
) -> None:
    """Write a new plugin with small components, and their tests. It is a distribution to install."""
    namespace = check_namespace(name)
    folder = out or Path(f"rlaif-{namespace}")
    written = make_distribution(namespace, [check_kind(text) for text in dict.fromkeys(kind)])
    with locked(folder, f"writes {folder}"):
        if folder.exists() or folder.is_symlink():
            raise PluginError(f"{folder} exists already; choose another folder with --out, or remove it")
        remove_leftovers(folder.parent)
        with atomic_path(folder) as temporary:
            for path, text in written.items():
                target = temporary / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
    print(f"wrote {folder}:", *sorted(written), sep="\n  ")
    print(f"next: cd {folder} && pip install --editable '.[test]' && rlaif plugins && pytest")


def check_namespace(name: str) -> str:
    """Return a namespace in the form that names of distributions are compared in.

    Raises:
        PluginError: No distribution could own it.
    """
    own = canonicalize_name(name)
    if own.startswith("rlaif-"):
        raise PluginError(f"new-plugin: '{name}': leave out the prefix: rlaif new-plugin {own.removeprefix('rlaif-')}")
    if not NAMESPACE.fullmatch(name):
        words = "-".join(re.findall(r"[a-z0-9]+", name.lower())).lstrip("0123456789-") or "acme"
        raise PluginError(
            f"new-plugin: '{name}' cannot be a namespace; use letters, digits and '-', beginning with a letter, such "
            f"as '{words}'"
        )
    if own in RESERVED:
        raise PluginError(f"new-plugin: the namespace '{own}' is reserved for the framework; choose another one")
    owner = read_owners().get(own)
    if owner is not None:
        raise PluginError(
            f"new-plugin: the namespace '{own}' belongs to the distribution '{owner}' of the catalogue; choose "
            "another one"
        )
    return own


def check_kind(kind: str) -> Slot:
    """Return a kind of component.

    Raises:
        PluginError: There is none.
    """
    from rlaif_framework.plugins.component import SLOTS

    for slot in SLOTS:
        if slot == kind:
            return slot
    raise PluginError(f"new-plugin: no kind of component named '{kind}'; {suggest(kind, SLOTS)}")


def make_distribution(namespace: str, kinds: Sequence[Slot]) -> Files:
    """Return the files of a distribution.

    With one kind, its component is in the package's `__init__.py`; with several, each kind has a module of its own,
    whose hook the package imports.

    Args:
        namespace: Namespace of the components.
        kinds: Kinds of components.
    """
    package = "src/rlaif_acme"
    single = len(kinds) == 1
    found = {name: _read("common", name) for name in ("pyproject.toml", "README.md")}
    found[f"{package}/py.typed"] = ""
    found["README.md"] = _fill_readme(found["README.md"], kinds)
    if not single:
        found[f"{package}/__init__.py"] = _export_hooks(kinds)
    for kind in kinds:
        module = "rlaif_acme" if single else f"rlaif_acme.{kind}"
        found[f"{package}/__init__.py" if single else f"{package}/{kind}.py"] = _move(_read(kind, "plugin.py"), module)
        found[f"tests/test_{kind}.py"] = _move(_read(kind, "test.py"), module)
        for name in _other_files(kind):
            found[f"{package}/{name}"] = _move(_read(kind, name), module)
    return {rename(path, namespace): rename(text, namespace) for path, text in found.items()}


def rename(text: str, namespace: str) -> str:
    """Replace the names of the template, `rlaif_acme`, `rlaif-acme` and `acme`, by those of a namespace."""
    package = f"rlaif_{namespace.replace('-', '_')}"
    # In one pass: a namespace may have `acme` in it.
    return re.sub("rlaif_acme|acme", lambda found: package if found[0] == "rlaif_acme" else namespace, text)


def _move(text: str, module: str) -> str:
    """Replace the module of the component in imports and targets; files of the package stay where they are."""
    return re.sub(r"\brlaif_acme(?=:| import )", module, text)


def _export_hooks(kinds: Sequence[Slot]) -> str:
    from rlaif_framework.plugins.hookspecs import SLOT_HOOKS

    lines = (f"from rlaif_acme.{kind} import {SLOT_HOOKS[kind]} as {SLOT_HOOKS[kind]}\n" for kind in sorted(kinds))
    return '"""The hooks of rlaif-acme. The entry point names this module."""\n\n' + "".join(lines)


def _fill_readme(text: str, kinds: Sequence[str]) -> str:
    """Insert what the components are, from the docstrings of their modules, and how they are used."""
    about = [ast.get_docstring(ast.parse(_read(kind, "plugin.py"))) or "" for kind in kinds]
    usage = [f"```yaml\n{_read(kind, 'usage.yaml')}```" for kind in kinds]
    parts = {"components": "\n".join(f"* {line}" for line in about), "usage": "\n\n".join(usage)}
    return README_PARTS.sub(lambda found: parts[found[1]], text)


def _other_files(kind: str) -> Iterator[str]:
    names = (entry.name for entry in (_templates() / kind).iterdir() if entry.is_file())
    yield from sorted(name for name in names if name not in SKIPPED)


def _read(folder: str, name: str) -> str:
    return (_templates() / folder / name).read_text(encoding="utf-8")


def _templates() -> Traversable:
    return files("rlaif_framework.cli") / "plugin_templates"
