"""Online DPO: sample pairs, label them, take one DPO step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from rlaif_framework import Comparison, Context, Guidance, Labeler, Prompt, SpecError, Stage
from rlaif_framework.models import split_by_tokens
from rlaif_framework.records import LABEL_TOKEN_MASS, check_mass
from rlaif_framework.rl import (
    KlEstimator,
    OnlineLearner,
    Rollout,
    describe_rollout,
    estimate_kl,
    penalise_missing_eos,
    score_rollout,
    train_online,
)
from rlaif_framework.training import MetricAverager, accumulate, average_total, harden_labels, soft_label_loss
from rlaif_plugins.algorithms.online_dpo import OnlineDpoConfig


class OnlineDpo:
    """Online DPO; each step's pairs are labelled once and used once."""

    def __init__(self, config: OnlineDpoConfig, context: Context) -> None:
        self.config = config
        self.context = context
        self.labeler: Labeler | None = None if config.labeler is None else context.build_labeler(config.labeler)

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy; see `Algorithm.improve`."""
        learner = OnlineLearner(self.config, self.context, stage, initial)

        def step(number: int) -> Iterator[dict[str, float]]:
            rollout, averager = learner.sample(prompts, number), MetricAverager()
            describe_rollout(rollout, averager)
            labels, rewards = self.label(rollout, guidance, averager)  # labels: (pairs,), NaN where there is none
            scores = None if rewards is None else rewards.tolist()
            learner.save_samples(number, rollout, scores, {"preferred": _per_response(labels)})
            averager.add("labelled_fraction", (~labels.isnan()).float())
            self._accumulate_gradients(learner, rollout, labels, averager)
            yield averager.means(learner.accelerator)

        train_online(learner, guidance.reward, step)

    def _accumulate_gradients(
        self, learner: OnlineLearner, rollout: Rollout, labels: Tensor, averager: MetricAverager
    ) -> None:
        """Accumulate the gradients of the loss on all labelled pairs.

        Args:
            learner: The models.
            rollout: The responses; pairs are consecutive ones.
            labels: (pairs,) probability that the first response is better; NaN where there is no label.
            averager: Metrics are added to it.
        """
        # 1 if all pairs are unlabelled: such a step has a loss of 0.
        count = average_total(learner.accelerator, int((~labels.isnan()).sum())) or 1.0
        by_prompt = labels.view(len(rollout.groups), -1)  # (prompts, pairs per prompt)
        parts = split_by_tokens([g.length for g in rollout.groups], self.context.policy.train_tokens)
        for part in accumulate(learner.accelerator, [learner.policy], parts):
            packed = learner.pack([rollout.groups[i] for i in part])
            logprobs, _ = learner.policy_logprobs(packed)
            reference = learner.reference_logprobs(packed)
            ratios = packed.per_response(logprobs - reference)  # (responses,)
            margins = self.config.beta * (ratios[0::2] - ratios[1::2])  # (pairs,)
            targets = by_prompt[part].flatten().to(margins.device)
            used = ~targets.isnan()
            # Replaced before the loss: the gradient of NaN times 0 would be NaN.
            losses = soft_label_loss(margins, targets.nan_to_num(0.5)) * used
            learner.accelerator.backward(losses.sum() / count)
            averager.add("loss", losses, float(used.sum()))
            decided = used & (targets != 0.5)
            averager.add("accuracy", ((margins > 0) == (targets > 0.5))[decided].float())
            averager.add("margin", (margins * torch.sign(targets - 0.5))[decided])
            for name in get_args(KlEstimator):
                averager.add(f"kl_{name}", estimate_kl(logprobs.detach(), reference, name), packed.responses)
            averager.add("entropy", -logprobs)

    def label(self, rollout: Rollout, guidance: Guidance, averager: MetricAverager) -> tuple[Tensor, Tensor | None]:
        """Label consecutive responses as pairs.

        Returns:
            (pairs,) probability that the first response of each is better, NaN if they are equal or unlabelled; and
            (responses,) the rewards, None if a labeler labels them.

        Raises:
            SpecError: There is neither a labeler nor a reward.
            TrainingError: The probability mass on the label tokens is too low.
        """
        rewards = None
        if self.labeler is not None:
            labels = self._label_by_labeler(self.labeler, rollout, averager)
        elif guidance.reward is not None:
            rewards = score_rollout(guidance.reward, rollout, averager)
            averager.add("reward", rewards)
            labels = self._label_by_rewards(rewards, rollout, averager)
        else:
            raise SpecError("online-dpo: there is neither a labeler nor a reward; set 'labeler', or the arm's 'reward'")
        return (harden_labels(labels) if self.config.labels == "hard" else labels), rewards

    def _label_by_labeler(self, labeler: Labeler, rollout: Rollout, averager: MetricAverager) -> Tensor:
        """Label pairs by a labeler, and log the probability mass on the label tokens."""
        comparisons = [
            # The index makes ids unique, and is read back below.
            Comparison(f"{index}/{prompt.id}", prompt, pair)
            for index, (prompt, pair) in enumerate(zip(rollout.prompts[0::2], _pairs(rollout), strict=True))
            if pair[0] != pair[1] and all(pair)  # equal or empty responses are not labelled
        ]
        labels = torch.full((len(rollout.texts) // 2,), torch.nan)
        masses: list[float] = []
        for preference in labeler.label(comparisons):
            masses += preference.evidence.masses
            if preference.probabilities is not None:
                labels[int(preference.comparison.partition("/")[0])] = preference.probabilities[0]
        if masses:
            averager.add(f"labeler/{LABEL_TOKEN_MASS}", torch.tensor(masses))
        if not self.config.allow_weak_labels:
            check_mass(masses, "online-dpo: the labeler's model almost never writes a label", "the algorithm")
        return labels

    def _label_by_rewards(self, rewards: Tensor, rollout: Rollout, averager: MetricAverager) -> Tensor:
        """Label pairs by the Bradley-Terry model of their rewards, (responses,)."""
        rewards = penalise_missing_eos(self.config, rewards, rollout, averager)
        labels = torch.sigmoid(rewards[0::2] - rewards[1::2])
        labels[torch.tensor([a == b for a, b in _pairs(rollout)])] = torch.nan
        return labels


def _pairs(rollout: Rollout) -> list[tuple[str, str]]:
    """Return consecutive responses as pairs."""
    return list(zip(rollout.texts[0::2], rollout.texts[1::2], strict=True))


def _per_response(labels: Tensor) -> list[float | None]:
    """Return the probability that each response is the better one of its pair, for the samples on disk."""
    values = torch.stack([labels, 1 - labels], 1).flatten().tolist()
    return [None if math.isnan(value) else value for value in values]  # JSON has no NaN
