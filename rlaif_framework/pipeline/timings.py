"""Expect the time of a step from the last one in the store that did the same work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaif_framework.config import Config
from rlaif_framework.files import read_json
from rlaif_framework.pipeline.environment import describe_environment
from rlaif_framework.pipeline.steps import Step, TaskScope, find_steps
from rlaif_framework.plugins.component import ComponentConfig, nested_configs
from rlaif_framework.plugins.configs import BackendConfig, TaskConfig
from rlaif_framework.progress import Forecast
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.store import MANIFEST, Store, hash_content
from rlaif_framework.terminal import format_seconds

NO_TIME = frozenset(
    {"lr", "value_lr", "schedule", "warmup", "adam_eps", "max_grad_norm", "beta", "clip", "value_clip", "round"}
)
"""Settings that do not change the time of a step."""

MAX_RATIO = 2.0
"""Times are scaled to at most this many times as much work, or as little: a part of them does not depend on it."""

LATEST = 200
"""Artefacts of each stage that are looked at."""

MACHINE = ("processor", "threads", "gpus")
"""Parts of the environment that a time depends on."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a step does, and how much of it."""

    kind: str
    """Hash of the settings that its time depends on, other than the amount."""
    amount: int
    """Training steps of an algorithm, otherwise rows of data."""

    @classmethod
    def describe(cls, step: Step, task: TaskConfig) -> Workload | None:
        """Describe the work of a step; `task` is that of its run.

        Returns:
            None if the step queries a backend: its time depends on the answers that are cached already.
        """
        counts = dict.fromkeys(("rows", "steps", "backends"), 0)
        recipe = _describe(step.recipe, counts)
        if counts["backends"]:
            return None
        settings = [step.recipe.work, task.model_dump(mode="json"), step.contents["policy"], recipe]
        amount = counts["steps"] if step.stage == "improve" and counts["steps"] else counts["rows"]
        return cls(hash_content(settings), max(amount, 1))


def _describe(value: Any, counts: dict[str, int]) -> Any:
    """Describe a value of a recipe as plain JSON. Rows, `steps` and backends are added to the counts."""
    match value:
        # Earlier steps matter by the rows that they hand on.
        case Step(stage="sample"):
            return _describe(value.recipe, counts)
        case Step(stage="label"):
            return [_describe(earlier, counts) for earlier in find_steps(value.recipe)]
        case Step():
            return value.stage
        case TaskScope():
            return value.value
        case Config():
            counts["backends"] += isinstance(value, ComponentConfig) and _has_backend(value)
            return _describe(value.model_dump(mode="json"), counts)
        case Mapping():
            counts["steps"] += value["steps"] if isinstance(value.get("steps"), int) else 0
            kept = {key: inner for key, inner in value.items() if key not in NO_TIME and key != "steps"}
            return {key: _describe(inner, counts) for key, inner in kept.items()}
        case [Prompt() | Comparison(), *_]:
            counts["rows"] += len(value)
            return "rows"
        case list() | tuple():
            return [_describe(inner, counts) for inner in value]
    if is_dataclass(value):
        return _describe({field.name: getattr(value, field.name) for field in fields(value)}, counts)
    return value


def _has_backend(config: ComponentConfig) -> bool:
    return isinstance(config, BackendConfig) or any(map(_has_backend, nested_configs(config)))


class Timings:
    """The times of the steps in a store that were measured on this machine."""

    def __init__(self, store: Store, task: TaskConfig) -> None:
        self.store, self.task = store, task
        self._measured: dict[str, dict[str, tuple[float, float]]] = {}
        """Amount and seconds of the latest step of each kind, by stage."""
        self._workloads: dict[str, Workload | None] = {}

    def workload(self, step: Step) -> Workload | None:
        """Describe the work of a step; None if its time cannot be expected."""
        if step.key not in self._workloads:
            self._workloads[step.key] = Workload.describe(step, self.task)
        return self._workloads[step.key]

    def expect(self, step: Step) -> float | None:
        """Return the expected time of a step in seconds; None if nothing like it was measured."""
        work = self.workload(step)
        if work is None:
            return None
        amount, seconds = self._find(step.stage).get(work.kind, (0.0, 0.0))
        if not amount / MAX_RATIO <= work.amount <= amount * MAX_RATIO:
            return None
        return seconds * work.amount / amount

    def add(self, step: Step, seconds: float) -> None:
        """Add the time of a step that was finished now."""
        if work := self.workload(step):
            self._find(step.stage)[work.kind] = work.amount, seconds

    def _find(self, stage: str) -> dict[str, tuple[float, float]]:
        if stage not in self._measured:
            self._measured[stage] = dict(self._read(stage))
        return self._measured[stage]

    def forecast(self, steps: Sequence[Step], spent: float) -> Forecast:
        """Return what is expected of the first of the steps that a run still has to compute, and of the others."""
        first, *later = (self.expect(step) for step in steps)
        known = [seconds for seconds in later if seconds is not None]
        return Forecast(spent, first, sum(known), len(known) == len(later))

    def _read(self, stage: str) -> Iterable[tuple[str, tuple[float, float]]]:
        paths = sorted(self.store.root.glob(f"{stage}-*/{MANIFEST}"), key=_changed)[-LATEST:]
        for path in paths:
            match read_json(path):
                case {
                    "workload": {"kind": str(kind), "amount": int(amount)},
                    "seconds": int() | float() as seconds,
                    "environment": dict(environment),
                } if amount > 0 and self._is_here(environment):
                    yield kind, (amount, seconds)

    @cached_property
    def _machine(self) -> Mapping[str, Any]:
        return describe_environment()

    def _is_here(self, environment: Mapping[str, Any]) -> bool:
        return all(environment.get(name) == self._machine[name] for name in MACHINE)


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def describe_time(expected: Sequence[float | None]) -> str:
    """Describe the expected time of steps that are to be computed, None for those that nothing is known of."""
    known = [seconds for seconds in expected if seconds is not None]
    unknown = len(expected) - len(known)
    if not known:
        return "expected time: not known, because no stages like these were measured on this machine with this store"
    total = format_seconds(sum(known))
    if not unknown:
        return f"expected time: about {total}"
    return f"expected time: at least {total}; {unknown} of {len(expected)} stages were not measured"
