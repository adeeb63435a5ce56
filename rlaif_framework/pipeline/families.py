"""Run the members of a family: first the stages that several of them share, then each member with its own folder."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal

from rlaif_framework.errors import RlaifError, SpecError
from rlaif_framework.files import locked, write_atomic
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.metrics.seeds import Measure
from rlaif_framework.pipeline.engine import compute_step, prepare_run, run_spec
from rlaif_framework.pipeline.member_measures import list_measures
from rlaif_framework.pipeline.planning import named_member
from rlaif_framework.pipeline.run_folder import check_link, create_folder
from rlaif_framework.pipeline.run_record import FAMILY_STEPS
from rlaif_framework.pipeline.store_use import used_artefacts
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress, UniqueProgress
from rlaif_framework.report.family_report import FAMILY, FamilyMember, FamilyReport
from rlaif_framework.report.run_charts import LoggedMetric, list_training
from rlaif_framework.spec.families import Family, Member
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import Store
from rlaif_framework.terminal import format_seconds


@dataclass
class FamilyRun:
    """One execution of a family."""

    family: Family
    folder: Path
    store: Store
    manager: PluginManager
    progress: Progress
    checkpoint_seconds: float
    steps: dict[str, list[tuple[str, str]]]
    """Stage and key of each step of a member, by its name."""
    processes: int
    """Number of processes that `accelerate launch` started."""
    is_main: bool
    """True in the process that uses the folder."""
    specs: dict[str, Spec] = field(default_factory=dict)
    """The complete spec of each member that is finished, by its name."""
    failed: dict[str, str] = field(default_factory=dict)
    """The error of each member that failed, by its name."""
    measures: dict[str, list[Measure]] = field(default_factory=dict)
    """The main numbers of each member that is finished, by its name."""
    curves: dict[str, list[LoggedMetric]] = field(default_factory=dict)
    """The training metrics of each member that is finished, by its name."""

    def report(self) -> FamilyReport:
        """Return the report of what has been run."""
        members = [
            FamilyMember(
                name=member.name,
                variant=member.variant,
                seed=member.spec.seed,
                choices=dict(member.choices),
                state=self._find_state(member.name),
                error=self.failed.get(member.name),
                published=member.spec.published.results if member.spec.published else {},
            )
            for member in self.family.members
        ]
        sources = {member.spec.published.source for member in self.family.members if member.spec.published}
        return FamilyReport.build(self.family.name, self.family.settings, members, self.measures, sorted(sources))

    def _find_state(self, name: str) -> Literal["finished", "failed", "not finished"]:
        return "failed" if name in self.failed else "finished" if name in self.specs else "not finished"


def run_family(
    family: Family,
    folder: Path | None,
    store: Store,
    manager: PluginManager,
    progress: Progress | None = None,
    checkpoint_seconds: float = 60.0,
) -> FamilyRun:
    """Run every member of a family, each in a folder of its own, and write a report of all.

    A member that fails does not stop the others.

    Args:
        family: The family.
        folder: Its folder; created if missing, updated if it exists. None for a new one in `runs`.
        store: The store of artefacts.
        manager: Provides the components.
        progress: Where to print; default: nowhere.
        checkpoint_seconds: Time between two checkpoints of training stages.

    Raises:
        RlaifError: Something is wrong with a member that is known before anything is computed, or with the folder.
    """
    progress = progress or Progress()
    # All members are checked before the first file is written.
    run = _check_members(family, folder, store, manager, progress, checkpoint_seconds)
    if folder is None and run.is_main:
        run.folder = create_folder(family.name)
    progress.print(f"family {family.name} in {run.folder}: {len(family.members)} members")
    if not run.is_main:
        _run_members(run)
        return run
    steps = [step for own in run.steps.values() for step in own]
    with (
        locked(run.folder, f"runs {family.name} in {run.folder}"),
        used_artefacts(store, steps, progress.print),
    ):
        run.folder.mkdir(parents=True, exist_ok=True)
        # Members that were not started have no record of their own.
        write_atomic(run.folder / FAMILY_STEPS, json.dumps({"keys": sorted({key for _, key in steps})}))
        _run_members(run)
    return run


def _run_members(run: FamilyRun) -> None:
    try:
        _write_report(run)
        _compute_shared(run)
        taken: list[float] = []  # seconds of each member that was computed, at least in part
        for number, member in enumerate(run.family.members, 1):
            if member.name in run.failed:
                continue
            computed, start = not _is_computed(run, member), run.progress.clock()
            position = f"member {number} of {len(run.family.members)}: {member.name}"
            run.progress.print(f"{position}{_describe_left(run, run.family.members[number - 1 :], taken)}")
            _run_member(run, member)
            if computed and member.name not in run.failed:
                taken.append(run.progress.clock() - start)
    finally:
        _write_report(run)


def _is_computed(run: FamilyRun, member: Member) -> bool:
    """Return True if all artefacts of a member are in the store."""
    return all(run.store.has(stage, key) for stage, key in run.steps[member.name])


def _describe_left(run: FamilyRun, members: Sequence[Member], taken: Sequence[float]) -> str:
    """Describe the time left of a family, if the other members take as long as the computed ones; empty if unknown."""
    left = sum(not _is_computed(run, member) for member in members if member.name not in run.failed)
    return f"; about {format_seconds(fmean(taken) * left)} left" if taken and left else ""


def _check_members(
    family: Family,
    folder: Path | None,
    store: Store,
    manager: PluginManager,
    progress: Progress,
    checkpoint_seconds: float,
) -> FamilyRun:
    """Check what can be known of all members, and list their steps."""
    steps: dict[str, list[tuple[str, str]]] = {}
    processes, is_main = 1, True
    notes = UniqueProgress(progress.console)
    for member in family.members:
        place = None if folder is None else folder / member.name
        with named_member(member):
            run = prepare_run(member.spec, place, store, manager, notes)
        steps[member.name] = [(step.stage, step.key) for step in run.steps]
        processes, is_main = run.context.accelerator.num_processes, run.context.accelerator.is_main_process
    if folder is not None and is_main:
        _check_folder(folder, family)
    place = Path() if folder is None else folder
    return FamilyRun(family, place, store, manager, progress, checkpoint_seconds, steps, processes, is_main)


def _check_folder(folder: Path, family: Family) -> None:
    """Refuse a path that exists and is not the folder of a family.

    Raises:
        SpecError: It is a file, a folder with other content, or one with links in place of members.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / FAMILY).is_file())):
        raise SpecError(f"{folder} exists and is not the folder of a family of runs; choose another --out")
    for member in family.members:
        check_link(folder / member.name)


def _compute_shared(run: FamilyRun) -> None:
    """Compute the stages that several members need, in the order of the first member that needs them."""
    users: dict[str, list[str]] = {}
    for name, steps in run.steps.items():
        for _, key in dict.fromkeys(steps):
            users.setdefault(key, []).append(name)
    done: set[str] = set()
    for member in run.family.members:
        missing = [(stage, key) for stage, key in run.steps[member.name] if len(users[key]) > 1 and key not in done]
        if member.name in run.failed or all(run.store.has(stage, key) for stage, key in missing):
            continue
        run.progress.print(f"stages of {member.name} that other members share")
        prepared = prepare_run(member.spec, None, run.store, run.manager, Progress(), run.checkpoint_seconds)
        prepared.progress = run.progress
        for step in prepared.steps:
            if len(users[step.key]) == 1 or step.key in done:
                continue
            try:
                compute_step(prepared, step, f"[shared by {len(users[step.key])}]")
            except Exception as error:
                _record_failure(run, users[step.key], error)
                break  # what the other members still need is computed for them
            done.add(step.key)


def _run_member(run: FamilyRun, member: Member) -> None:
    """Run a member and read its main numbers."""
    place = run.folder / member.name
    try:
        finished = run_spec(member.spec, place, run.store, run.manager, run.progress, run.checkpoint_seconds)
        if run.is_main and finished.spec.evaluate is not None:
            summary = finished.steps[-1]
            run.measures[member.name] = list(list_measures(summary, finished.artefact))
            run.curves[member.name] = list(list_training(Evaluation.load(finished.artefact(summary))))
    except Exception as error:
        _record_failure(run, [member.name], error)
    else:
        run.specs[member.name] = finished.spec


def _record_failure(run: FamilyRun, names: Sequence[str], error: Exception) -> None:
    """Record that members failed, so that the others go on."""
    if run.processes > 1:  # the other processes wait for the artefact
        raise error
    if os.environ.get("RLAIF_DEBUG"):
        traceback.print_exception(error)
    reason = str(error) if isinstance(error, RlaifError) else f"{type(error).__name__}: {error}"
    for name in names:
        run.failed[name] = reason
        run.progress.print(f"FAILED: member '{name}': {reason}")


def _write_report(run: FamilyRun) -> None:
    if run.is_main:
        run.report().write(run.folder, run.curves)
