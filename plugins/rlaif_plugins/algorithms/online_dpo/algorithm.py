"""Online DPO: sample pairs, label them, take one DPO step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from rlaif_framework import Comparison, Context, Guidance, Labeler, Prompt, Stage
from rlaif_framework.contracts import check_preferences
from rlaif_framework.models import split_by_tokens
from rlaif_framework.rl import (
    CheckpointSelector,
    KlEstimator,
    Learner,
    Rollout,
    describe_rollout,
    estimate_kl,
    penalise_missing_eos,
    score_rollout,
)
from rlaif_framework.training import MetricAverager, accumulate, harden_labels, soft_label_loss, train_steps
from rlaif_plugins.algorithms.online_dpo import OnlineDpoConfig


class OnlineDpo:
    """Each step's pairs are labelled once and used once."""

    def __init__(self, config: OnlineDpoConfig, context: Context) -> None:
        self.config = config
        self.context = context
        self.labeler: Labeler | None = None
        self.labeler_kind = ""
        if config.labeler is not None:
            self.labeler = context.build_labeler(config.labeler)
            self.labeler_kind = config.labeler.kind

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy; see `Algorithm.improve`."""
        config, accelerator = self.config, self.context.accelerator
        learner = Learner(config, self.context, stage, initial)
        selector = CheckpointSelector(config, learner, guidance.reward)

        def step(number: int) -> Iterator[dict[str, float]]:
            rollout, averager = learner.sample(prompts, number), MetricAverager()
            describe_rollout(rollout, self.context.task, averager)
            labels = self.label(rollout, guidance, averager)  # (pairs,), NaN where there is no label
            learner.save_samples(number, rollout, {"preferred": _per_response(labels)})
            known = ~labels.isnan()
            averager.add("labelled", known.float())
            labels = labels.view(len(rollout.groups), -1)
            count = max(1, int(known.sum()))
            parts = split_by_tokens([g.length for g in rollout.groups], self.context.policy.train_tokens)
            for part in accumulate(accelerator, [learner.policy], parts):
                packed = learner.pack([rollout.groups[i] for i in part])
                logprobs, _ = learner.policy_logprobs(packed)
                reference = learner.reference_logprobs(packed)
                ratios = packed.per_response(logprobs - reference)
                margins = config.beta * (ratios[0::2] - ratios[1::2])  # (pairs,)
                targets = labels[part].flatten().to(margins.device)
                used = ~targets.isnan()
                losses = soft_label_loss(margins, targets.nan_to_num(0.5)) * used
                accelerator.backward(losses.sum() / count)
                averager.add("loss", losses, float(used.sum()))
                averager.add("accuracy", ((margins > 0) == (targets > 0.5))[used].float())
                averager.add("margin", (margins * torch.sign(targets - 0.5))[used])
                for name in get_args(KlEstimator):
                    kl = estimate_kl(logprobs.detach(), reference, name)
                    averager.add(f"kl_{name}", kl, packed.responses)
                averager.add("entropy", -logprobs)
            yield averager.means(accelerator)

        train_steps(
            stage,
            learner.modules,
            learner.optimizer,
            config.steps,
            step,
            text="online-dpo",
            warmup=config.warmup,
            schedule=config.schedule,
            max_grad_norm=config.max_grad_norm,
            after=selector.evaluate,
        )
        selector.choose()
        learner.save()

    def label(self, rollout: Rollout, guidance: Guidance, averager: MetricAverager) -> Tensor:
        """Probability that the first response of each pair is better, (pairs,); NaN if they are equal or unlabelled."""
        pairs = list(zip(rollout.texts[0::2], rollout.texts[1::2], strict=True))
        prompts = rollout.prompts[0::2]
        if self.labeler is None:
            assert guidance.reward is not None
            rewards = score_rollout(guidance.reward, rollout, averager)
            averager.add("reward", rewards)
            rewards = penalise_missing_eos(self.config, rewards, rollout, averager)
            labels = torch.sigmoid(rewards[0::2] - rewards[1::2])
            labels[torch.tensor([a == b for a, b in pairs])] = torch.nan
        else:
            comparisons = [
                Comparison(f"{place}/{prompt.id}", prompt, pair)
                for place, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True))
                if pair[0] != pair[1] and all(pair)
            ]
            labels = torch.full((len(pairs),), torch.nan)
            found = check_preferences(self.labeler.label(comparisons), comparisons, self.labeler_kind)
            for preference in found:
                if preference.probabilities is not None:
                    labels[int(preference.comparison.partition("/")[0])] = preference.probabilities[0]
        if self.config.labels == "hard":
            labels = harden_labels(labels)
        return labels


def _per_response(labels: Tensor) -> list[float]:
    """Probability that each response is the better one of its pair, for the samples on disk."""
    return torch.stack([labels, 1 - labels], 1).flatten().tolist()
