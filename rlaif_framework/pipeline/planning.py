"""List the steps of a run without running them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_framework.assembly.context import Context
from rlaif_framework.models.memory_plan import PlannedLoad, estimate_peak, plan_load
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.spec.model import Spec
from rlaif_framework.store import Store


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A line of `rlaif plan`."""

    name: str
    stage: str
    key: str
    cached: bool
    loads: list[PlannedLoad]
    peak_bytes: int | None
    """Memory in use at its peak, about; 0 for a step that holds no model, None for one of unknown size."""


def plan_spec(spec: Spec, store: Store, manager: PluginManager) -> list[PlannedStep]:
    """List a run's steps, whether each is in the store, and what it will load. Loads no model."""
    planned = []
    for step in compose(spec, Context.from_spec(spec, manager)):
        loads = [plan_load(load, spec.policy) for load in step.loads]
        peak = estimate_peak(loads) if loads else 0
        planned.append(PlannedStep(step.name, step.stage, step.key, store.has(step.stage, step.key), loads, peak))
    return planned


def missing_steps(steps: Sequence[PlannedStep]) -> int:
    """How many steps are still to do."""
    return sum(not step.cached for step in steps)
