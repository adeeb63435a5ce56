"""Fine-tune the policy on a teacher's responses to the training prompts."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

from rlaif_framework import Answer, Asked, Context, Generate, Guidance, Prompt, Question, Stage, TrainingError
from rlaif_framework.prompting import run_coroutines
from rlaif_framework.training import Demonstration, draw_prompts, imitate
from rlaif_plugins.algorithms.teacher import TeacherConfig


class Teacher:
    """Supervised fine-tuning on a backend's responses."""

    def __init__(self, config: TeacherConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Generate responses with the backend, or take them from its cache, and fine-tune on them."""
        config, context = self.config, self.context
        prompts = draw_prompts(stage, prompts, config.prompts)
        backend = context.build_backend(config.backend)
        # The other processes then read the answers from the cache, instead of requesting and paying for them again.
        with context.accelerator.main_process_first():
            outcomes = run_coroutines((self.ask(p, stage.seed("teacher", p.id)) for p in prompts), backend)
        limit = context.policy.max_new_tokens
        demonstrations = [
            # A response as long as the limit has been cut off.
            Demonstration(p, context.task.clean(answer.text), answer.generated_tokens < limit)
            for p, outcome in zip(prompts, outcomes, strict=True)
            if (answer := outcome.value) is not None
        ]
        refusals = [outcome.refused for outcome in outcomes if outcome.refused is not None]
        stage.facts.update(refused=len(refusals), unanswered=sum(outcome.unanswered for outcome in outcomes))
        if not any(d.response for d in demonstrations):
            reason = f"; it refused {len(refusals)} prompts, the first: {refusals[0]}" if refusals else ""
            raise TrainingError(
                f"all responses of the teacher are empty or refused; check 'instruction' and 'backend'{reason}"
            )
        imitate(context, stage, initial, demonstrations, config.sft, "taught.jsonl")

    def ask(self, prompt: Prompt, seed: int) -> Generator[Asked, Any, Answer]:
        """Request one response; a coroutine."""
        question = Question("\n\n".join(filter(None, [self.config.instruction, prompt.text])))
        answer = yield Generate(question, self.context.policy.max_new_tokens, self.config.temperature, seed=seed)
        return cast(Answer, answer)
