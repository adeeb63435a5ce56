"""REINFORCE with baseline: sample, score, and follow the advantage (RLAIF F)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn

from rlaif_framework import (
    Context,
    Group,
    Packed,
    Prompt,
    Reward,
    Sample,
    ScoreModel,
    Stage,
    accumulate,
    add_lora,
    draw_batch,
    encode_prompt,
    group_samples,
    kl_estimates,
    load_model,
    load_tokenizer,
    my_share,
    pack_groups,
    response_logprobs,
    sample_responses,
    save_model,
    split_by_tokens,
    train_steps,
    write_rows,
)
from rlaif_plugins.reinforce import ReinforceConfig


class Reinforce:
    """The policy gradient of sampled responses against a baseline."""

    def __init__(self, config: ReinforceConfig, context: Context) -> None:
        self.config = config
        self.context = context

    def improve(
        self, initial: Path, reward: Reward, reward_folder: Path, prompts: Sequence[Prompt], stage: Stage
    ) -> None:
        """Train; see `Algorithm.improve`."""
        trainer = _Trainer(self.config, self.context, initial, reward, reward_folder, prompts, stage)
        train_steps(
            stage,
            trainer.modules,
            trainer.optimizer,
            self.config.steps,
            trainer.step,
            text="reinforce",
            decay=False,
        )
        if stage.is_main:
            policy = self.context.accelerator.unwrap_model(trainer.policy)
            save_model(policy, trainer.tokenizer, stage.folder, self.context.dtype)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Responses of one step with their rewards; lists are over responses, prompt by prompt."""

    prompts: list[Prompt]
    samples: list[Sample]
    texts: list[str]
    scores: Tensor
    """(responses,) what the reward model said."""
    rewards: Tensor
    """(responses,) scores, scaled and penalised as the config says: what is maximised."""
    groups: list[Group]
    """The token ids, one group a prompt."""


class ValueModel(nn.Module):
    """V(X_t): a score at every position, plus a level that starts at the mean reward of the first responses.

    A reward model's level is arbitrary. A value model that had to climb there first would, for as long as it took, push
    all responses the same way, good and bad alike.
    """

    def __init__(self, scores: ScoreModel) -> None:
        super().__init__()
        self.scores = scores
        self.level = nn.Parameter(torch.zeros((), device=next(scores.parameters()).device))

    def start_at(self, level: Tensor) -> None:
        """Set the level, before the first step."""
        with torch.no_grad():
            self.level.copy_(level)

    def forward(self, packed: Packed, rows: Tensor, columns: Tensor) -> Tensor:
        """Values at the given positions, (positions,) fp32."""
        values: Tensor = self.scores(packed, rows, columns) + self.level
        return values


class _Trainer:
    def __init__(
        self,
        config: ReinforceConfig,
        context: Context,
        initial: Path,
        reward: Reward,
        reward_folder: Path,
        prompts: Sequence[Prompt],
        stage: Stage,
    ) -> None:
        self.config, self.context, self.stage, self.reward, self.prompts = config, context, stage, reward, prompts
        self.tokenizer = load_tokenizer(initial)
        lora, device = context.policy.lora, context.device
        policy: nn.Module = load_model(initial, "causal", torch.float32 if lora is None else context.dtype, device)
        self.reference: nn.Module | None = None
        if lora is None:
            self.reference = load_model(initial, "causal", context.dtype, device).requires_grad_(False)
        else:
            policy = add_lora(policy, lora, "CAUSAL_LM")
        modules = {"policy": policy}
        if config.baseline == "value":
            source = reward_folder if config.value_from == "reward" else initial
            scores = ScoreModel.load(source, load_tokenizer(source), context.dtype, device, lora, train=True)
            modules["value"] = ValueModel(scores)
        rates = {"policy": config.lr, "value": config.value_lr or config.lr}
        groups = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": rates[name]}
            for name, module in modules.items()
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0, eps=1e-5)
        *prepared, self.optimizer = context.accelerator.prepare(*modules.values(), optimizer)
        self.modules: dict[str, nn.Module] = dict(zip(modules, prepared, strict=True))
        self.policy = self.modules["policy"]
        self.value = self.modules.get("value")
        self._spread: float | None = None

    def step(self, number: int) -> dict[str, float]:
        """Sample responses, score them, and accumulate the gradients of policy and value model."""
        rollout = self.roll_out(number)
        per_prompt = self.config.responses_per_prompt
        rewards = rollout.rewards.view(-1, per_prompt)  # (prompts, responses per prompt)
        if number == 0 and self.value is not None:
            accelerator = self.context.accelerator
            accelerator.unwrap_model(self.value).start_at(accelerator.reduce(rollout.rewards.mean(), reduction="mean"))
        sums: dict[str, Tensor] = {}
        parts = split_by_tokens([g.length for g in rollout.groups], self.context.policy.train_tokens)
        for part in accumulate(self.context.accelerator, list(self.modules.values()), parts):
            packed = pack_groups([rollout.groups[i] for i in part], self.tokenizer.pad_token_id, self.context.device)
            for name, value in self.follow_gradient(packed, rewards[part], len(rollout.texts)).items():
                sums[name] = sums.get(name, torch.zeros(())) + value.cpu()
        return self._summarise(rollout, sums)

    def follow_gradient(self, packed: Packed, rewards: Tensor, responses: int) -> dict[str, Tensor]:
        """Add the gradients of some of a step's responses; losses are sums over tokens, means over responses.

        Args:
            packed: The responses.
            rewards: (prompts, responses per prompt) their rewards.
            responses: Responses of the whole step in this process.

        Returns:
            What to log, as sums that add up over the step.
        """
        config, accelerator = self.config, self.context.accelerator
        with self._autocast():
            with torch.no_grad(), self._as_reference() as reference:
                reference_logprobs = response_logprobs(reference, packed, config.temperature)  # (tokens,)
            logprobs = response_logprobs(self.policy, packed, config.temperature)  # (tokens,)
        k1, k3 = kl_estimates(logprobs.detach(), reference_logprobs)
        if self.value is None:
            advantages = leave_one_out_advantages(rewards, k1, packed, config.beta)
            loss, logged = torch.zeros((), device=k1.device), {}
        else:
            returns = objective_returns(rewards.flatten(), k1, packed, config.beta)  # (tokens,) Z_t
            with self._autocast():
                values = self.value(packed, packed.rows, packed.columns)  # (tokens,) V(X_t), X_t the state before A_t
            errors = returns - values
            loss, advantages = (errors**2).sum() / responses, errors.detach()
            logged = {
                "value_loss": loss.detach(),
                "_returns": returns.sum(),
                "_returns_squared": (returns**2).sum(),
                "_errors": advantages.sum(),
                "_errors_squared": (advantages**2).sum(),
            }
        policy_loss = -(logprobs * advantages).sum() / responses
        accelerator.backward(policy_loss + loss)
        return {
            "policy_loss": policy_loss.detach(),
            "kl_k1": k1.sum() / responses,
            "kl_k3": k3.sum() / responses,
            "_tokens": torch.tensor(float(len(k1))),
            **logged,
        }

    def roll_out(self, number: int) -> Rollout:
        """Sample this process's share of a step's responses and score them."""
        config, context, stage = self.config, self.context, self.stage
        accelerator = context.accelerator
        batch = my_share(accelerator, draw_batch(stage, len(self.prompts), config.prompts_per_step, number))
        prompts = [self.prompts[i] for i in batch]
        repeated = [p for p in prompts for _ in range(config.responses_per_prompt)]
        policy = accelerator.unwrap_model(self.policy)
        policy.eval()
        with self._autocast(only_full=True):
            samples = sample_responses(
                policy,
                self.tokenizer,
                [p.text for p in repeated],
                max_new_tokens=context.policy.max_new_tokens,
                temperature=config.temperature,
                seed=stage.seed("rollout", number, accelerator.process_index),
                budget=context.policy.batch_tokens,
            )
        policy.train()
        texts = [context.task.clean(s.text) for s in samples]
        scores = torch.tensor(list(self.reward.score(repeated, texts)), dtype=torch.float32, device=context.device)
        scaled = scores / self._reward_spread(number, scores) if config.scale_rewards else scores
        rewards = penalise_missing_eos(scaled, [s.finished for s in samples], config.missing_eos_penalty)
        ids = [encode_prompt(self.tokenizer, p.text) for p in prompts]
        groups = group_samples(ids, samples, config.responses_per_prompt)
        if stage.is_main:
            self._save_samples(number, repeated, texts, scores)
        return Rollout(repeated, samples, texts, scores, rewards, groups)

    def _reward_spread(self, number: int, scores: Tensor) -> float:
        """Standard deviation of the first step's scores, (responses,), over all processes; kept for a resume."""
        note = self.stage.checkpoint / "reward_spread.json"
        if number == 0:
            spread = float(self.context.accelerator.gather(scores).std(correction=0))
            self._spread = spread if spread > 0 else 1.0
            if self.stage.is_main:
                note.write_text(json.dumps(self._spread))
        if self._spread is None:
            self._spread = float(json.loads(note.read_text()))
        return self._spread

    def _save_samples(self, number: int, prompts: Sequence[Prompt], texts: Sequence[str], rewards: Tensor) -> None:
        folder = self.stage.folder / "samples"
        folder.mkdir(exist_ok=True)
        rows = zip(prompts, texts, rewards.tolist(), strict=True)
        write_rows(
            folder / f"step-{number + 1:05d}.jsonl", ({"prompt": p.id, "response": t, "reward": r} for p, t, r in rows)
        )

    def _summarise(self, rollout: Rollout, sums: dict[str, Tensor]) -> dict[str, float]:
        """Metrics of a step, averaged over processes."""
        tokens = sums.pop("_tokens")
        if self.value is not None:
            spread = _variance(sums.pop("_returns"), sums.pop("_returns_squared"), tokens)
            unexplained = _variance(sums.pop("_errors"), sums.pop("_errors_squared"), tokens)
            sums["value_explained"] = 1 - unexplained / spread if spread > 0 else torch.zeros(())
        reward = rollout.rewards.mean().cpu()
        return self._average(
            {
                "reward": rollout.scores.mean().cpu(),
                "objective": (1 - self.config.beta) * reward - self.config.beta * sums["kl_k1"],
                **sums,
                "tokens": tokens / len(rollout.texts),
                "ended": torch.tensor([float(s.finished) for s in rollout.samples]).mean(),
                **self._measure(rollout),
            }
        )

    def _measure(self, rollout: Rollout) -> dict[str, Tensor]:
        measured = [self.context.task.measure(p, t) for p, t in zip(rollout.prompts, rollout.texts, strict=True)]
        return {f"task/{key}": torch.tensor([m[key] for m in measured]).mean() for key in measured[0]}

    def _average(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        together = torch.stack([value.float().to(self.context.device) for value in metrics.values()])
        means = self.context.accelerator.reduce(together, reduction="mean")
        return dict(zip(metrics, means.tolist(), strict=True))

    def _autocast(self, only_full: bool = False) -> torch.autocast:
        """Compute in the policy's precision; adapters over a bf16 base need it in training only."""
        wanted = self.context.dtype != torch.float32 and not (only_full and self.context.policy.lora is not None)
        return torch.autocast(self.context.device.type, self.context.dtype, enabled=wanted)

    @contextmanager
    def _as_reference(self) -> Iterator[nn.Module]:
        """The policy as it was at the start: its adapters off, or the frozen copy."""
        if self.reference is not None:
            yield self.reference
            return
        policy = self.context.accelerator.unwrap_model(self.policy)
        assert isinstance(policy, PeftModel)
        with policy.disable_adapter():
            yield policy


def _variance(total: Tensor, squares: Tensor, count: Tensor) -> Tensor:
    return squares / count - (total / count) ** 2


def objective_returns(rewards: Tensor, k1: Tensor, packed: Packed, beta: float) -> Tensor:
    """Returns of J = (1 - beta) r - beta KL, undiscounted (RLAIF F, equation of the objective).

    The reward comes with the last token; each token pays -beta (log pi - log pi_SFT), so the return of token t holds
    the KL of t and of all later tokens of its response. What came before t does not depend on A_t.

    Args:
        rewards: (responses,) r(y|x).
        k1: (response tokens,) log pi - log pi_SFT.
        packed: Tells which token belongs to which response, in order.
        beta: Weight in [0, 1].

    Returns:
        (response tokens,) Z_t.
    """
    before = k1.cumsum(0) - k1  # KL of all tokens before this one, over responses laid end to end
    after_end = packed.per_response(k1).cumsum(0)[packed.owners]  # ... up to the end of its own response
    return (1 - beta) * rewards[packed.owners] - beta * (after_end - before)


def leave_one_out_advantages(rewards: Tensor, k1: Tensor, packed: Packed, beta: float) -> Tensor:
    """Advantages against the mean of the other responses to the same prompt (RLOO, Ahmadian et al. 2024, equation 4).

    The objective of a whole response is compared, KL included: (1 - beta) r - beta sum_t (log pi - log pi_SFT).

    Args:
        rewards: (prompts, responses per prompt), at least two responses each.
        k1: (response tokens,) log pi - log pi_SFT.
        packed: Tells which token belongs to which response, in order.
        beta: Weight in [0, 1].

    Returns:
        (response tokens,) the advantage of the token's response.
    """
    objective = (1 - beta) * rewards - beta * packed.per_response(k1).view_as(rewards)
    others = (objective.sum(1, keepdim=True) - objective) / (objective.shape[1] - 1)
    return (objective - others).flatten()[packed.owners]


def penalise_missing_eos(rewards: Tensor, finished: Sequence[bool], penalty: float) -> Tensor:
    """Take `penalty` off the reward of every response without an end token: (responses,) to (responses,)."""
    return rewards - penalty * torch.tensor([not f for f in finished], dtype=rewards.dtype, device=rewards.device)
