"""The spec: what a run does, as a tree of frozen, validated settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from rlaif_framework.config import Config
from rlaif_framework.errors import suggest
from rlaif_framework.plugins.slots import AlgorithmSlot, LabelerSlot, RewardSlot, TaskSlot, default_component

DType = Literal["auto", "fp32", "bf16"]


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


BASELINES = ("sft", "reference")


TAKEN = (*BASELINES, "judge", "evaluation", "tensorboard")
"""Names that runs use themselves, beside those of arms."""


class LoraSettings(Config):
    """Low-rank adapters (Hu et al. 2021), trained instead of all weights; merged when the model is saved."""

    rank: int = Field(16, ge=1)
    """Rank of each adapter."""
    alpha: float = Field(32.0, gt=0)
    """Scale: the adapter's output is multiplied by alpha / rank."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the linear modules that get an adapter."""
    last_layers: int | None = Field(None, ge=1)
    """Adapt only so many layers, counted from the end: gradients need not flow through the others. Default: all."""


class PolicyConfig(Config):
    """The model that is improved."""

    model: str
    """A hub id, a model folder, a GGUF file, or `package:NAME` for weights inside an installed Python package."""
    revision: str | None = None
    """Git revision of a hub model."""
    dtype: DType = "auto"
    """Compute precision: bf16 where the CPU or GPU has it (auto). Trained weights stay in fp32."""
    lora: LoraSettings | None = None
    """Train adapters instead of all weights."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""
    max_prompt_tokens: int = Field(512, ge=8)
    """Longer prompts have their source cut, never the cue (RLAIF: 1,024; Huang et al. 2024: 512)."""
    max_new_tokens: int = Field(128, ge=1)
    """Length of a response at most (RLAIF: 128)."""
    batch_tokens: int = Field(16384, ge=64)
    """Tokens at most in a batch that nothing is trained on (sampling, labelling, scoring), padding included."""
    train_tokens: int = Field(2048, ge=64)
    """Tokens at most in one forward and backward pass, padding included; gradients of a step's passes add up. Bounds
    the memory of activations, and changes results by no more than rounding. On a CPU larger passes are slower; on a GPU
    raise it until memory is used."""


class OptimizerConfig(Config):
    """Optimiser and learning rate of a training."""

    lr: float = Field(1e-5, gt=0)
    """Peak learning rate (RLAIF: 1e-5; Huang et al. 2024: 3e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning-rate schedule after the warm-up: constant, or decay to zero (Huang et al. 2024: cosine)."""
    adam_eps: float = Field(1e-8, gt=0)
    """Epsilon of AdamW (Huang et al. 2024: 1e-5)."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """AdamW, or Adafactor (RLAIF G), which keeps no moments of single weights and steps in proportion to their size."""


class SftConfig(OptimizerConfig):
    """Supervised fine-tuning on the task's reference responses (RLAIF A.1)."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the demonstrations."""
    warmup: float = Field(0.05, ge=0, le=1)
    """Share of the steps over which the learning rate rises (Huang et al. 2024: 0)."""
    batch_size: int = Field(16, ge=1)
    """Demonstrations per optimiser step (RLAIF: 128)."""
    loss: Literal["response", "all"] = "response"
    """Tokens that are learned: the response's, or the prompt's too (Huang et al. 2024: all)."""
    max_response_tokens: int | None = Field(None, ge=1)
    """Cut longer references to so many tokens, whose end is then not learned (RLAIF: 128; Huang et al. 2024: 53)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first so many demonstrations."""


class PairsConfig(Config):
    """Where the comparisons to label come from."""

    source: Literal["task", "policy", "both"] = "task"
    """The task's own comparisons (as in the paper), pairs sampled from the supervised baseline, or both."""
    limit: int | None = Field(None, ge=1)
    """Use at most so many of the task's comparisons, chosen at random with the seed."""
    prompts: int | None = Field(None, ge=1)
    """Sample from the policy for at most so many prompts."""
    responses: int = Field(2, ge=2)
    """Responses the policy samples to each prompt; all pairs of different ones are labelled (Ouyang et al. 2022)."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature of the policy's pairs."""


class AiFeedback(Config):
    """Preferences given by a labeler."""

    kind: Literal["ai"] = "ai"
    labeler: LabelerSlot
    """Who labels."""
    pairs: PairsConfig = PairsConfig()
    """What is labelled."""
    allow_weak_labels: bool = False
    """Train even if the labels' agreement with known preferences is not above chance (95 % interval)."""


class HumanFeedback(Config):
    """Preferences of human raters, as the task's comparisons carry them (the RLHF arm)."""

    kind: Literal["human"] = "human"
    labeler: LabelerSlot = default_component("human")
    """`human`, or `construction` for data whose preference is known because one response was written to be worse."""
    pairs: PairsConfig = PairsConfig()
    """What is labelled; sampled pairs have no human preference, so `source` must be `task`."""

    @model_validator(mode="after")
    def _check_source(self) -> HumanFeedback:
        if self.pairs.source != "task":
            raise ValueError("pairs.source must be 'task': nobody has rated responses sampled in this run")
        return self


def _narrow_feedback(value: object, info: ValidationInfo) -> object:
    """Accept the short form; a union by itself would put its tag into the paths of errors."""
    kinds: dict[str, type[Config]] = {"ai": AiFeedback, "human": HumanFeedback}
    if isinstance(value, AiFeedback | HumanFeedback):
        return value
    if not isinstance(value, str | Mapping):
        raise ValueError(f"expected 'human' or a mapping with 'kind', got {type(value).__name__}")
    settings = {"kind": value} if isinstance(value, str) else dict(value)
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"'kind' must be 'ai' or 'human', {'it is missing' if kind is None else f'got {kind!r}'}")
    return kinds[kind].model_validate(settings, context=info.context)


Feedback = Annotated[AiFeedback | HumanFeedback, Field(discriminator="kind"), BeforeValidator(_narrow_feedback)]


class Arm(Config):
    """One way of getting a policy: feedback, reward and algorithm."""

    feedback: Feedback | None = None
    """Where preferences come from. `human` is short for `{kind: human}`."""
    reward: RewardSlot | None = None
    """What scores responses. None for an algorithm that needs no reward, such as `dpo`."""
    algorithm: AlgorithmSlot
    """What improves the policy."""
    rounds: int = Field(1, ge=1)
    """Times to go round: each further round samples pairs from the policy so far, labels them, fits a new reward model
    and improves the policy again, with the policy so far as its start and KL reference."""

    @model_validator(mode="after")
    def _check_parts(self) -> Arm:
        reward, algorithm = self.reward, self.algorithm
        if reward is None and algorithm.needs_reward:
            raise ValueError(
                f"algorithm '{algorithm.kind}' improves a policy against a reward: state the arm's 'reward'"
            )
        if reward is not None and not algorithm.needs_reward:
            raise ValueError(f"algorithm '{algorithm.kind}' uses no reward: remove the arm's 'reward'")
        if algorithm.needs_reward_model and (reward is None or not reward.saves_model):
            raise ValueError(
                f"algorithm '{algorithm.kind}': value_from: reward needs a reward that is a trained model, such as "
                "'bradley-terry'; use value_from: sft"
            )
        trained = [part for part in (reward, algorithm) if part is not None and part.needs_preferences]
        if trained and self.feedback is None:
            slot = "reward" if trained[0] is reward else "algorithm"
            raise ValueError(f"{slot} '{trained[0].kind}' is trained on preferences: state the arm's 'feedback'")
        if not trained and self.feedback is not None:
            user = f"reward '{reward.kind}'" if reward is not None else f"algorithm '{algorithm.kind}'"
            raise ValueError(f"{user} uses no preferences: remove the arm's 'feedback'")
        if self.rounds > 1 and (self.feedback is None or self.feedback.pairs.source == "task"):
            raise ValueError(
                "rounds: every round labels pairs sampled from the policy so far; set feedback.pairs.source to "
                "'policy' or 'both'"
            )
        return self


class EvaluateConfig(Config):
    """How good the labels, the reward model and the policies are."""

    judge: LabelerSlot
    """Labeler that decides win rates. One that is, or shares a model with, an arm's labeler gets a warning."""
    matchups: list[tuple[str, str]] | None = None
    """Pairs of policies to compare: arms, `sft`, or `reference`. Default: every arm against `sft`, and all arms."""
    labelers: dict[Name, LabelerSlot] = Field({})
    """Further labelers, measured beside the arms' own on the validation comparisons."""
    prompts: int | None = Field(None, ge=1)
    """Test prompts at most, chosen at random with the seed."""
    comparisons: int | None = Field(None, ge=1)
    """Validation comparisons at most, chosen at random with the seed."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the responses compared; 0 is greedy."""
    show: int = Field(8, ge=0)
    """Sample responses shown in the report."""


def _check_requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]  # the lines after it point at a column
        raise ValueError(f"not a requirement such as 'rlaif-acme>=0.2': {reason}") from error
    return value


class Spec(Config):
    """A whole run. See docs/spec.md."""

    name: Name = "run"
    """Names the default run folder."""
    seed: int = Field(0, ge=0, strict=True)
    """The one seed; every random stream is derived from it."""
    requires: list[Annotated[str, AfterValidator(_check_requirement)]] = Field([])
    """Plugins that must be installed, as pip requirements, e.g. `rlaif-acme>=0.2`."""
    task: TaskSlot
    """The data and the words."""
    policy: PolicyConfig
    """The model that is improved."""
    sft: SftConfig | None = SftConfig()
    """Supervised fine-tuning first; null to start from the policy's model as it is."""
    arms: dict[Name, Arm] = Field({})
    """Ways of improving the policy, by name."""
    evaluate: EvaluateConfig | None = None
    """Evaluation; null for none."""

    @model_validator(mode="after")
    def _check_names(self) -> Spec:
        for name in self.arms:
            if name in TAKEN:
                raise ValueError(f"arms.{name}: the name '{name}' is taken; choose another")
        for name in self.evaluate.labelers if self.evaluate else ():
            if name in (*self.arms, "judge"):
                owner = "the judge" if name == "judge" else "an arm, whose labeler is measured anyway"
                raise ValueError(f"evaluate.labelers.{name}: the name is taken by {owner}; choose another")
        known = [*self.arms, *BASELINES]
        for pair in (self.evaluate and self.evaluate.matchups) or []:
            for name in pair:
                if name not in known:
                    raise ValueError(f"evaluate.matchups: no arm named '{name}'; {suggest(name, known)}")
            if pair[0] == pair[1]:
                raise ValueError(f"evaluate.matchups: '{pair[0]}' is compared with itself")
        return self

    def matchups(self) -> list[tuple[str, str]]:
        """The matchups asked for, or the default ones: each arm against `sft`, then arms against each other."""
        if self.evaluate is None:
            return []
        if self.evaluate.matchups is not None:
            return list(self.evaluate.matchups)
        arms = list(self.arms)
        return [(arm, "sft") for arm in arms] + [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]


def slug(name: str) -> str:
    """Make a file stem fit for a spec's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
