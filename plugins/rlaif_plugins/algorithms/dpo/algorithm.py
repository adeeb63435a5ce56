"""DPO: raise the likelihood of the better response against the worse one, relative to the initial policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlaif_framework import Context, Guidance, Prompt, Stage
from rlaif_framework.models import split_by_tokens
from rlaif_framework.rl import Learner
from rlaif_framework.training import (
    MetricAverager,
    accumulate,
    draw_batch,
    gather_by_prompt,
    harden_labels,
    index_pairs,
    local_shard,
    soft_label_loss,
    train_steps,
)
from rlaif_plugins.algorithms.dpo import DpoConfig


class Dpo:
    """L = -[p log s(d) + (1 - p) log s(-d)] with d = beta (log-ratio of the first response - of the second)."""

    def __init__(self, config: DpoConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train on the labels; a prompt and each of its responses is computed once for all their comparisons."""
        config, accelerator = self.config, self.context.accelerator
        learner = Learner(config, self.context, stage, initial)
        units = gather_by_prompt(guidance.labels, learner.tokenizer)
        size = max(1, round(config.batch_size * len(units) / len(guidance.labels)))
        steps = max(1, round(config.epochs * len(units) / size))

        def step(number: int) -> Iterator[dict[str, float]]:
            batch = [units[i] for i in local_shard(accelerator, draw_batch(stage, len(units), size, number))]
            total = sum(pair.weight for unit in batch for pair in unit.pairs) or 1.0
            averager = MetricAverager()
            parts = split_by_tokens([unit.group.length for unit in batch], self.context.policy.train_tokens)
            for part in accumulate(accelerator, [learner.policy], parts):
                chosen = [batch[i] for i in part]
                packed = learner.pack([unit.group for unit in chosen])
                logprobs, _ = learner.policy_logprobs(packed)
                ratios = packed.per_response(logprobs - learner.reference_logprobs(packed))  # (responses,)
                pairs = index_pairs(chosen, self.context.device)
                margins = config.beta * (ratios[pairs.first] - ratios[pairs.second])  # (pairs,)
                losses = soft_label_loss(margins, self.shape_labels(pairs.labels)) * pairs.weights
                accelerator.backward(losses.sum() / total)
                averager.add("loss", losses, float(pairs.weights.sum()))
                averager.add("accuracy", ((margins.detach() > 0) == (pairs.labels > 0.5)).float())
                averager.add("margin", margins * (2 * (pairs.labels > 0.5) - 1))
                averager.add("log_ratio", ratios)
                chosen_ratios = torch.where(pairs.labels > 0.5, ratios[pairs.first], ratios[pairs.second])
                averager.add(
                    "reward_chosen", config.beta * chosen_ratios
                )  # the implicit reward; see margin for the other
            yield averager.means(accelerator)

        train_steps(
            stage,
            learner.modules,
            learner.optimizer,
            steps,
            step,
            text="dpo",
            warmup=config.warmup,
            schedule=config.schedule,
            max_grad_norm=config.max_grad_norm,
        )
        learner.save()

    def shape_labels(self, probabilities: Tensor) -> Tensor:
        """What is learned: the labels, or the likelier response alone (ties stay ties), smoothed."""
        if self.config.labels == "hard":
            probabilities = harden_labels(probabilities)
        return probabilities + self.config.label_smoothing * (1 - 2 * probabilities)
