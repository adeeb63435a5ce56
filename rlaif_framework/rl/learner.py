"""The models of an online algorithm: the policy it trains, the frozen initial one, and perhaps a value model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif_framework.errors import TrainingError
from rlaif_framework.jsonl import write_rows
from rlaif_framework.losses import selective_logprobs, token_entropies
from rlaif_framework.models import add_lora, checkpoint_gradients, load_model, load_tokenizer, save_model, share_weights
from rlaif_framework.packing import Group, Packed, lay_out, pack_groups
from rlaif_framework.policy import (
    Sample,
    encode_prompt,
    group_samples,
    response_logits,
    response_logprobs,
    sample_responses,
)
from rlaif_framework.protocols import Reward, TermedReward
from rlaif_framework.rl.estimators import replace_missing_eos
from rlaif_framework.rl.settings import GaeConfig, LearnerConfig, MissingEosConfig, OnlineConfig, ValueConfig
from rlaif_framework.scoring import ScoreModel, check_scores, score_responses
from rlaif_framework.stage import Stage
from rlaif_framework.training import draw_batch, make_optimizer, my_share
from rlaif_framework.types import Prompt


@dataclass(frozen=True, slots=True)
class Rollout:
    """Responses sampled in one step by this process; lists are over responses, prompt by prompt."""

    prompts: list[Prompt]
    """The prompt of each response."""
    samples: list[Sample]
    texts: list[str]
    """The responses, tidied by the task."""
    groups: list[Group]
    """Token ids, one group a prompt."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [len(response) for group in self.groups for response in group.responses]

    @property
    def finished(self) -> Tensor:
        """(responses,) bool: the end token was reached."""
        return torch.tensor([s.finished for s in self.samples])


class ValueModel(nn.Module):
    """V(X_t): a score at every position, plus a level, set so that the first responses' values are right on average.

    A reward model's level is arbitrary. A value model that had to climb there first would, for as long as it took, push
    all responses the same way, good and bad alike.
    """

    def __init__(self, scores: ScoreModel) -> None:
        super().__init__()
        self.scores = scores
        self.level = nn.Parameter(torch.zeros((), device=next(scores.parameters()).device))

    def raise_level(self, by: Tensor) -> None:
        """Shift all values."""
        with torch.no_grad():
            self.level.add_(by)

    def forward(self, packed: Packed, ends: bool = False) -> Tensor:
        """Values of the states before each response token, and then after each response if `ends`; fp32, flat."""
        rows, columns = packed.rows, packed.columns
        if ends:
            rows, columns = torch.cat([rows, packed.ends[:, 0]]), torch.cat([columns, packed.ends[:, 1]])
        values: Tensor = self.scores(packed, rows, columns) + self.level
        return values


class Learner:
    """Holds the models of an online algorithm, samples from the policy, and reads log-probabilities and values.

    With adapters, policy, reference and value model are three trees of modules over one copy of the base weights.
    """

    def __init__(
        self,
        config: LearnerConfig,
        stage: Stage,
        initial: Path,
        reward_folder: Path | None = None,
        value: bool = False,
    ) -> None:
        """Load the models.

        Args:
            config: The algorithm's settings.
            stage: Gives context, seeds and the folder for samples.
            initial: Folder of the initial policy.
            reward_folder: A reward model's folder, for a value model that starts from it.
            value: Whether there is a value model; `config` is then a `ValueConfig`.
        """
        self.config, self.stage, self.context = config, stage, stage.context
        self.temperature = config.temperature if isinstance(config, OnlineConfig) else 1.0
        """Sampling temperature, at which log-probabilities are taken too."""
        self.accelerator: Accelerator = self.context.accelerator
        self.tokenizer = load_tokenizer(initial)
        lora, device = self.context.policy.lora, self.context.device
        weights = torch.float32 if lora is None else self.context.dtype
        base = load_model(initial, "causal", weights, device)
        modules: dict[str, nn.Module] = {}
        rates = {"policy": config.lr}
        if value:
            assert isinstance(config, ValueConfig)
            modules["value"] = ValueModel(self._load_scores(config, initial, reward_folder, base))
            rates["value"] = config.value_lr or config.lr
        if lora is None:
            dtype = {"policy": weights, "fp32": torch.float32, "bf16": torch.bfloat16}[config.reference_dtype]
            where = device if config.reference_device == "policy" else torch.device("cpu")
            self.reference = load_model(initial, "causal", dtype, where)
            modules["policy"] = base
        else:
            self.reference = share_weights(base)
            modules["policy"] = add_lora(base, lora, "CAUSAL_LM")
        self.reference.requires_grad_(False)
        if self.context.policy.gradient_checkpointing:
            for module in modules.values():
                checkpoint_gradients(module)
        groups = [
            {"params": [p for p in modules[name].parameters() if p.requires_grad], "lr": rate}
            for name, rate in rates.items()
        ]
        optimizer = make_optimizer(groups, config.lr, config.adam_eps, config.optimizer)
        *prepared, self.optimizer = self.accelerator.prepare(*(modules[name] for name in rates), optimizer)
        self.modules: dict[str, nn.Module] = dict(zip(rates, prepared, strict=True))
        """What is trained: `policy`, and `value` if there is a value model."""
        self.policy = self.modules["policy"]
        self.value = self.modules.get("value")
        for module in self.modules.values():
            module.train()  # a model in evaluation mode recomputes nothing, whatever is asked for

    def _load_scores(
        self, config: ValueConfig, initial: Path, reward_folder: Path | None, base: PreTrainedModel
    ) -> ScoreModel:
        context, lora = self.context, self.context.policy.lora
        if config.value_from == "sft" and lora is not None:
            return ScoreModel.over(base, lora)
        source = initial if config.value_from == "sft" else reward_folder
        if source is None or not (source / "config.json").exists():
            raise TrainingError("value_from: reward needs a reward that is a trained model; use value_from: sft")
        tokenizer = load_tokenizer(source)
        if not self.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items():
            raise TrainingError("value_from: the reward model's tokenizer is not the policy's; use value_from: sft")
        return ScoreModel.load(source, tokenizer, context.dtype, context.device, lora, train=True)

    def sample(self, pool: Sequence[Prompt], number: int) -> Rollout:
        """Sample this process's share of a step's responses to prompts from a pool."""
        config, context, stage = self.config, self.context, self.stage
        assert isinstance(config, OnlineConfig)
        batch = my_share(self.accelerator, draw_batch(stage, len(pool), config.prompts_per_step, number))
        prompts = [pool[i] for i in batch]
        repeated = [p for p in prompts for _ in range(config.responses_per_prompt)]
        samples = self.respond(
            [p.text for p in repeated],
            self.temperature,
            stage.seed("rollout", number, self.accelerator.process_index),
        )
        texts = [context.task.clean(s.text) for s in samples]
        ids = [encode_prompt(self.tokenizer, p.text) for p in prompts]
        return Rollout(repeated, samples, texts, group_samples(ids, samples, config.responses_per_prompt))

    def respond(self, prompts: Sequence[str], temperature: float, seed: int) -> list[Sample]:
        """Let the policy as it is respond to prompts."""
        policy = self.accelerator.unwrap_model(self.policy)
        policy.eval()
        # Adapters over a bf16 base are merged for sampling; only a policy kept in fp32 needs to be cast.
        with self.autocast(enabled=self.context.policy.lora is None):
            samples = sample_responses(
                policy,
                self.tokenizer,
                prompts,
                max_new_tokens=self.context.policy.max_new_tokens,
                temperature=temperature,
                seed=seed,
                budget=self.context.policy.batch_tokens,
            )
        policy.train()
        return samples

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Compute in the policy's precision."""
        dtype = self.context.dtype
        return torch.autocast(self.context.device.type, dtype, enabled=enabled and dtype != torch.float32)

    def pack(self, groups: Sequence[Group]) -> Packed:
        """Put groups into one batch on this process's device."""
        return pack_groups(lay_out(groups), self.tokenizer.pad_token_id, self.context.device)

    def read_policy(self, packed: Packed, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of the response tokens at the sampling temperature, and their entropies if wanted."""
        with self.autocast():
            logits = response_logits(self.policy, packed)
        logprobs = selective_logprobs(logits, packed.targets, self.temperature)
        return logprobs, token_entropies(logits, self.temperature) if entropy else None

    @torch.no_grad()
    def read_reference(self, packed: Packed) -> Tensor:
        """Log-probabilities of the response tokens under the initial policy, (response tokens,)."""
        device = self.reference.device
        with self.autocast(enabled=device.type == self.context.device.type):
            logprobs = response_logprobs(self.reference, packed.to(device), self.temperature)
        return logprobs.to(self.context.device)

    def read_values(self, packed: Packed) -> tuple[Tensor | None, Tensor | None]:
        """Values of the states before the response tokens, (response tokens,), and after the responses, (responses,).

        None without a value model; the latter None if `end_value` is off.
        """
        if self.value is None:
            return None, None
        ends = isinstance(self.config, GaeConfig) and self.config.end_value
        with self.autocast():
            values: Tensor = self.value(packed, ends)
        tokens = len(packed.targets)
        return values[:tokens], values[tokens:] if ends else None

    def save_samples(self, number: int, rollout: Rollout, columns: dict[str, Sequence[float]]) -> None:
        """Write a step's responses with what was said of them, for reading."""
        assert isinstance(self.config, OnlineConfig)
        if not self.stage.is_main or number % self.config.samples_every:
            return
        folder = self.stage.folder / "samples"
        folder.mkdir(exist_ok=True)
        write_rows(
            folder / f"step-{number + 1:05d}.jsonl",
            (
                {"prompt": p.id, "response": t, **{key: column[i] for key, column in columns.items()}}
                for i, (p, t) in enumerate(zip(rollout.prompts, rollout.texts, strict=True))
            ),
        )

    def save(self) -> None:
        """Save the policy as the stage's result."""
        if self.stage.is_main:
            save_model(
                self.accelerator.unwrap_model(self.policy), self.tokenizer, self.stage.folder, self.context.dtype
            )


class Tally:
    """Means over what several batches and processes contribute."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, name: str, values: Tensor, count: float | None = None) -> None:
        """Add values of any shape; `count` of them if they are sums of more or fewer."""
        entry = self._sums.setdefault(name, [0.0, 0.0])
        entry[0] += float(values.detach().sum())
        entry[1] += values.numel() if count is None else count

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean of everything added under each name, over all processes; 0 where it was nothing."""
        table = torch.tensor(list(self._sums.values()), dtype=torch.float32, device=accelerator.device)
        table = accelerator.reduce(table, reduction="sum")
        return {name: float(row[0] / row[1]) if row[1] else 0.0 for name, row in zip(self._sums, table, strict=True)}


def describe_rollout(rollout: Rollout, stage: Stage, tally: Tally) -> None:
    """Tally lengths, ended responses and the task's own measures."""
    tally.add("tokens", torch.tensor(rollout.lengths, dtype=torch.float32))
    tally.add("ended", rollout.finished.float())
    measured = [stage.task.measure(p, t) for p, t in zip(rollout.prompts, rollout.texts, strict=True)]
    for key in measured[0]:
        tally.add(f"task/{key}", torch.tensor([m[key] for m in measured]))


def score_rollout(reward: Reward, rollout: Rollout, tally: Tally) -> Tensor:
    """Score responses, (responses,) fp32; the terms of a reward that has several are tallied.

    Raises:
        TrainingError: A score is not a finite number; the prompt is named.
    """
    if isinstance(reward, TermedReward):
        terms = reward.score_terms(rollout.prompts, rollout.texts)
        for name, values in terms.items():
            tally.add(f"reward/{name}", torch.tensor(list(values), dtype=torch.float32))
        scores = [sum(parts) for parts in zip(*terms.values(), strict=True)]
        check_scores(scores, rollout.prompts, rollout.texts)
    else:
        scores = score_responses(reward, rollout.prompts, rollout.texts)
    return torch.tensor(scores, dtype=torch.float32)


def penalise_missing_eos(config: MissingEosConfig, scores: Tensor, rollout: Rollout, tally: Tally) -> Tensor:
    """Scores, (responses,), after what `config` says of responses without an end token; the change is tallied."""
    if not config.missing_eos_penalty and config.missing_eos_reward is None:
        return scores
    finished = rollout.finished.to(scores.device)
    changed = replace_missing_eos(scores, finished, config.missing_eos_penalty, config.missing_eos_reward)
    tally.add("reward/missing_eos", changed - scores)
    return changed
