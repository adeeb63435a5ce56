"""Commands for artefacts: lineage and gc."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaif_framework.cli.options import AsJson, StorePath
from rlaif_framework.cli.printing import format_bytes, format_size, print_json, print_table, print_yaml
from rlaif_framework.terminal import escape_controls, format_seconds

if TYPE_CHECKING:
    from rlaif_framework.pipeline.lineage import Lineage
    from rlaif_framework.pipeline.unused import StoreUse, Use

LONG = 160
"""Length in characters at which values of settings are cut."""

USES: dict[Use, str] = {
    "used": "used by run folders and running runs",
    "held": "linked from folders elsewhere",
    "foreign": "not written by the store alone",
    "unused": "unused",
}

PROMPTS = "annotator_prompts"
"""The longest setting, of which only the size is shown."""


def lineage(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Folder of an artefact in a run folder or the store, or a file in it."),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what an artefact was made from: its inputs as a tree, its settings, time, memory and versions.

    Settings without a value are left out, and long ones are cut; --json prints all.
    """
    from rlaif_framework.pipeline.lineage import trace_artefact

    found = trace_artefact(path)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table(("artefact", "stage", "key", "time", "peak memory"), list(_describe(found, 0)))
    print(escape_controls(f"\nfolder: {found.path}"))
    settings = {"seed": found.seed, **found.settings, "facts": found.facts, "environment": found.environment}
    print_yaml(_shorten(settings))


def gc(
    store: StorePath = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Folder with run folders; repeatable. [default: runs]", show_default=False),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the unused artefacts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which artefacts of the store no run folder uses, and delete them with --delete.

    Artefacts of running runs, those that other folders have hard links to, and what the store did not write are kept.
    """
    from rlaif_framework.pipeline.run_folder import default_store
    from rlaif_framework.pipeline.unused import delete_unused, measure_store
    from rlaif_framework.store import Store

    place, folders = Store(store or default_store()), runs or [Path("runs")]
    if delete:
        found = delete_unused(place, folders, lambda text: print(escape_controls(text), file=sys.stderr))
    else:
        found = measure_store(place, folders)
    if as_json:
        print_json({**found.model_dump(mode="json"), "deleted": delete})
    else:
        _print_use(found, delete)


def _print_use(found: StoreUse, deleted: bool) -> None:
    rows = []
    for use, meaning in USES.items():
        for title, group in (
            (meaning, [a for a in found.select(use) if not a.unfinished]),
            (f"{meaning}, unfinished", [a for a in found.select(use) if a.unfinished]),
        ):
            if group:
                sizes = (sum(a.size for a in group), sum(a.frees for a in group))
                rows.append((title, str(len(group)), *map(format_size, sizes)))
    print(escape_controls(f"store {found.store}, {len(found.runs)} run folders"))
    print_table(("artefacts", "number", "size", "only here"), rows)
    unused = found.select("unused")
    stages = Counter(artefact.stage for artefact in unused)
    if unused:
        print(f"\nunused: {', '.join(f'{count} {stage}' for stage, count in stages.items())}")
    size = format_size(sum(artefact.frees for artefact in unused))
    print(f"deleted; freed {size}" if deleted else f"nothing is deleted; --delete frees {size}")
    for artefact in found.select("foreign"):
        print(escape_controls(f"kept: {artefact.path} has something that the store did not write"))


def _shorten(value: Any) -> Any:
    """Cut long values, and drop those that are not set."""
    if isinstance(value, dict):
        short = {name: _shorten(inner) for name, inner in value.items() if inner not in (None, [], {})}
        size = len(str(value.get(PROMPTS, "")))
        return {**short, PROMPTS: f"({size} characters)"} if size > LONG else short
    if isinstance(value, list):
        return [_shorten(inner) for inner in value]
    return f"{value[:LONG]}... ({len(value)} characters)" if isinstance(value, str) and len(value) > LONG else value


def _describe(artefact: Lineage, depth: int) -> Iterator[tuple[str, ...]]:
    """Yield a row for an artefact and for each of its inputs, indented."""
    name = "not there any more" if artefact.path is None else artefact.name
    role = f"{artefact.role}: " if artefact.role else ""
    cost = ("see above" if artefact.repeated else "", "")
    if artefact.path is not None and not artefact.repeated:
        cost = (format_seconds(artefact.seconds), format_bytes(artefact.peak_memory_bytes))
    yield f"{'  ' * depth}{role}{name}", artefact.stage, artefact.key[:20], *cost
    for inner in artefact.inputs:
        yield from _describe(inner, depth + 1)
