"""Let a teacher answer the training prompts, and fine-tune on its answers."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

from rlaif_framework import Answer, Asked, Context, Generate, Guidance, Prompt, Question, Stage, TrainingError
from rlaif_framework.prompting import run_coroutines
from rlaif_framework.records import write_rows
from rlaif_framework.training import fine_tune
from rlaif_plugins.algorithms.teacher import TeacherConfig


class Teacher:
    """Supervised fine-tuning on a backend's responses."""

    def __init__(self, config: TeacherConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Ask, keep what is not empty, and fine-tune; answers already given are not asked for again."""
        config, context = self.config, self.context
        if config.prompts is not None and config.prompts < len(prompts):
            prompts = random.Random(stage.seed("prompts")).sample(list(prompts), config.prompts)
        backend = context.build_backend(config.backend)
        with context.accelerator.main_process_first():  # the others find its answers kept, and pay for none
            outcomes = run_coroutines((self.ask(p, stage.seed("teacher", p.id)) for p in prompts), backend)
        answers = [
            (p, outcome.value) for p, outcome in zip(prompts, outcomes, strict=True) if outcome.value is not None
        ]
        refused = [outcome.refused for outcome in outcomes if outcome.refused is not None]
        most = context.policy.max_new_tokens
        taught = [(p, context.task.clean(a.text), a.generated_tokens < most) for p, a in answers]
        taught = [row for row in taught if row[1]]
        empty = len(answers) - len(taught)
        taught = taught[: config.sft.limit]
        finished = [ended for _, _, ended in taught]
        stage.facts.update(demonstrations=len(taught), empty=empty, cut=finished.count(False), refused=len(refused))
        if not taught:
            reason = f"; it refused {len(refused)} prompts, the first: {refused[0]}" if refused else ""
            raise TrainingError(
                f"the teacher gave no answer but empty ones; look at 'instruction' and the backend{reason}"
            )
        if stage.is_main:
            rows = ({"prompt": p.id, "response": t, "ended": ended} for p, t, ended in taught)
            write_rows(stage.folder / "taught.jsonl", rows)
        fine_tune(context, stage, initial, [(p.text, t) for p, t, _ in taught], config.sft, finished)

    def ask(self, prompt: Prompt, seed: int) -> Generator[Asked, Any, Answer]:
        """A coroutine that asks for one response."""
        question = Question("\n\n".join(filter(None, [self.config.instruction, prompt.text])))
        answer = yield Generate(question, self.context.policy.max_new_tokens, self.config.temperature, seed=seed)
        return cast(Answer, answer)
