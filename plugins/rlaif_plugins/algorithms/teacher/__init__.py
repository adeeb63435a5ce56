"""The strong-teacher baseline: imitate the labeler's model instead of learning its preferences (Sharma et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import AlgorithmConfig, BackendSlot, Component, ModelLoad, SftConfig, hookimpl


class TeacherConfig(AlgorithmConfig):
    """Fine-tune the policy on another model's responses to the training prompts; use the labeler's backend."""

    kind: Literal["teacher"] = "teacher"
    backend: BackendSlot
    """Model that responds; to compare imitation with AI feedback, use that of another arm's labeler."""
    instruction: str = ""
    """Text before each prompt, such as an instruction for an instruction-tuned model."""
    prompts: int | None = Field(None, ge=1)
    """Maximum number of training prompts, drawn at random with the seed."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the teacher; 0 is greedy."""
    sft: SftConfig = SftConfig()
    """Settings of the fine-tuning on its responses."""

    @property
    def needs_reward(self) -> bool:
        """Always False."""
        return False

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy and the teacher."""
        student = ModelLoad(policy, "policy", trained=True, groups=self.sft.batch_size, optimizer=self.sft.optimizer)
        return [student, *super().loads(policy)]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `teacher`."""
    yield Component("teacher", TeacherConfig, "rlaif_plugins.algorithms.teacher.algorithm:Teacher")
