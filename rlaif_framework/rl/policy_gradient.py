"""Policy gradients: sample, score, compute_advantages each token, and follow the weights. Algorithms differ in the weighing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, get_args

import torch
from torch import Tensor

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Guidance, Reward
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import TrainingError
from rlaif_framework.models.packing import split_by_tokens
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.rl.checkpoint_selection import CheckpointSelector
from rlaif_framework.rl.config import KlEstimator, PolicyGradientConfig, ValueConfig
from rlaif_framework.rl.estimators import (
    adapt_beta,
    clipped_fraction,
    clipped_surrogate,
    defer_scores,
    ends_response,
    estimate_kl,
    gae,
    sum_responses,
    value_loss,
    whiten,
)
from rlaif_framework.rl.learner import Learner
from rlaif_framework.rl.rollouts import Rollout, describe_rollout, penalise_missing_eos, score_rollout
from rlaif_framework.rl.value_model import ValueModel
from rlaif_framework.training.averages import MetricAverager
from rlaif_framework.training.loop import accumulate, train_steps

C = TypeVar("C", bound=PolicyGradientConfig)


RATIO_OFF = 0.1
"""From so far off 1 a token's probability ratio is counted."""


@dataclass(frozen=True, slots=True)
class Experience:
    """Responses of some prompts as they were sampled; all but `scores` is flat over their tokens, in order."""

    scores: Tensor
    """(prompts, responses per prompt) reward of each response, scaled, penalised and weighted: what is maximised."""
    response_index: Tensor
    """(tokens,) response each token belongs to."""
    logprobs: Tensor
    """(tokens,) log pi_old: under the policy that sampled them."""
    reference: Tensor
    """(tokens,) log pi_ref: under the initial policy."""
    values: Tensor | None
    """(tokens,) V(X_t) of the state before each token; None without a value model."""
    end_values: Tensor | None = None
    """(prompts, responses per prompt) V of the finished responses; None unless they are valued (`end_value`)."""

    def totals(self, rewards: Tensor) -> Tensor:
        """Sums of token rewards: (tokens,) to (prompts, responses per prompt)."""
        return sum_responses(rewards, self.response_index, self.scores.numel()).view_as(self.scores)

    def broadcast(self, values: Tensor) -> Tensor:
        """Give each token its response's value: (prompts, responses per prompt) to (tokens,)."""
        return values.flatten()[self.response_index]

    def estimate_advantages(self, rewards: Tensor, gamma: float, lam: float) -> Tensor:
        """Generalised advantages of token rewards, (tokens,); the score comes after the end where that has a value."""
        assert self.values is not None
        if self.end_values is not None:
            rewards = defer_scores(rewards, self.scores, self.end_values, self.response_index, gamma, lam)
        return gae(rewards, self.values, self.response_index, gamma, lam)


@dataclass(frozen=True, slots=True)
class Targets:
    """What an update works towards, flat over tokens like the experience it was made from."""

    advantages: Tensor
    """(tokens,)."""
    logprobs: Tensor
    """(tokens,) log pi_old."""
    reference: Tensor
    """(tokens,) log pi_ref."""
    returns: Tensor | None
    """(tokens,) what the value model learns."""
    values: Tensor | None
    """(tokens,) V before the update."""
    end_values: Tensor | None = None
    """(prompts, responses per prompt) V of finished responses before the update."""
    end_returns: Tensor | None = None
    """(prompts, responses per prompt) what those learn: the scores, whitened if the rewards are."""

    def select(self, groups: Sequence[int], tokens: Tensor) -> Targets:
        """Those of some prompts, whose tokens are given."""
        returns, values = (None if x is None else x[tokens] for x in (self.returns, self.values))
        flat = self.advantages[tokens], self.logprobs[tokens], self.reference[tokens], returns, values
        return Targets(*flat, *(None if x is None else x[list(groups)] for x in (self.end_values, self.end_returns)))


class PolicyGradient(Generic[C]):
    """A policy-gradient algorithm; a subclass says what the advantage of a token is, and perhaps how ratios are taken.

    One step: sample responses, score them, take the KL term into account, compute_advantages tokens, update. With one update a step
    and nothing whitened, log-probabilities of sampling and of the update are the same numbers, computed once.
    """

    def __init__(self, config: C, context: Context) -> None:
        self.config = config
        self.context = context

    def compute_advantages(self, rewards: Tensor, experience: Experience) -> tuple[Tensor, Tensor | None]:
        """Advantages, and returns for the value model if there is one.

        Args:
            rewards: (tokens,) reward of each token: its response's at the last one, less the KL term if it goes there.
            experience: The responses; without whitening they may be some of a step's prompts only.

        Returns:
            (tokens,) each.
        """
        raise NotImplementedError

    def surrogate(self, log_ratios: Tensor, advantages: Tensor, response_index: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each token, and whether clipping took its gradient away; the default takes ratios token by token.

        Args:
            log_ratios: (tokens,) log pi - log pi_old.
            advantages: (tokens,).
            response_index: (tokens,) response of each token.

        Returns:
            (tokens,) each.
        """
        clip = self.config.clip
        return clipped_surrogate(log_ratios, advantages, clip), clipped_fraction(log_ratios, advantages, clip)

    @property
    def uses_value_model(self) -> bool:
        """Whether a value model is trained beside the policy."""
        return isinstance(self.config, ValueConfig)

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy; see `Algorithm.improve`."""
        if guidance.reward is None:
            raise TrainingError(f"algorithm '{self.config.kind}' needs a reward")
        config = self.config
        learner = Learner(config, self.context, stage, initial, guidance.reward_folder, self.uses_value_model)
        trainer = _Trainer(self, learner, guidance.reward, prompts)
        selector = CheckpointSelector(config, learner, guidance.reward)
        train_steps(
            stage,
            learner.modules,
            learner.optimizer,
            config.steps,
            trainer.step,
            text=config.kind,
            warmup=config.warmup,
            schedule=config.schedule,
            max_grad_norm=config.max_grad_norm,
            state=trainer.state,
            after=selector.evaluate,
        )
        selector.choose()
        learner.save()


class _Trainer:
    """The steps of one training."""

    def __init__(
        self, algorithm: PolicyGradient[C], learner: Learner, reward: Reward, prompts: Sequence[Prompt]
    ) -> None:
        self.algorithm, self.config = algorithm, algorithm.config
        self.learner, self.reward, self.prompts = learner, reward, prompts
        self.state: dict[str, float] = {"beta": self.config.beta}
        """Kept from step to step: beta, and the spread that rewards are divided by."""

    def step(self, number: int) -> Iterator[Mapping[str, float]]:
        """Sample, score and update."""
        config, learner = self.config, self.learner
        rollout = learner.sample(self.prompts, number)
        averager = MetricAverager()
        describe_rollout(rollout, learner.context.task, averager)
        raw = score_rollout(self.reward, rollout, averager)  # (responses,)
        scores = self._shape_scores(number, raw, rollout, averager).view(len(rollout.groups), -1)
        learner.save_samples(number, rollout, {"reward": raw.tolist()})
        if number == 0 and learner.value is not None and not config.whiten_rewards:  # returns then have another scale
            self._center_values(learner.accelerator.unwrap_model(learner.value), rollout, scores)
        averager.add("reward", raw)
        averager.add("objective", scores)
        everything = list(range(len(rollout.groups)))
        if len(everything) % config.minibatches:
            raise TrainingError(
                f"minibatches: the {len(everything)} prompts that each process has in a step cannot be divided into "
                f"{config.minibatches}; change prompts_per_step or minibatches"
            )
        targets = self._prepare(rollout, scores) if config.needs_old_logprobs else None
        kls: list[float] = []
        for epoch in range(config.epochs):
            order = torch.randperm(len(everything), generator=self._generator(number, epoch)).tolist()
            size = len(everything) // config.minibatches
            for start in range(0, size * config.minibatches, size):
                chosen = sorted(order[start : start + size]) if config.minibatches > 1 else everything
                update = MetricAverager()
                self._accumulate(rollout, scores, chosen, targets, update)
                metrics = {**averager.means(learner.accelerator), **update.means(learner.accelerator)}
                kls.append(metrics["kl_k1"])
                yield self._finish(metrics)
        if config.kl_target is not None:
            # Of all minibatches, which are of one size: the KL of the policy that sampled.
            self._adapt(sum(kls) / len(kls), len(rollout.texts) * learner.accelerator.num_processes)

    @torch.no_grad()
    def _center_values(self, value: ValueModel, rollout: Rollout, scores: Tensor) -> None:
        """Raise or lower the values so that those of the first responses are, on average, what they scored."""
        accelerator = self.learner.accelerator
        means = []
        for part in self._parts(rollout, range(len(rollout.groups))):
            packed = self.learner.pack([rollout.groups[i] for i in part])
            means.append(packed.per_response(value(packed)) / packed.per_response(torch.ones_like(packed.targets)))
        value.shift(accelerator.reduce(scores.mean() - torch.cat(means).mean(), reduction="mean"))

    def _shape_scores(self, number: int, raw: Tensor, rollout: Rollout, averager: MetricAverager) -> Tensor:
        """What is maximised of each response, KL apart: (responses,) to (responses,) on the device."""
        config, accelerator = self.config, self.learner.accelerator
        scores = raw.to(self.learner.context.device)
        if config.scale_rewards:
            if number == 0:
                spread = float(accelerator.gather(scores).std(correction=0))
                self.state["reward_spread"] = spread if spread > 0 else 1.0
            scores = scores / self.state["reward_spread"]
        scores = penalise_missing_eos(config, scores, rollout, averager)
        return scores * (1 - self.state["beta"]) if config.objective == "weighted" else scores

    def _prepare(self, rollout: Rollout, scores: Tensor) -> Targets:
        """Targets of a whole rollout, from log-probabilities and values before the first update."""
        learner, order, read = self.learner, list[int](), list[tuple[Tensor | None, ...]]()
        with torch.no_grad():
            for part in self._parts(rollout, range(len(rollout.groups))):
                packed = learner.pack([rollout.groups[i] for i in part])
                logprobs, _ = learner.policy_logprobs(packed)
                read.append((logprobs, learner.reference_logprobs(packed), *learner.predict_values(packed)))
                order += part
        tokens = [sum(map(len, rollout.groups[i].responses)) for i in order]
        counts = (tokens, tokens, tokens, [scores.shape[1]] * len(order))
        columns = [_restore_order(c, order, n) for c, n in zip(zip(*read, strict=True), counts, strict=True)]
        lengths = torch.tensor(rollout.lengths, device=scores.device)
        response_index = torch.arange(len(lengths), device=scores.device).repeat_interleave(lengths)
        old, reference, values, ends = columns
        assert old is not None
        assert reference is not None
        return self._build_targets(Experience(scores, response_index, old, reference, values, _like(ends, scores)))

    def _build_targets(self, experience: Experience) -> Targets:
        """Token rewards, KL included, weighed by the algorithm; whitened if the config says so."""
        config = self.config
        rewards, last = torch.zeros_like(experience.logprobs), ends_response(experience.response_index)
        if config.kl == "reward":
            kl = estimate_kl(experience.logprobs, experience.reference, config.kl_estimator)
            rewards = rewards - self.state["beta"] * kl
        deferred = experience.end_values is not None  # the score is a step of its own, after the last token
        if not deferred:
            rewards[last] += experience.scores.flatten()
        if config.whiten_rewards:
            steps = torch.cat([rewards, experience.scores.flatten()]) if deferred else rewards
            moments = self._moments(steps)
            rewards = whiten(rewards, *moments, shift=False)
            if deferred:
                experience = replace(experience, scores=whiten(experience.scores, *moments, shift=False))
        if deferred:
            rewards[last] += experience.scores.flatten()  # where `estimate_advantages` finds it
        advantages, returns = self.algorithm.compute_advantages(rewards, experience)
        if config.whiten_advantages:
            advantages = whiten(advantages, *self._moments(advantages))
        return Targets(
            advantages,
            experience.logprobs,
            experience.reference,
            returns,
            experience.values,
            experience.end_values,
            experience.scores if deferred else None,
        )

    def _accumulate(
        self, rollout: Rollout, scores: Tensor, chosen: Sequence[int], targets: Targets | None, averager: MetricAverager
    ) -> None:
        """Add up the gradients of some prompts' responses; without targets they are made along with them."""
        learner, config = self.learner, self.config
        weights = self._token_weights(rollout, chosen)
        starts = torch.tensor([0, *(sum(map(len, g.responses)) for g in rollout.groups)]).cumsum(0).tolist()
        for part in accumulate(learner.accelerator, list(learner.modules.values()), self._parts(rollout, chosen)):
            packed = learner.pack([rollout.groups[i] for i in part])
            tokens = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in part])
            logprobs, entropies = learner.policy_logprobs(packed, entropy=config.entropy > 0)
            values, ends = learner.predict_values(packed)
            if targets is None:
                now = scores[part], packed.response_index, logprobs.detach(), learner.reference_logprobs(packed)
                old = values.detach() if values is not None else None
                aim = self._build_targets(Experience(*now, old, _like(ends, scores[part])))
            else:
                aim = targets.select(part, tokens.to(scores.device))
            log_ratios = logprobs - aim.logprobs
            losses, clipped = self.algorithm.surrogate(log_ratios, aim.advantages, packed.response_index)
            share = len(part) / len(chosen)
            averager.add("policy_loss", losses * weights[tokens], share)
            if config.kl == "loss":
                kl = estimate_kl(logprobs, aim.reference, config.kl_estimator)
                losses = losses + self.state["beta"] * (kl * log_ratios.exp() if config.kl_correction else kl)
            if entropies is not None:
                losses = losses - config.entropy * entropies
            if values is not None:
                assert isinstance(config, ValueConfig)
                assert aim.returns is not None
                assert aim.values is not None
                errors = value_loss(values, aim.values, aim.returns, config.value_clip)
                if ends is not None:
                    assert aim.end_values is not None
                    assert aim.end_returns is not None
                    last = ends_response(packed.response_index)
                    final = value_loss(ends, aim.end_values.flatten(), aim.end_returns.flatten(), config.value_clip)
                    errors = errors.index_add(0, last.nonzero().flatten(), final)
                losses = losses + config.value_weight * errors
                averager.add("value_loss", errors * weights[tokens], share)
                if config.value_clip is not None:
                    averager.add("value_clipped", ((values - aim.values).abs() > config.value_clip).float())
                _average_values(averager, aim.returns, aim.values)
            losses = losses * weights[tokens]
            averager.add("loss", losses, share)
            learner.accelerator.backward(losses.sum())
            self._average_diagnostics(averager, logprobs.detach(), aim, clipped, packed.responses)

    def _token_weights(self, rollout: Rollout, chosen: Sequence[int]) -> Tensor:
        """Weight of each token's loss in the update, (tokens,) over the whole rollout; see `average`."""
        learner = self.learner
        lengths = torch.tensor(rollout.lengths, dtype=torch.float32, device=learner.context.device)
        per_token = lengths.repeat_interleave(lengths.long())
        picked = [len(response) for i in chosen for response in rollout.groups[i].responses]
        if self.config.average == "tokens":
            total: Tensor = torch.tensor(float(sum(picked)), device=lengths.device)
            total = learner.accelerator.reduce(total, reduction="mean")
            return torch.ones_like(per_token) / total
        if self.config.average == "response-tokens":
            return 1 / (per_token * len(picked))
        return torch.ones_like(per_token) / len(picked)

    def _average_diagnostics(
        self, averager: MetricAverager, logprobs: Tensor, aim: Targets, clipped: Tensor, responses: int
    ) -> None:
        log_ratios = logprobs - aim.logprobs
        # The KL of the policy that sampled, which is an estimate; after several updates it is the first one's.
        for name in get_args(KlEstimator):
            averager.add(f"kl_{name}", estimate_kl(aim.logprobs, aim.reference, name), responses)
        averager.add("entropy", -aim.logprobs)  # of the tokens sampled: unbiased
        ratios = log_ratios.exp()
        averager.add("ratio", ratios)
        averager.add("_ratio_squared", ratios**2)
        averager.add("ratio_off", ((ratios - 1).abs() > RATIO_OFF).float())
        averager.add("ratio_kl", estimate_kl(aim.logprobs, logprobs, "k3"))
        averager.add("clipped", clipped)
        averager.add("_advantages", aim.advantages)
        averager.add("_advantages_squared", aim.advantages**2)

    def _finish(self, metrics: dict[str, float]) -> dict[str, float]:
        """Complete a step's metrics."""
        beta = self.state["beta"]
        metrics["objective"] -= beta * metrics["kl_k1"]
        metrics["beta"] = beta
        metrics["ratio_std"] = _variance(metrics["ratio"], metrics.pop("_ratio_squared")) ** 0.5
        metrics["advantage_std"] = _variance(metrics.pop("_advantages"), metrics.pop("_advantages_squared")) ** 0.5
        if "value_loss" in metrics:
            spread = _variance(metrics.pop("_returns"), metrics.pop("_returns_squared"))
            unexplained = _variance(metrics.pop("_errors"), metrics.pop("_errors_squared"))
            metrics["value_explained"] = 1 - unexplained / spread if spread > 0 else 0.0
        return metrics

    def _adapt(self, kl: float, responses: int) -> None:
        config = self.config
        assert config.kl_target is not None
        beta = adapt_beta(self.state["beta"], kl, config.kl_target, responses, config.kl_horizon)
        self.state["beta"] = min(beta, 1.0) if config.objective == "weighted" else beta

    def _parts(self, rollout: Rollout, chosen: Sequence[int]) -> list[list[int]]:
        """Batches of some groups that fit into the token budget."""
        lengths = [rollout.groups[i].length for i in chosen]
        return [
            [chosen[i] for i in part] for part in split_by_tokens(lengths, self.learner.context.policy.train_tokens)
        ]

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (sample) variance over all processes."""
        sums = torch.stack([values.sum(), (values**2).sum(), torch.tensor(float(len(values)), device=values.device)])
        total, squares, count = self.learner.accelerator.reduce(sums.double(), reduction="sum").unbind()
        mean = total / count
        return mean.float(), ((squares - count * mean**2) / (count - 1)).clamp(min=0).float()

    def _generator(self, number: int, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.learner.stage.seed("minibatches", number, epoch))


def _restore_order(pieces: Sequence[Tensor | None], order: Sequence[int], counts: Sequence[int]) -> Tensor | None:
    """Values that were read prompt by prompt in another order, in the prompts' own; None for None.

    Args:
        pieces: Of several prompts each, (values,).
        order: The prompts, as their values follow one another.
        counts: Values of each.
    """
    given = [piece for piece in pieces if piece is not None]
    if not given:
        return None
    found = dict(zip(order, torch.cat(given).split(list(counts)), strict=True))
    return torch.cat([found[i] for i in range(len(order))])


def _like(values: Tensor | None, scores: Tensor) -> Tensor | None:
    """One value a response in the shape of scores, without gradients."""
    return None if values is None else values.detach().view_as(scores)


def _average_values(averager: MetricAverager, returns: Tensor, values: Tensor) -> None:
    """What `value_explained` is made of."""
    errors = returns - values
    for name, of in (("returns", returns), ("errors", errors)):
        averager.add(f"_{name}", of)
        averager.add(f"_{name}_squared", of**2)


def _variance(mean: float, mean_square: float) -> float:
    return max(0.0, mean_square - mean**2)
