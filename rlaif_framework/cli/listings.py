"""Commands that list what is installed: schema, plugins, components, show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.errors import SpecError, suggest

if TYPE_CHECKING:
    pass

from rlaif_framework.cli.main import AsJson, app
from rlaif_framework.cli.printing import _print_json, _print_table


@app.command()
def schema() -> None:
    """Print the JSON Schema of specs, for editors; it covers the installed plugins."""
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.spec.schema import spec_schema

    _print_json(spec_schema(PluginManager.load()))


@app.command()
def plugins(
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a plugin failed.")] = False,
) -> None:
    """List plugins: where each comes from, what it offers, and what went wrong."""
    from rlaif_framework.plugins.manager import PluginManager

    found = PluginManager.load().plugins
    if as_json:
        keys = ("name", "distribution", "version", "hooks", "components", "error")
        _print_json([{key: getattr(plugin, key) for key in keys} for plugin in found])
    else:
        rows = [(p.name, f"{p.distribution} {p.version}", p.error or ", ".join(p.components or p.hooks)) for p in found]
        _print_table(
            ("plugin", "distribution", "offers"),
            [(n, d, f"FAILED: {o}" if p.error else o) for p, (n, d, o) in zip(found, rows, strict=True)],
        )
    if strict and any(p.error for p in found):
        raise typer.Exit(1)


@app.command()
def components(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="task, backend, strategy, labeler, reward or algorithm.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List components by kind: name, summary, and the plugin that offers it."""
    from rlaif_framework.plugins.component import SLOTS
    from rlaif_framework.plugins.manager import PluginManager

    if kind is not None and kind not in SLOTS:
        raise SpecError(f"no kind of component named '{kind}'; {suggest(kind, SLOTS)}")
    manager = PluginManager.load()
    rows = [
        {"kind": slot, "name": c.name, "summary": c.summary, "plugin": p.name, "target": c.target}
        for slot in SLOTS
        if kind in (None, slot)
        for c, p in manager.components(slot)
    ]
    if as_json:
        _print_json(rows)
    else:
        _print_table(("kind", "name", "summary"), [(r["kind"], r["name"], r["summary"]) for r in rows])


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="task, backend, strategy, labeler, reward or algorithm.")],
    name: Annotated[str, typer.Argument(help="The component's name.")],
    as_json: AsJson = False,
) -> None:
    """Show a component's settings with their defaults."""
    from rlaif_framework.plugins.component import SLOTS
    from rlaif_framework.plugins.manager import PluginManager

    slot = next((s for s in SLOTS if s == kind), None)
    if slot is None:
        raise SpecError(f"no kind of component named '{kind}'; {suggest(kind, SLOTS)}")
    component = PluginManager.load().find(slot, name)
    if as_json:
        _print_json(component.config.model_json_schema())
        return
    print(f"{slot} {component.name}: {component.summary}\n")
    rows = []
    for key, field in component.config.model_fields.items():
        if key != "kind":
            default = (
                "required"
                if field.is_required()
                else json.dumps(field.get_default(call_default_factory=True), default=str)
            )
            rows.append(
                (key, default if len(default) <= 40 else default[:37] + "...", (field.description or "").strip())
            )
    _print_table(("setting", "default", "meaning"), rows)
