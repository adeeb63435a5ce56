"""Best-of-n and rejection sampling: sample n responses to each prompt and select the one with the highest reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from rlaif_framework import Context, Guidance, Prompt, Reward, Sample, Stage, TrainingError
from rlaif_framework.contracts import score_responses
from rlaif_framework.rl import replace_missing_eos
from rlaif_framework.training import Demonstration, copy_policy, draw_prompts, imitate, sample_from
from rlaif_plugins.algorithms.best_of_n import BestOfNConfig, RejectionSamplingConfig


class BestOfN:
    """Leaves the policy unchanged, and answers test prompts with the best of n responses."""

    def __init__(self, config: BestOfNConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Save the initial policy unchanged."""
        if stage.is_main:
            copy_policy(self.context, initial, stage.folder)
        n = self.config.n
        # An upper bound of KL(best of n || initial policy) for n independent samples, in nats.
        stage.facts["kl_bound"] = math.log(n) - (n - 1) / n

    def respond(
        self, folder: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, temperature: float
    ) -> Sequence[Sample]:
        """Respond with the best of n, sampled at the algorithm's own temperature."""
        return [best for best, _ in select_best(self.context, folder, guidance.reward, prompts, self.config, stage)]


class RejectionSampling:
    """Supervised fine-tuning on the best of n responses."""

    def __init__(self, config: RejectionSamplingConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Sample, select and fine-tune."""
        config, context = self.config, self.context
        prompts = draw_prompts(stage, prompts, config.prompts)
        best = select_best(context, initial, guidance.reward, prompts, config, stage)
        demonstrations = [
            Demonstration(prompt, context.task.clean(sample.text), sample.finished, {"reward": reward})
            for prompt, (sample, reward) in zip(prompts, best, strict=True)
        ]
        if not any(d.response for d in demonstrations):
            raise TrainingError(
                f"the best of {config.n} responses is empty for every prompt: there is nothing to learn from; raise "
                f"'temperature' or check the reward"
            )
        imitate(context, stage, initial, demonstrations, config.sft, "chosen.jsonl")


def select_best(
    context: Context,
    folder: Path,
    reward: Reward | None,
    prompts: Sequence[Prompt],
    config: BestOfNConfig | RejectionSamplingConfig,
    stage: Stage,
) -> list[tuple[Sample, float]]:
    """Sample n responses to each prompt; return the first one with the highest reward, and that reward."""
    if reward is None:
        raise TrainingError(f"algorithm '{config.kind}' needs a reward; set the arm's `reward`")
    n = config.n
    samples = sample_from(
        context,
        stage,
        folder,
        prompts,
        temperature=config.temperature,
        seed=stage.seed("best of n"),
        responses=n,
    )
    repeated = [p for p in prompts for _ in range(n)]
    texts = [context.task.clean(s.text) for s in samples]
    # In fp64, like the rewards: rounding to fp32 could turn different rewards into ties.
    rewards = torch.tensor(score_responses(reward, repeated, texts), dtype=torch.float64)
    finished = torch.tensor([s.finished for s in samples])
    scores = replace_missing_eos(rewards, finished, config.missing_eos_penalty, config.missing_eos_reward).tolist()
    # `max` returns the first of equal rewards.
    best = (max(range(start, start + n), key=scores.__getitem__) for start in range(0, len(scores), n))
    return [(samples[i], scores[i]) for i in best]
