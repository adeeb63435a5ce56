"""List the steps of a run without running them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.preflight import describe_data
from rlaif_framework.models.memory_plan import PlannedLoad, estimate_peak, plan_load
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
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


def plan_spec(spec: Spec, store: Store, manager: PluginManager, progress: Progress | None = None) -> list[PlannedStep]:
    """List the steps of a run with the models that each will load. No model is loaded.

    Args:
        spec: The spec.
        store: The store of artefacts.
        manager: Provides the components.
        progress: Where to print which rows of the data are left out; default: nowhere.
    """
    context, planned = Context.from_spec(spec, manager), []
    steps = compose(spec, context)
    for note in describe_data(context):
        (progress or Progress()).print(note)
    for step in steps:
        loads = [plan_load(load, spec.policy) for load in step.loads]
        peak = estimate_peak(loads) if loads else 0
        planned.append(PlannedStep(step.name, step.stage, step.key, store.has(step.stage, step.key), loads, peak))
    return planned


def missing_steps(steps: Sequence[PlannedStep]) -> int:
    """Count the steps whose artefact is not in the store."""
    return sum(not step.cached for step in steps)
