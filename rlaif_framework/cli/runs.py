"""Commands that work on a spec or a family of runs: run, plan and check."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.interrupts import raise_interrupts
from rlaif_framework.cli.options import (
    AsJson,
    MemberName,
    MoreFiles,
    Overrides,
    PluginFiles,
    Quiet,
    SpecFile,
    StorePath,
    TrustLocal,
    Unset,
    Verbose,
    check_verbosity,
)
from rlaif_framework.cli.printing import format_bytes, format_count, print_json, print_table, print_yaml
from rlaif_framework.cli.setup import load_spec_files
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.files import user_path
from rlaif_framework.processes import is_first_process
from rlaif_framework.terminal import escape_controls, format_seconds

if TYPE_CHECKING:
    from rlaif_framework.pipeline.planning import PlannedStep


def run(
    spec: SpecFile = None,
    file: MoreFiles = None,
    out: Annotated[
        Path | None, typer.Option(parser=user_path, metavar="PATH", help="Run folder [default: runs/<name>-<time>].")
    ] = None,
    store: StorePath = None,
    set_: Overrides = None,
    unset: Unset = None,
    member: MemberName = None,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a spec: labels, reward model, improved policy and report. With seeds or a matrix, run all members.

    Exits with 1 if a member failed.
    """
    check_verbosity(quiet, verbose)
    loaded, manager = load_spec_files(spec, file, set_, unset, plugin, trust_local, member)
    from rlaif_framework.api.families import FamilyResult
    from rlaif_framework.api.runs import execute
    from rlaif_framework.api.session import create_progress

    progress = create_progress(not quiet, verbose)
    with raise_interrupts():
        result = execute(loaded, out, store, manager, progress, show=os.path.realpath)
    failed = result.failed if isinstance(result, FamilyResult) else {}
    if quiet and is_first_process():
        for name, reason in failed.items():
            print(escape_controls(f"rlaif: member '{name}' failed: {reason}"), file=sys.stderr)
        print(escape_controls(os.path.realpath(result.report_path or result.folder)))
    if failed:
        raise typer.Exit(1)


def plan(
    spec: SpecFile = None,
    file: MoreFiles = None,
    store: StorePath = None,
    set_: Overrides = None,
    unset: Unset = None,
    member: MemberName = None,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """List the stages of a run, cached or to do, and their memory. Names the models that they load, and loads none."""
    from rich.console import Console

    with stdout_to_stderr():
        loaded, manager = load_spec_files(spec, file, set_, unset, plugin, trust_local, member)
    from rlaif_framework.pipeline.planning import plan_family, plan_spec
    from rlaif_framework.pipeline.run_folder import default_store
    from rlaif_framework.progress import UniqueProgress
    from rlaif_framework.spec.model import Spec
    from rlaif_framework.store import Store

    notes, artefacts = UniqueProgress(Console(stderr=True)), Store(store or default_store())
    if isinstance(loaded, Spec):
        with stdout_to_stderr():
            steps = plan_spec(loaded, artefacts, manager, notes)
        print_json([asdict(step) for step in steps]) if as_json else _print_plan(steps)
        return
    with stdout_to_stderr():
        planned = plan_family(loaded, artefacts, manager, notes)
    if as_json:
        print_json({name: [asdict(step) for step in steps] for name, steps in planned.items()})
    else:
        _print_family_plan(planned)


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
        state, seconds = "cached" if step.cached else "to do", step.expected_seconds
        time = "-" if step.cached else "not known" if seconds is None else format_seconds(seconds)
        rows.append((step.name, state, time, peak, loads[0] if loads else "-"))
        rows += [("", "", "", "", more) for more in loads[1:]]
    print_table(("stage", "state", "time, about", "peak memory, about", "loads"), rows)
    print(f"\n{missing_steps(steps)} of {len(steps)} stages to do{_describe_peak(steps)}")
    _print_time(steps)


def _print_family_plan(planned: Mapping[str, Sequence[PlannedStep]]) -> None:
    from rlaif_framework.pipeline.planning import missing_steps

    users = Counter(key for steps in planned.values() for key in {step.key for step in steps})
    rows = [
        (name, str(len(steps)), str(sum(users[step.key] > 1 for step in steps)), str(missing_steps(steps)))
        for name, steps in planned.items()
    ]
    print_table(("member", "stages", "shared with others", "to do"), rows)
    distinct = {step.key: step for steps in planned.values() for step in steps}
    total = sum(map(len, planned.values()))
    steps = list(distinct.values())
    counts = f"{total} stages, of which {len(steps)} are distinct; {missing_steps(steps)} to do{_describe_peak(steps)}"
    print(f"\n{len(planned)} members with {counts}")
    _print_time(steps)
    print("--member NAME lists the stages of one member")


def _print_time(steps: Sequence[PlannedStep]) -> None:
    from rlaif_framework.pipeline.timings import describe_time

    expected = {step.key: step.expected_seconds for step in steps if not step.cached}  # arms share steps
    if expected:
        print(describe_time(list(expected.values())))


def _describe_peak(steps: Sequence[PlannedStep]) -> str:
    peaks = [step.peak_bytes for step in steps if not step.cached]
    highest = max((size for size in peaks if size is not None), default=0)
    scope = " of known size" if None in peaks else ""
    return f"; peak memory of the largest one{scope}: about {format_bytes(highest)}" if highest else ""


def check(
    spec: SpecFile = None,
    file: MoreFiles = None,
    set_: Overrides = None,
    unset: Unset = None,
    member: MemberName = None,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """Validate a spec and print it with all defaults. Looks for the files, packages and models that it names.

    A spec with seeds or a matrix is printed as it is, without defaults; its members are printed with --member.
    """
    from rich.console import Console

    with stdout_to_stderr():
        loaded, manager = load_spec_files(spec, file, set_, unset, plugin, trust_local, member)
        from rlaif_framework.pipeline.planning import check_family, check_spec
        from rlaif_framework.progress import UniqueProgress
        from rlaif_framework.spec.model import Spec

        notes, members = UniqueProgress(Console(stderr=True)), list[str]()
        if isinstance(loaded, Spec):
            settings = check_spec(loaded, manager, notes).model_dump(mode="json")
        else:
            check_family(loaded, manager, notes)
            settings = dict(loaded.settings)
            members = [found.name for found in loaded.members]
    if as_json:
        print_json(settings)
        return
    print_yaml(settings)
    given = ", ".join([*([spec] if spec else []), *(file or [])])
    # To stderr, so that stdout can be redirected to a spec file.
    print(escape_controls(f"# {given} is valid{'; members:' if members else ''}"), file=sys.stderr)
    for name in members:
        print(f"#   {name}", file=sys.stderr)
