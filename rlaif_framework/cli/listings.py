"""Commands that list what is installed: schema, plugins, components and show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.options import AsJson
from rlaif_framework.cli.printing import print_json, print_table
from rlaif_framework.errors import SpecError, suggest

if TYPE_CHECKING:
    from rlaif_framework.plugins.component import Component, Slot

KINDS = "task, backend, strategy, labeler, reward or algorithm."


def schema() -> None:
    """Print the JSON Schema of specs, for editors; it includes the installed plugins."""
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.spec.schema import spec_schema

    print_json(spec_schema(PluginManager.load()))


def plugins(
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a plugin failed.")] = False,
) -> None:
    """List plugins with their distributions, components and errors."""
    from rlaif_framework.plugins.manager import PluginManager

    found = PluginManager.load().plugins
    if as_json:
        keys = ("name", "distribution", "version", "hooks", "components", "error")
        print_json([{key: getattr(plugin, key) for key in keys} for plugin in found])
    else:
        rows = []
        for p in found:
            offers = f"FAILED: {p.error}" if p.error else ", ".join(p.components or p.hooks)
            rows.append((p.name, f"{p.distribution} {p.version}", offers))
        print_table(("plugin", "distribution", "offers"), rows)
    if strict and any(p.error for p in found):
        raise typer.Exit(1)


def components(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=KINDS)] = None, as_json: AsJson = False
) -> None:
    """List components with their summaries, and the plugins that offer them."""
    from rlaif_framework.plugins.component import SLOTS
    from rlaif_framework.plugins.manager import PluginManager

    slots = SLOTS if kind is None else (_find_slot(kind),)
    manager = PluginManager.load()
    rows = [
        {"kind": slot, "name": c.name, "summary": c.summary, "plugin": p.name, "target": c.target}
        for slot in slots
        for c, p in manager.components(slot)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(("kind", "name", "summary"), [(r["kind"], r["name"], r["summary"]) for r in rows])


def show(
    kind: Annotated[str, typer.Argument(help=KINDS)],
    name: Annotated[str, typer.Argument(help="Name of the component.")],
    as_json: AsJson = False,
) -> None:
    """Show the settings of a component, with their defaults."""
    from rlaif_framework.plugins.manager import PluginManager

    slot = _find_slot(kind)
    component = PluginManager.load().find(slot, name)
    if as_json:
        print_json(component.config.model_json_schema())
        return
    print(f"{slot} {component.name}: {component.summary}\n")
    print_table(("setting", "default", "meaning"), _list_settings(component))


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
