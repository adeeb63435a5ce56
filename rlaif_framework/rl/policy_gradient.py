"""Policy-gradient algorithms: sample, score, compute advantages, update. Subclasses compute the advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Guidance, Reward
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import TrainingError
from rlaif_framework.models.packing import split_by_tokens
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.rl.checkpoint_selection import train_online
from rlaif_framework.rl.config import PolicyGradientConfig
from rlaif_framework.rl.diagnostics import average_policy, average_values, finish_metrics
from rlaif_framework.rl.estimators import (
    adapt_beta,
    clipped_fraction,
    clipped_surrogate,
    ends_response,
    estimate_kl,
    whiten,
)
from rlaif_framework.rl.experience import Experience, Microbatch, Predictions, Targets, ValueTargets
from rlaif_framework.rl.learner import OnlineLearner, ValueLearner
from rlaif_framework.rl.rollouts import Rollout, describe_rollout
from rlaif_framework.rl.scoring import penalise_missing_eos, score_rollout
from rlaif_framework.training.averages import MetricAverager, average_total
from rlaif_framework.training.loop import accumulate

C = TypeVar("C", bound=PolicyGradientConfig)


TargetSource = Callable[[Microbatch, Predictions], Targets]
"""Returns the targets of a microbatch, given the current predictions for it."""


class PolicyGradient(Generic[C]):
    """A policy-gradient algorithm; a subclass defines the advantages and may redefine the surrogate loss.

    A step samples responses, scores them, subtracts the KL term, computes advantages and updates the models. With a
    single update and no whitening, the policy that is updated is the one that sampled, so the log-probabilities of a
    step are computed only once.
    """

    def __init__(self, config: C, context: Context) -> None:
        self.config = config
        self.context = context

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Compute advantages, and returns for the value model if there is one.

        Args:
            rewards: (tokens,) reward of each token: the score at the last one, minus the KL term with `kl: reward`.
            experience: The responses; if `needs_old_logprobs` is False, those to some of the step's prompts only.

        Returns:
            (tokens,) each; None for returns without a value model.
        """
        raise NotImplementedError

    def surrogate(self, log_ratios: Tensor, advantages: Tensor, response_index: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of each token, and where clipping removes the gradient; by default with ratios of tokens.

        Args:
            log_ratios: (tokens,) log pi - log pi_old.
            advantages: (tokens,).
            response_index: (tokens,) response of each token.

        Returns:
            (tokens,) losses, and 1 for each ratio whose gradient is removed, 0 for the others.
        """
        clip = self.config.clip
        return clipped_surrogate(log_ratios, advantages, clip), clipped_fraction(log_ratios, advantages, clip)

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy; see `Algorithm.improve`."""
        if guidance.reward is None:
            raise TrainingError(f"algorithm '{self.config.kind}' needs a reward; set the arm's `reward`")
        values = self.config.value_settings
        if values is None:
            learner = OnlineLearner(self.config, self.context, stage, initial)
            trainer = _Trainer(self, learner, None, guidance.reward, prompts)
        else:
            learner = critic = ValueLearner(values, self.context, stage, initial, guidance.reward_folder)
            trainer = _Trainer(self, learner, critic, guidance.reward, prompts)
        train_online(learner, guidance.reward, trainer.step, trainer.state)


class _Trainer:
    """Computes the training steps of an algorithm."""

    def __init__(
        self,
        algorithm: PolicyGradient[C],
        learner: OnlineLearner,
        critic: ValueLearner | None,
        reward: Reward,
        prompts: Sequence[Prompt],
    ) -> None:
        """Initialise the state that steps carry over.

        Args:
            algorithm: Advantages and surrogate loss.
            learner: The models.
            critic: The same learner, if it has a value model.
            reward: Scores responses.
            prompts: Prompts to draw from.
        """
        self.algorithm, self.config = algorithm, algorithm.config
        self.learner, self.critic = learner, critic
        self.reward, self.prompts = reward, prompts
        self.state: dict[str, float] = {"beta": self.config.beta}
        """State that steps carry over: beta, and the standard deviation that rewards are divided by."""

    def step(self, number: int) -> Iterator[Mapping[str, float]]:
        """Sample and score responses, then update the models; yields the metrics of each update."""
        config, learner = self.config, self.learner
        rollout = learner.sample(self.prompts, number)
        averager = MetricAverager()
        describe_rollout(rollout, averager)
        rewards = score_rollout(self.reward, rollout, averager)  # (responses,)
        scores = self._shape_scores(number, rewards, rollout, averager).view(len(rollout.groups), -1)
        learner.save_samples(number, rollout, rewards.tolist())
        # Not with `whiten_rewards`, whose returns have another scale than the scores.
        if number == 0 and self.critic is not None and not config.whiten_rewards:
            self._center_values(self.critic, rollout, scores)
        averager.add("reward", rewards)
        averager.add("objective", scores)
        minibatches = self._draw_minibatches(number, len(rollout.groups))
        targets_of = self._prepare_targets(rollout, scores)
        kls: list[float] = []
        for prompts in minibatches:
            update = MetricAverager()
            self._accumulate_gradients(rollout, prompts, targets_of, update)
            metrics = {**averager.means(learner.accelerator), **update.means(learner.accelerator)}
            kls.append(metrics["kl_k1"])
            yield finish_metrics(metrics, self.state["beta"])
        if config.kl_target is not None:
            # Minibatches have equal sizes: the mean over them is the KL of the policy that sampled.
            self._adapt(sum(kls) / len(kls), config.kl_target, len(rollout.texts) * learner.accelerator.num_processes)

    def _shape_scores(self, number: int, rewards: Tensor, rollout: Rollout, averager: MetricAverager) -> Tensor:
        """Scale, penalise and weight rewards, (responses,): the objective without the KL term."""
        config, accelerator = self.config, self.learner.accelerator
        scores = rewards.to(self.learner.context.device)
        if config.scale_rewards:
            if number == 0:
                deviation = float(accelerator.gather(scores).std(correction=0))
                self.state["reward_std"] = deviation if deviation > 0 else 1.0  # 0 if all rewards are equal
            scores = scores / self.state["reward_std"]
        scores = penalise_missing_eos(config, scores, rollout, averager)
        return scores * (1 - self.state["beta"]) if config.objective == "weighted" else scores

    @torch.no_grad()
    def _center_values(self, critic: ValueLearner, rollout: Rollout, scores: Tensor) -> None:
        """Shift all values so that those of the first responses equal their scores on average."""
        means = []
        for part in self._split(rollout, range(len(rollout.groups))):
            packed = critic.pack([rollout.groups[i] for i in part])
            values = packed.per_response(critic.value_model(packed))
            # The mean over tokens for each response: responses, which vary in length, have equal weight.
            means.append(values / packed.per_response(torch.ones_like(packed.targets)))
        shift = scores.mean() - torch.cat(means).mean()
        critic.value_model.shift(critic.accelerator.reduce(shift, reduction="mean"))

    def _draw_minibatches(self, number: int, prompts: int) -> list[list[int]]:
        """Return the indices of the prompts of each update of a step.

        Raises:
            TrainingError: The prompts cannot be divided into minibatches.
        """
        count = self.config.minibatches
        size, rest = divmod(prompts, count)
        if rest:
            raise TrainingError(
                f"minibatches: the {prompts} prompts that each process has in a step cannot be divided into "
                f"{count}; change prompts_per_step or minibatches"
            )
        updates: list[list[int]] = []
        for epoch in range(self.config.epochs):
            generator = torch.Generator().manual_seed(self.learner.stage.seed("minibatches", number, epoch))
            order = torch.randperm(prompts, generator=generator).tolist()
            # Sorted: the order of prompts within an update does not matter, and a single minibatch needs no reordering.
            updates += [sorted(order[start : start + size]) for start in range(0, prompts, size)]
        return updates

    def _split(self, rollout: Rollout, prompts: Sequence[int]) -> list[list[int]]:
        """Split prompts into microbatches within the token budget."""
        lengths = [rollout.groups[i].length for i in prompts]
        budget = self.learner.context.policy.train_tokens
        return [[prompts[i] for i in part] for part in split_by_tokens(lengths, budget)]

    def _pack(self, rollout: Rollout, prompts: list[int]) -> Microbatch:
        """Pack prompts and their responses for one pass."""
        device = self.learner.context.device
        return Microbatch(
            prompts,
            rollout.responses_of(prompts).to(device),
            rollout.tokens_of(prompts).to(device),
            self.learner.pack([rollout.groups[i] for i in prompts]),
        )

    def _predict(self, batch: Microbatch, entropy: bool = False) -> Predictions:
        """Compute the policy's log-probabilities and, with a value model, values."""
        logprobs, entropies = self.learner.policy_logprobs(batch.packed, entropy)
        values = None if self.critic is None else self.critic.predict_values(batch.packed)
        return Predictions(logprobs, entropies, values)

    def _prepare_targets(self, rollout: Rollout, scores: Tensor) -> TargetSource:
        """Build the targets of the whole rollout or, if `needs_old_logprobs` is False, of each microbatch in turn."""
        if not self.config.needs_old_logprobs:
            # The policy that is updated is the one that sampled: its predictions are the old ones, too.
            return lambda batch, now: self._build_targets(self._make_experience(batch, now, scores))
        parts: list[Experience] = []
        order: list[int] = []
        for prompts in self._split(rollout, range(len(rollout.groups))):
            batch = self._pack(rollout, prompts)
            with torch.no_grad():
                parts.append(self._make_experience(batch, self._predict(batch), scores))
            order += prompts
        targets = self._build_targets(Experience.join(parts, rollout, order))
        return lambda batch, _: targets.select(batch)

    def _make_experience(self, batch: Microbatch, predictions: Predictions, scores: Tensor) -> Experience:
        """Combine scores, reference log-probabilities and the predictions of the policy that sampled a microbatch.

        Args:
            batch: The microbatch.
            predictions: Predictions of the policy that sampled.
            scores: (prompts of the rollout, responses per prompt).
        """
        scores = scores[batch.prompts]
        reference = self.learner.reference_logprobs(batch.packed)
        logprobs, index = predictions.logprobs.detach(), batch.packed.response_index
        if predictions.values is None:
            return Experience(scores, index, logprobs, reference, None)
        # The values of final states, if there are any, come after those of all tokens.
        values, end_values = predictions.values.detach().split([len(index), len(predictions.values) - len(index)])
        return Experience(
            scores, index, logprobs, reference, values, end_values.view_as(scores) if len(end_values) else None
        )

    def _build_targets(self, experience: Experience) -> Targets:
        """Compute token rewards and advantages, and whiten them if configured."""
        rewards, scores = self._reward_tokens(experience)
        experience = replace(experience, scores=scores)
        advantages, returns = self.algorithm.compute_advantages(rewards, experience)
        if self.config.whiten_advantages:
            advantages = whiten(advantages, *self._moments(advantages))
        return Targets(
            advantages, experience.logprobs, experience.reference, self._build_value_targets(experience, returns)
        )

    def _reward_tokens(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Compute the reward of each token, (tokens,), and the scores on the same scale.

        The score of a response is the reward of its last token or, with `end_value`, of the step after it.
        """
        config, scores = self.config, experience.scores
        rewards = torch.zeros_like(experience.logprobs)
        if config.kl == "reward":
            kl = estimate_kl(experience.logprobs, experience.reference, config.kl_estimator)
            rewards = rewards - self.state["beta"] * kl
        last = ends_response(experience.response_index)
        if not config.whiten_rewards:
            rewards[last] += scores.flatten()
        elif experience.end_values is None:
            rewards[last] += scores.flatten()
            rewards = whiten(rewards, *self._moments(rewards), shift=False)
        else:
            # The score is a step of its own, whose reward counts for the moments separately.
            moments = self._moments(torch.cat([rewards, scores.flatten()]))
            rewards, scores = (whiten(x, *moments, shift=False) for x in (rewards, scores))
            rewards[last] += scores.flatten()
        return rewards, scores

    def _build_value_targets(self, experience: Experience, returns: Tensor | None) -> ValueTargets | None:
        """Join the targets of tokens and of final states.

        Raises:
            TrainingError: There is a value model and nothing for it to learn.
        """
        if experience.values is None:
            return None
        if returns is None:
            raise TrainingError(f"algorithm '{self.config.kind}' has a value model, but computes no returns for it")
        if experience.end_values is None:
            return ValueTargets(experience.values, returns)
        # The return of a final state is the score, which comes one step later.
        old = torch.cat([experience.values, experience.end_values.flatten()])
        return ValueTargets(old, torch.cat([returns, experience.scores.flatten()]))

    def _accumulate_gradients(
        self, rollout: Rollout, prompts: Sequence[int], targets_of: TargetSource, averager: MetricAverager
    ) -> None:
        """Accumulate the gradients of one update over microbatches of its prompts."""
        learner = self.learner
        token_weights = self._token_weights(rollout, prompts)  # (tokens of the rollout,)
        # Weights sum to 1 over an update, of which a microbatch has the share of its prompts.
        for part in accumulate(learner.accelerator, list(learner.modules.values()), self._split(rollout, prompts)):
            batch = self._pack(rollout, part)
            predictions = self._predict(batch, entropy=self.config.entropy > 0)
            targets = targets_of(batch, predictions)
            weights, share = token_weights[batch.tokens], len(part) / len(prompts)
            log_ratios = predictions.logprobs - targets.logprobs
            losses, clipped = self.algorithm.surrogate(log_ratios, targets.advantages, batch.packed.response_index)
            averager.add("policy_loss", losses * weights, share)
            losses = self._regularise(losses, log_ratios, predictions, targets.reference)
            if self.critic is not None and predictions.values is not None and targets.values is not None:
                values = targets.values
                index = batch.packed.response_index
                errors = self.critic.value_errors(predictions.values, values.old, values.returns, index)
                losses = losses + self.critic.config.value_weight * errors
                averager.add("value_loss", errors * weights, share)
                # Only states before tokens are averaged, without final ones.
                average_values(averager, predictions.values[: len(index)], values, self.critic.config.value_clip)
            losses = losses * weights
            averager.add("loss", losses, share)
            learner.accelerator.backward(losses.sum())
            average_policy(averager, predictions.logprobs.detach(), targets, clipped, batch.packed.responses)

    def _regularise(self, losses: Tensor, log_ratios: Tensor, predictions: Predictions, reference: Tensor) -> Tensor:
        """Add the KL term, with `kl: loss`, and the entropy bonus to the losses of tokens; all (tokens,)."""
        config = self.config
        if config.kl == "loss":
            kl = estimate_kl(predictions.logprobs, reference, config.kl_estimator)
            losses = losses + self.state["beta"] * (kl * log_ratios.exp() if config.kl_correction else kl)
        if predictions.entropies is not None:
            losses = losses - config.entropy * predictions.entropies
        return losses

    def _token_weights(self, rollout: Rollout, prompts: Sequence[int]) -> Tensor:
        """Return the weight of the loss of each token in an update, (tokens of the rollout,); see `average`."""
        learner = self.learner
        lengths = torch.tensor(rollout.lengths, dtype=torch.float32, device=learner.context.device)
        per_token = lengths.repeat_interleave(lengths.long())  # length of each token's response
        chosen = [len(response) for i in prompts for response in rollout.groups[i].responses]
        if self.config.average == "tokens":
            return torch.ones_like(per_token) / average_total(learner.accelerator, sum(chosen))
        if self.config.average == "response-tokens":
            return 1 / (per_token * len(chosen))
        return torch.ones_like(per_token) / len(chosen)

    def _adapt(self, kl: float, target: float, responses: int) -> None:
        """Adapt beta to the KL of a step's responses."""
        config = self.config
        beta = adapt_beta(self.state["beta"], kl, target, responses, config.kl_horizon)
        # With `weighted`, a beta above 1 would reverse the sign of the reward.
        self.state["beta"] = min(beta, 1.0) if config.objective == "weighted" else beta

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the sample variance of values over all processes; the variance of one value is 0."""
        # The variance is a difference of large numbers: in fp64, in which they are added, too.
        exact = values.double()
        sums = torch.stack([exact.sum(), (exact**2).sum(), torch.tensor(len(values)).to(exact)])
        total, squares, count = self.learner.accelerator.reduce(sums, reduction="sum").unbind()
        mean = total / count
        variance = (squares - count * mean**2) / (count - 1).clamp(min=1)
        return mean.float(), variance.clamp(min=0).float()
