"""A step of a run and the key of its artefact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rlaif_framework.contracts.stage import Stage
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.store import hash_content


@dataclass(frozen=True)
class Step:
    """One stage of a run."""

    stage: str
    """What kind of work: sft, sample, label, reward, improve, respond, judge, score or evaluate."""
    name: str
    """Where its artefact is found in the run folder."""
    config: Mapping[str, Any]
    """What determines its result besides its inputs, as plain JSON."""
    work: Callable[[Stage], object]
    """Does it: writes into the stage's folder."""
    inputs: Mapping[str, Step] = field(default_factory=dict)
    loads: Sequence[ModelLoad] = ()
    """Models it holds in memory."""
    distributed: bool = False
    """Whether all processes of `accelerate launch` work on it; otherwise the main one does, and the others wait."""

    @cached_property
    def key(self) -> str:
        """Hash of everything the artefact depends on."""
        inputs = {name: step.key for name, step in self.inputs.items()}
        return hash_content({"stage": self.stage, "config": self.config, "inputs": inputs})
