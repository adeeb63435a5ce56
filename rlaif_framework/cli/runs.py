"""Commands that work on a spec: run, plan and check."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.interrupts import raise_interrupts
from rlaif_framework.cli.options import (
    AsJson,
    MoreFiles,
    Overrides,
    PluginFiles,
    SpecFile,
    StorePath,
    TrustLocal,
    Unset,
)
from rlaif_framework.cli.printing import format_bytes, format_count, print_json, print_table, print_yaml
from rlaif_framework.cli.setup import load_spec_files
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.pipeline.planning import PlannedStep


def run(
    spec: SpecFile = None,
    file: MoreFiles = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/<name>-<time>].")] = None,
    store: StorePath = None,
    set_: Overrides = None,
    unset: Unset = None,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """Run a spec: labels, reward model, improved policy and report."""
    loaded, manager = load_spec_files(spec, file, set_, unset, plugin, trust_local)
    from rlaif_framework.api.runs import execute
    from rlaif_framework.api.session import create_progress

    progress = create_progress(verbose=True)
    with raise_interrupts():
        execute(loaded, out, store, manager, progress, show=os.path.realpath)


def plan(
    spec: SpecFile = None,
    file: MoreFiles = None,
    store: StorePath = None,
    set_: Overrides = None,
    unset: Unset = None,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """List the stages of a run, cached or to do, and their memory. Names the models that they load, and loads none."""
    from rich.console import Console

    with stdout_to_stderr():
        loaded, manager = load_spec_files(spec, file, set_, unset, plugin, trust_local)
    from rlaif_framework.pipeline.planning import plan_spec
    from rlaif_framework.pipeline.run_folder import default_store
    from rlaif_framework.progress import Progress
    from rlaif_framework.store import Store

    with stdout_to_stderr():
        steps = plan_spec(loaded, Store(store or default_store()), manager, Progress(Console(stderr=True)))
    if as_json:
        print_json([asdict(step) for step in steps])
    else:
        _print_plan(steps)


def _print_plan(steps: Sequence[PlannedStep]) -> None:
    from rlaif_framework.pipeline.planning import missing_steps

    rows = []
    for step in steps:
        loads = [
            f"{x.role}: {x.model} ({format_count(x.parameters)} parameters, {format_bytes(x.memory_bytes)})"
            + (", runs the model's own code" if x.trust_remote_code else "")
            for x in step.loads
        ]
        peak = format_bytes(step.peak_bytes) if step.loads else "-"
        rows.append((step.name, "cached" if step.cached else "to do", peak, loads[0] if loads else "-"))
        rows += [("", "", "", more) for more in loads[1:]]
    print_table(("stage", "state", "peak memory, about", "loads"), rows)
    peaks = [step.peak_bytes for step in steps if not step.cached]
    highest = max((size for size in peaks if size is not None), default=0)
    scope = " of known size" if None in peaks else ""
    memory = f"; peak memory of the largest one{scope}: about {format_bytes(highest)}" if highest else ""
    print(f"\n{missing_steps(steps)} of {len(steps)} stages to do{memory}")


def check(
    spec: SpecFile = None,
    file: MoreFiles = None,
    set_: Overrides = None,
    unset: Unset = None,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """Validate a spec and print it with all defaults. Looks for the files, packages and models that it names."""
    from rich.console import Console

    with stdout_to_stderr():
        loaded, manager = load_spec_files(spec, file, set_, unset, plugin, trust_local)
        from rlaif_framework.pipeline.planning import check_spec
        from rlaif_framework.progress import Progress

        loaded = check_spec(loaded, manager, Progress(Console(stderr=True)))
        settings = loaded.model_dump(mode="json")
    if as_json:
        print_json(settings)
        return
    print_yaml(settings)
    given = ", ".join([*([spec] if spec else []), *(file or [])])
    print(escape_controls(f"# {given} is valid"), file=sys.stderr)  # so that stdout can be redirected to a spec file
