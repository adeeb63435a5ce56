"""Sample n responses, keep the one with the highest reward: as an answer, or to learn from."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from rlaif_framework import Context, Guidance, Prompt, Reward, Sample, Stage, TrainingError
from rlaif_framework.contracts import score_responses
from rlaif_framework.models import load_model, load_tokenizer, sample_responses, save_model
from rlaif_framework.records import write_rows
from rlaif_framework.rl import replace_missing_eos
from rlaif_framework.training import fine_tune
from rlaif_plugins.algorithms.best_of_n import BestOfNConfig, RejectionSamplingConfig


class BestOfN:
    """The initial policy, answering with the best of n."""

    def __init__(self, config: BestOfNConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Save the initial policy as it is."""
        if stage.is_main:
            context = self.context
            model = load_model(initial, "causal", context.dtype, context.device)
            save_model(model, load_tokenizer(initial), stage.folder, context.dtype)
        n = self.config.n
        stage.facts["kl_bound"] = math.log(n) - (n - 1) / n

    def respond(
        self, folder: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, temperature: float
    ) -> Sequence[Sample]:
        """Answer with the best of n, sampled at the algorithm's own temperature."""
        config = self.config
        return [best for best, _ in choose_best(self.context, folder, guidance.reward, prompts, config, stage)]


class RejectionSampling:
    """Supervised fine-tuning on the best of n."""

    def __init__(self, config: RejectionSamplingConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Sample, choose and fine-tune."""
        config, context = self.config, self.context
        if config.prompts is not None and config.prompts < len(prompts):
            prompts = random.Random(stage.seed("prompts")).sample(list(prompts), config.prompts)
        best = choose_best(context, initial, guidance.reward, prompts, config, stage)
        texts = [context.task.clean(sample.text) for sample, _ in best]
        chosen = [(p, t, s.finished, r) for p, t, (s, r) in zip(prompts, texts, best, strict=True) if t]
        chosen = chosen[: config.sft.limit]
        finished = [ended for _, _, ended, _ in chosen]
        empty = len(texts) - sum(map(bool, texts))
        stage.facts.update(demonstrations=len(chosen), empty=empty, cut=finished.count(False))
        if not chosen:
            raise TrainingError(f"all of the best of {config.n} responses are empty; there is nothing to learn from")
        if stage.is_main:
            rows = ({"prompt": p.id, "response": t, "ended": ended, "reward": r} for p, t, ended, r in chosen)
            write_rows(stage.folder / "chosen.jsonl", rows)
        fine_tune(context, stage, initial, [(p.text, t) for p, t, _, _ in chosen], config.sft, finished)


def choose_best(
    context: Context,
    folder: Path,
    reward: Reward | None,
    prompts: Sequence[Prompt],
    config: BestOfNConfig | RejectionSamplingConfig,
    stage: Stage,
) -> list[tuple[Sample, float]]:
    """The response to each prompt with the highest reward of n sampled ones, and that reward; the first of equals."""
    if reward is None:
        raise TrainingError(f"algorithm '{config.kind}' needs a reward")
    repeated = [p for p in prompts for _ in range(config.n)]
    samples = sample_responses(
        load_model(folder, "causal", context.dtype, context.device),
        load_tokenizer(folder),
        [p.text for p in repeated],
        max_new_tokens=context.policy.max_new_tokens,
        temperature=config.temperature,
        seed=stage.seed("best of n"),
        budget=context.batch_tokens,
        track=lambda batches: stage.track(batches, len(batches), "sampling, batches"),
    )
    texts = [context.task.clean(s.text) for s in samples]
    given = torch.tensor(score_responses(reward, repeated, texts), dtype=torch.float64)
    finished = torch.tensor([s.finished for s in samples])
    scores = replace_missing_eos(given, finished, config.missing_eos_penalty, config.missing_eos_reward).tolist()
    places = (max(range(start, start + config.n), key=scores.__getitem__) for start in range(0, len(scores), config.n))
    return [(samples[i], scores[i]) for i in places]
