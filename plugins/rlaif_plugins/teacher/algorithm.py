"""Let a teacher answer the training prompts, and fine-tune on its answers."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

from rlaif_framework import (
    Asked,
    Backend,
    Context,
    Generate,
    Guidance,
    Prompt,
    Question,
    Stage,
    TrainingError,
    fine_tune,
    run_coroutines,
    write_rows,
)
from rlaif_plugins.teacher import TeacherConfig


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
        backend = cast(Backend, context.build("backend", config.backend))
        with context.accelerator.main_process_first():  # the others find its answers kept, and pay for none
            outcomes = run_coroutines((self.ask(p, stage.seed("teacher", p.id)) for p in prompts), backend)
        texts = [context.task.clean(outcome.value or "") for outcome in outcomes]
        pairs = [(p, t) for p, t in zip(prompts, texts, strict=True) if t]
        refused = [outcome.refused for outcome in outcomes if outcome.refused is not None]
        empty = len(prompts) - len(pairs) - len(refused)
        stage.facts.update(demonstrations=len(pairs), empty=empty, refused=len(refused))
        if not pairs:
            reason = f"; it refused {len(refused)} prompts, the first: {refused[0]}" if refused else ""
            raise TrainingError(
                f"the teacher gave no answer but empty ones; look at 'instruction' and the backend{reason}"
            )
        if stage.is_main:
            write_rows(stage.folder / "taught.jsonl", ({"prompt": p.id, "response": t} for p, t in pairs))
        fine_tune(stage, initial, [(p.text, t) for p, t in pairs][: config.sft.limit], config.sft)

    def ask(self, prompt: Prompt, seed: int) -> Generator[Asked, Any, str]:
        """A coroutine that asks for one response."""
        question = Question("\n\n".join(filter(None, [self.config.instruction, prompt.text])))
        answer = yield Generate(question, self.context.policy.max_new_tokens, self.config.temperature, seed=seed)
        return str(answer.text)
