"""Commands that list what is installed: schema, plugins, components and show."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_framework.cli.options import AsJson, PluginFiles
from rlaif_framework.cli.printing import print_json, print_table
from rlaif_framework.cli.schemas import SCHEMAS, build_schema
from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.errors import SpecError, suggest

if TYPE_CHECKING:
    from rlaif_framework.plugins.component import Component, Slot
    from rlaif_framework.plugins.discovery import Plugin
    from rlaif_framework.plugins.manager import PluginManager

COMMAND = "command"
"""Stands for the kind of the commands that plugins offer, in lists."""

KINDS = "task, backend, strategy, labeler, reward, algorithm, metric or tracker."


def schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(SCHEMAS)}.")] = "spec",
    plugin: PluginFiles = None,
) -> None:
    """Print the JSON Schema of specs, or of rows that runs write.

    That of specs is for editors and includes the installed plugins.
    """
    if name not in SCHEMAS:
        raise SpecError(f"no schema named '{name}'; {suggest(name, SCHEMAS)}")
    with stdout_to_stderr():
        found = build_schema(name, load_plugins(plugin) if name == "spec" else None)
    print_json(found)


def catalogue(
    word: Annotated[str, typer.Argument(metavar="WORD", help="Word in the name, summary or components.")] = "",
    as_json: AsJson = False,
) -> None:
    """Search the catalogue of plugins that can be installed. Entries are not reviewed and not endorsed."""
    from rlaif_registry import NOTICE, read_catalogue

    found = [entry for entry in read_catalogue() if entry.mentions(word)]
    installed = {entry.distribution: find_version(entry.distribution) for entry in found}
    if as_json:
        print_json([{**entry.model_dump(mode="json"), "installed": installed[entry.distribution]} for entry in found])
        return
    if not found:
        print(f"no entry of the catalogue mentions '{word}'; 'rlaif catalogue' lists all")
        return
    head = ("distribution", "installed", "status", "components" if word else "kinds", "summary")
    rows = [
        (
            entry.distribution,
            installed[entry.distribution] or "-",
            entry.status,
            ", ".join(entry.names_with(word) if word else entry.kinds),
            entry.summary,
        )
        for entry in found
    ]
    print_table(head, rows)
    print(f"\n{NOTICE} Install one with pip install DISTRIBUTION.")
    if any(entry.status == "example" for entry in found):
        print("Examples are also in the folder 'plugins' of the repository.")


def plugins(
    as_json: AsJson = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Import every component too; exit with 1 if anything failed.")
    ] = False,
) -> None:
    """List plugins with their distributions, components and errors."""
    from rlaif_framework.plugins.manager import PluginManager

    with stdout_to_stderr():
        manager = PluginManager.load()
        faults = _collect_faults(manager, strict)
    rows = [_describe_plugin(plugin, found) for plugin, found in zip(manager.plugins, faults, strict=True)]
    if as_json:
        print_json(rows)
    else:
        table = [(row["name"], f"{row['distribution']} {row['version']}", _describe_offers(row)) for row in rows]
        print_table(("plugin", "distribution", "offers"), table)
    if strict and any(faults):
        for plugin, found in zip(manager.plugins, faults, strict=True):
            for fault in found:
                print(f"rlaif: {plugin.title}: {' '.join(fault.split())}", file=sys.stderr)
        raise typer.Exit(1)


def _collect_faults(manager: PluginManager, strict: bool) -> list[list[str]]:
    """Return the faults of each plugin; if `strict`, also those of the classes of its components."""
    found = {id(plugin): [plugin.error] if plugin.error else [] for plugin in manager.plugins}
    for plugin, fault in manager.check_targets() if strict else ():
        found[id(plugin)].append(fault)
    return list(found.values())


def _describe_plugin(plugin: Plugin, faults: list[str]) -> dict[str, Any]:
    keys = ("name", "distribution", "version", "hooks", "components", "commands")
    return {
        **{key: getattr(plugin, key) for key in keys},
        "seconds": round(plugin.seconds, 3),
        "slow": plugin.is_slow,
        "error": "; ".join(faults) or None,
    }


def _describe_offers(row: dict[str, Any]) -> str:
    from rlaif_framework.plugins import hookspecs

    registering = {*hookspecs.SLOT_HOOKS.values(), "rlaif_commands"}
    observing = [hook for hook in row["hooks"] if hook not in registering]
    found = [*row["components"], *(f"command {name}" for name in row["commands"]), *observing]
    offers = f"FAILED: {row['error']}" if row["error"] else ", ".join(found or row["hooks"])
    return f"{offers} (slow: {row['seconds']:.1f} s to load)" if row["slow"] else offers


def components(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help=f"{KINDS.rstrip('.')}, or command (of a plugin).")
    ] = None,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
) -> None:
    """List components, and the commands of plugins. JSON also has the plugins that offer them."""
    from rlaif_framework.plugins.component import SLOTS

    if kind not in (None, *SLOTS, COMMAND):
        raise SpecError(f"no kind of component named '{kind}'; {suggest(str(kind), (*SLOTS, COMMAND))}")
    with stdout_to_stderr():
        manager = load_plugins(plugin)
    rows = [
        {"kind": slot, "name": c.name, "summary": c.summary, "plugin": p.name, "target": c.target}
        for slot in SLOTS
        if kind in (None, slot)
        for c, p in manager.components(slot)
    ]
    if kind in (None, COMMAND):
        rows += [
            {"kind": COMMAND, "name": c.name, "summary": c.help, "plugin": p.name, "target": c.target}
            for _, (c, p) in sorted(manager.commands.items())
        ]
    if as_json:
        print_json(rows)
    else:
        print_table(("kind", "name", "summary"), [(r["kind"], r["name"], r["summary"]) for r in rows])


def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=KINDS)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component.")],
    as_json: AsJson = False,
    plugin: PluginFiles = None,
) -> None:
    """Show the settings of a component, with their defaults."""
    slot = _find_slot(kind)
    with stdout_to_stderr():
        component = load_plugins(plugin).find(slot, name)
        found, settings = component.config.model_json_schema(), _list_settings(component)
    if as_json:
        print_json(found)
        return
    print(f"{slot} {component.name}: {component.summary}\n")
    print_table(("setting", "default", "meaning"), settings)


def find_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _find_slot(kind: str) -> Slot:
    from rlaif_framework.plugins.component import SLOTS

    for slot in SLOTS:
        if slot == kind:
            return slot
    raise SpecError(f"no kind of component named '{kind}'; {suggest(kind, SLOTS)}")


def _list_settings(component: Component) -> list[tuple[str, str, str]]:
    rows = []
    for key, field in component.config.model_fields.items():
        if key == "kind":  # the component's name, not a setting
            continue
        if field.is_required():
            default = "required"
        else:
            default = json.dumps(field.get_default(call_default_factory=True), default=str)
        if len(default) > 40:
            default = f"{default[:37]}..."
        rows.append((key, default, (field.description or "").strip()))
    return rows
