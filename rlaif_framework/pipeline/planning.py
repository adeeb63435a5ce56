"""List and check the steps of a run without running them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.preflight import check_architectures, check_components, check_models, describe_data
from rlaif_framework.errors import HubError, RlaifError
from rlaif_framework.models.memory_plan import PlannedLoad, estimate_peak, plan_load
from rlaif_framework.pipeline.choose_judge import choose_judge
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.sample_sizes import describe_power
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.pipeline.timings import Timings
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.spec.families import Family, Member
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import Store


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a run, as `rlaif plan` lists it."""

    name: str
    stage: str
    key: str
    cached: bool
    """True if the artefact is already in the store."""
    loads: list[PlannedLoad]
    peak_bytes: int | None
    """Estimated peak memory; 0 for a step that holds no model, None if the size of a model is unknown."""
    expected_seconds: float | None
    """Expected time; 0 for a step in the store, None if no step like it was measured on this machine."""


def complete_spec(spec: Spec, context: Context, progress: Progress) -> tuple[Spec, list[str]]:
    """Return a spec with what its task and its arms determine, and print what was chosen."""
    spec, notes = choose_judge(spec, context)
    for note in notes:
        progress.print(f"evaluate: {note}")
    return spec, notes


def prepare(spec: Spec, context: Context, progress: Progress) -> list[Step]:
    """Import the components of a spec, read its data, and list its steps.

    Raises:
        RlaifError: A component, a package or a file that the spec names is missing or wrong.
    """
    check_components(spec, context)
    return _list_steps(spec, context, progress)


def _list_steps(spec: Spec, context: Context, progress: Progress) -> list[Step]:
    steps = compose(spec, context)
    for note in describe_data(context):
        progress.print(note)
    return steps


def check_loads(context: Context, steps: Sequence[Step]) -> None:
    """Check that the models of steps can be found, and can do what they are used for.

    Raises:
        ModelError: A model is missing, or cannot be used.
        HubError: A model is not in the local cache, and the hub cannot be reached or has no such model.
    """
    loads = [load for step in steps for load in step.loads]
    check_models(context, loads)
    check_architectures(context, loads)


def check_spec(spec: Spec, manager: PluginManager, progress: Progress | None = None) -> Spec:
    """Check what can be known before a run: components, packages, files of data and models, architectures.

    What is on the hub and cannot be reached now is not an error; a message states that it was not checked.

    Args:
        spec: The spec.
        manager: Provides the components.
        progress: Where to print; default: nowhere.

    Returns:
        The spec, with the judge that was chosen if it names none.

    Raises:
        RlaifError: Something that the spec names is missing or wrong.
    """
    progress = progress or Progress()
    context = Context.from_spec(spec, manager)
    unreachable: dict[str, None] = {}  # in order, each once
    try:
        spec = complete_spec(spec, context, progress)[0]
        for step in prepare(spec, context, progress):
            try:
                check_loads(context, [step])
            except HubError as error:
                unreachable[str(error)] = None
    except HubError as error:  # a data set, without which the steps are unknown
        unreachable[str(error)] = None
    for text in unreachable:
        progress.print(f"warning: not checked: {text}")
    return spec


def plan_spec(spec: Spec, store: Store, manager: PluginManager, progress: Progress | None = None) -> list[PlannedStep]:
    """List the steps of a run with the models that each will load. No model is loaded.

    Args:
        spec: The spec.
        store: The store of artefacts.
        manager: Provides the components.
        progress: Where to print the judge that was chosen, which rows are left out, and the power of the evaluation;
            default: nowhere.
    """
    return _plan(spec, store, manager, progress or Progress(), set())


def _plan(spec: Spec, store: Store, manager: PluginManager, progress: Progress, said: set[str]) -> list[PlannedStep]:
    """Plan a spec. What is in `said` is not printed again."""
    context, planned = Context.from_spec(spec, manager), []
    spec, _ = complete_spec(spec, context, progress)
    timings = Timings(store, context.task_config)
    for step in _list_steps(spec, context, progress):
        loads = [plan_load(load, spec.policy) for load in step.loads]
        peak = estimate_peak(loads) if loads else 0
        cached = store.has(step.stage, step.key)
        seconds = 0.0 if cached else timings.expect(step)
        planned.append(PlannedStep(step.name, step.stage, step.key, cached, loads, peak, seconds))
        for note in describe_power(step.recipe):
            if note not in said:
                progress.print(f"evaluate: {note}")
            said.add(note)
    return planned


def plan_family(
    family: Family, store: Store, manager: PluginManager, progress: Progress | None = None
) -> dict[str, list[PlannedStep]]:
    """List the steps of each member of a family by its name. Steps with the same key are computed once.

    The arguments are those of `plan_spec`.

    Raises:
        RlaifError: Something that a member names is missing or wrong.
    """
    planned: dict[str, list[PlannedStep]] = {}
    said: set[str] = set()
    for member in family.members:
        with named_member(member):
            planned[member.name] = _plan(member.spec, store, manager, progress or Progress(), said)
    return planned


def check_family(family: Family, manager: PluginManager, progress: Progress | None = None) -> None:
    """Check what can be known before a run of each member, as `check_spec` does.

    Raises:
        RlaifError: Something that a member names is missing or wrong.
    """
    for member in family.members:
        with named_member(member):
            check_spec(member.spec, manager, progress)


@contextmanager
def named_member(member: Member) -> Iterator[None]:
    """Name a member in the errors of this block."""
    try:
        yield
    except RlaifError as error:
        raise type(error)(f"member '{member.name}': {error}") from error


def missing_steps(steps: Sequence[PlannedStep]) -> int:
    """Count the steps whose artefact is not in the store."""
    return sum(not step.cached for step in steps)
