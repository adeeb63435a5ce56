"""The strong-teacher baseline: imitate the labeler's model instead of its preferences (Sharma et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import AlgorithmConfig, BackendSlot, Component, ModelLoad, SftConfig, hookimpl


class TeacherConfig(AlgorithmConfig):
    """Fine-tune on another model's own responses to the training prompts. Name the labeler's backend."""

    kind: Literal["teacher"] = "teacher"
    backend: BackendSlot
    """The model that responds: that of the arm's labeler, if the two ways of using it are to be compared."""
    instruction: str = ""
    """Put before each prompt, to tell an instruction-tuned model what is wanted."""
    prompts: int | None = Field(None, ge=1)
    """Use at most so many training prompts, chosen at random with the seed."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the teacher; 0 is greedy."""
    sft: SftConfig = SftConfig()
    """How to fine-tune on its responses."""

    @property
    def needs_reward(self) -> bool:
        """It does not."""
        return False

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The policy and the teacher."""
        student = ModelLoad(policy, "policy", trained=True, groups=self.sft.batch_size, optimizer=self.sft.optimizer)
        return [student, *super().loads(policy)]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `teacher`."""
    yield Component("teacher", TeacherConfig, "rlaif_plugins.algorithms.teacher.algorithm:Teacher")
