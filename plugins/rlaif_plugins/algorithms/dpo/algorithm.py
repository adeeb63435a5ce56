"""DPO: raise the likelihood of the better response against the worse one, relative to the initial policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlaif_framework import Context, Guidance, Prompt, Stage
from rlaif_framework.models import check_length, split_by_tokens
from rlaif_framework.rl import Learner
from rlaif_framework.training import (
    MetricAverager,
    PairIndex,
    PromptPairs,
    accumulate,
    average_total,
    count_batch_prompts,
    draw_batch,
    group_by_prompt,
    harden_labels,
    index_pairs,
    local_shard,
    soft_label_loss,
)
from rlaif_plugins.algorithms.dpo import DpoConfig


class Dpo:
    """L = -[p log s(d) + (1 - p) log s(-d)] with d = beta (log-ratio of the first response - of the second)."""

    def __init__(self, config: DpoConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train on the labels; each prompt and response is computed once for all its comparisons.

        Raises:
            ModelError: A prompt with a labelled response is longer than the model's positions.
        """
        config = self.config
        learner = Learner(config, self.context, stage, initial)
        data = group_by_prompt(guidance.labels, learner.tokenizer)
        longest, advice = max(prompt.group.longest for prompt in data), "lower policy.max_prompt_tokens"
        check_length(learner.reference.config, longest, "a prompt with a labelled response", advice)
        # Batches are of prompts: comparisons of a prompt stay together and share its computation.
        processes = learner.accelerator.num_processes
        size = count_batch_prompts(config.batch_size, len(data), len(guidance.labels), processes)
        steps = max(1, round(config.epochs * len(data) / size))

        def step(number: int) -> Iterator[dict[str, float]]:
            averager = MetricAverager()
            batch = [data[i] for i in local_shard(learner.accelerator, draw_batch(stage, len(data), size, number))]
            self._accumulate_gradients(learner, batch, averager)
            yield averager.means(learner.accelerator)

        learner.train(steps, step)
        learner.save()

    def _accumulate_gradients(self, learner: Learner, batch: Sequence[PromptPairs], averager: MetricAverager) -> None:
        """Accumulate the gradients of the loss on a batch."""
        config = self.config
        weight = sum(pair.weight for prompt in batch for pair in prompt.pairs)
        # 1 if all weights are 0, so that the loss is 0 instead of NaN.
        total = average_total(learner.accelerator, weight) or 1.0
        parts = split_by_tokens([prompt.group.length for prompt in batch], self.context.policy.train_tokens)
        for part in accumulate(learner.accelerator, [learner.policy], parts):
            chosen = [batch[i] for i in part]
            packed = learner.pack([prompt.group for prompt in chosen])
            logprobs, _ = learner.policy_logprobs(packed)
            ratios = packed.per_response(logprobs - learner.reference_logprobs(packed))  # (responses,)
            pairs = index_pairs(chosen, self.context.device)
            margins = config.beta * (ratios[pairs.first] - ratios[pairs.second])  # (pairs,)
            losses = soft_label_loss(margins, self.shape_labels(pairs.labels)) * pairs.weights
            learner.accelerator.backward(losses.sum() / total)
            averager.add("loss", losses, float(pairs.weights.sum()))
            self._average_metrics(averager, margins, ratios, pairs)

    def _average_metrics(self, averager: MetricAverager, margins: Tensor, ratios: Tensor, pairs: PairIndex) -> None:
        """Add the metrics of pairs to the averager; implicit rewards are beta times log-ratios."""
        prefers_first, decided = pairs.labels > 0.5, pairs.labels != 0.5
        averager.add("accuracy", ((margins.detach() > 0) == prefers_first)[decided].float())
        averager.add("margin", (margins * torch.sign(pairs.labels - 0.5))[decided])
        averager.add("log_ratio", ratios)
        # The implicit reward of the rejected response is this one minus the margin.
        chosen = torch.where(prefers_first, ratios[pairs.first], ratios[pairs.second])
        averager.add("reward_chosen", self.config.beta * chosen[decided])

    def shape_labels(self, probabilities: Tensor) -> Tensor:
        """Smooth labels, after rounding them with `labels: hard` (ties stay 0.5); (pairs,) each."""
        if self.config.labels == "hard":
            probabilities = harden_labels(probabilities)
        return probabilities + self.config.label_smoothing * (1 - 2 * probabilities)
