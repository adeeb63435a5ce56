"""The settings of a run, as a tree of frozen pydantic models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, ValidationInfo, model_validator

from rlaif_framework.config import Config
from rlaif_framework.data.paths import ModelName, SpecPath
from rlaif_framework.errors import name_type, suggest
from rlaif_framework.plugins.component import configs_in
from rlaif_framework.plugins.configs import AlgorithmConfig, LabelerConfig, MetricConfig, RewardConfig
from rlaif_framework.plugins.own_code import absolute_name, is_file
from rlaif_framework.plugins.slots import (
    AlgorithmSlot,
    LabelerSlot,
    MetricSlots,
    RewardSlot,
    TaskSlot,
    TrackerSlot,
    default_component,
    default_components,
)

MAX_NAME = 100
"""Maximum number of characters of a name. File systems allow 255, to which runs add theirs."""

DType = Literal["auto", "fp32", "bf16"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=MAX_NAME)]
"""A name that is also part of paths and of the names of metrics."""

PUBLISHED = "published"
"""Key of published results."""
LABELER_RESULTS = ("agreement", "same_position")
"""Beginnings of the names of a labeler's results, as `agreement/NAME`."""

REFERENCE = "reference"
"""Name of the reference responses in matchups."""

BATCH_TOKENS = 16384
"""Default of `policy.batch_tokens`."""

DEFAULT_PROMPTS, DEFAULT_COMPARISONS = 200, 500
"""Size of the evaluation of a spec that does not mention one."""

MEASURED = frozenset({"tokens", "eos_rate", "empty_rate", "repetition_rate"})
"""Names of what is measured on every sampled response."""

BASELINES = ("sft", REFERENCE)
"""Policies to compare with that are not arms: the supervised baseline, and the task's reference responses."""

RUN_FILES = (
    "run.json",
    "status.json",
    "spec.yaml",
    "environment.json",
    "report.html",
    "report.json",
    "report.md",
    "trackers.json",
)
"""Files that a run writes to its folder, beside the folders of its arms."""

TAKEN = (*BASELINES, *RUN_FILES, "judge", "evaluation", "tensorboard")
"""Names that arms cannot have, because runs use them."""


class LoraSettings(Config):
    """Settings of low-rank adapters (Hu et al. 2021). Adapters are merged into the weights when the model is saved."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(32.0, gt=0)
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the linear modules to adapt, or `all-linear` for all of them except heads."""
    last_layers: int | None = Field(None, ge=1)
    """Adapt only this many layers, counted from the last one, which saves the backward pass through the others. By
    default all layers are adapted."""


class PolicyConfig(Config):
    """Settings of the policy, the model that is trained."""

    model: ModelName
    """Hub id, model folder, GGUF file, or `package:NAME` for weights inside an installed Python package."""
    revision: str | None = None
    """Git revision of a hub model."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder or repository. It can do everything that you can, so read it first."""
    dtype: DType = "auto"
    """Compute precision. `auto` is bf16 if the CPU or GPU supports it natively, else fp32. Trained weights are always
    kept in fp32."""
    save_dtype: DType = "auto"
    """Precision of saved weights. `auto` is that in which they were trained: fp32 if all weights are trained, and with
    adapters, which are merged, that of `dtype`."""
    chat: Literal["auto", "template", "plain"] = "auto"
    """Format of prompts and responses, also for reward and value models: the turns of the tokenizer's chat template, or
    plain text. `auto` is the template if the tokenizer has one. Base models of some families have a template that they
    were not trained with: set `plain` for these."""
    lora: LoraSettings | None = None
    """Train low-rank adapters with these settings. By default all weights are trained."""
    gradient_checkpointing: bool = False
    """If True, recompute activations in the backward pass. Saves memory and takes about a third more time."""
    max_prompt_tokens: int = Field(512, ge=8)
    """Maximum length of a prompt in tokens. In longer prompts the source is truncated, never the cue (RLAIF: 1,024;
    Huang et al. 2024: 512)."""
    max_new_tokens: int = Field(128, ge=1)
    """Maximum length of a response in tokens (RLAIF: 128)."""
    batch_tokens: int = Field(BATCH_TOKENS, ge=64)
    """Maximum number of tokens in a batch for sampling, labelling and scoring, padding included."""
    train_tokens: int = Field(2048, ge=64)
    """Maximum number of tokens in one forward and backward pass of training, padding included. A step accumulates the
    gradients of its passes, so this bounds the memory of activations and changes results only by rounding. On a GPU,
    raise it until the memory is used; on a CPU, larger passes are slower."""


class OptimizerConfig(Config):
    """Settings of the optimiser and the learning rate."""

    lr: float = Field(1e-5, gt=0)
    """Peak learning rate (RLAIF: 1e-5; Huang et al. 2024: 3e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning-rate schedule after the warm-up: constant, or decay to zero (Huang et al. 2024: cosine)."""
    adam_eps: float = Field(1e-8, gt=0)
    """Epsilon of AdamW (Huang et al. 2024: 1e-5)."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """Optimiser: AdamW, or Adafactor (RLAIF G), which needs less memory and scales updates by the size of the
    weights."""


class SftConfig(OptimizerConfig):
    """Settings of supervised fine-tuning on the task's reference responses (RLAIF A.1)."""

    epochs: float = Field(1.0, gt=0)
    """Number of passes over the demonstrations."""
    warmup: float = Field(0.05, ge=0, le=1)
    """Fraction of the steps used for linear warm-up (Huang et al. 2024: 0)."""
    batch_size: int = Field(16, ge=1)
    """Number of demonstrations per optimiser step (RLAIF: 128)."""
    loss: Literal["response", "all"] = "response"
    """Tokens in the loss: those of the response, or those of the prompt as well (Huang et al. 2024: all)."""
    max_response_tokens: int | None = Field(None, ge=1)
    """Truncate references to this many tokens; the EOS token is then not trained (RLAIF: 128; Huang et al. 2024:
    53)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first `limit` demonstrations."""


class PairsConfig(Config):
    """Settings of the comparisons to label."""

    source: Literal["task", "policy", "both"] = "task"
    """Source of the comparisons: those of the task (as in the paper), pairs sampled from the supervised baseline, or
    both."""
    limit: int | None = Field(None, ge=1)
    """Maximum number of the task's comparisons, chosen at random with the seed. By default all are used."""
    prompts: int | None = Field(None, ge=1)
    """Maximum number of prompts to sample pairs for. By default all training prompts are used."""
    responses: int = Field(2, ge=2)
    """Number of responses sampled per prompt. All pairs of distinct responses are labelled (Ouyang et al. 2022)."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature of the policy."""


class AiFeedback(Config):
    """Feedback from a labeler."""

    kind: Literal["ai"] = "ai"
    labeler: LabelerSlot
    """The labeler."""
    pairs: PairsConfig = PairsConfig()
    """The comparisons to label."""
    allow_weak_labels: bool = False
    """If True, train even if the labels' agreement with gold preferences is not significantly above chance (95 %
    interval), or if the mean probability mass on the label tokens is below 0.01. Training on chance-level labels is
    useless or harmful, so by default the run stops."""


class HumanFeedback(Config):
    """Feedback from human annotators, copied from the task's comparisons (RLHF)."""

    kind: Literal["human"] = "human"
    labeler: LabelerSlot = default_component("human")
    """The labeler: `human`, or `synthetic` for data in which one response was written to be worse."""
    pairs: PairsConfig = PairsConfig()
    """The comparisons to label. `source` must be `task`, because sampled pairs have no human preference."""

    @model_validator(mode="after")
    def _check_source(self) -> HumanFeedback:
        if self.pairs.source != "task":
            raise ValueError("pairs.source must be 'task': responses sampled in this run have no human preference")
        return self


def _narrow_feedback(value: object, info: ValidationInfo) -> object:
    """Expand the shorthand, and pick the model by its kind: pydantic would put the tag of a union into error paths."""
    kinds: dict[str, type[Config]] = {"ai": AiFeedback, "human": HumanFeedback}
    if isinstance(value, AiFeedback | HumanFeedback):
        return value
    if not isinstance(value, str | Mapping):
        raise ValueError(f"expected 'human' or a mapping with 'kind', got {name_type(value)}")
    settings = {"kind": value} if isinstance(value, str) else dict(value)
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"'kind' must be 'ai' or 'human', {'it is missing' if kind is None else f'got {kind!r}'}")
    return kinds[kind].model_validate(settings, context=info.context)


Feedback = Annotated[AiFeedback | HumanFeedback, Field(discriminator="kind"), BeforeValidator(_narrow_feedback)]


class Arm(Config):
    """One way of training a policy: feedback, reward and algorithm."""

    feedback: Feedback | None = None
    """Source of the preferences. `human` is shorthand for `{kind: human}`."""
    reward: RewardSlot | None = None
    """The reward that scores responses. Leave it out for an algorithm that needs none, such as `dpo`."""
    algorithm: AlgorithmSlot | None = None
    """The algorithm that trains the policy. Without it, the arm ends at its labels, or at its reward, which are then
    only measured."""
    rounds: int = Field(1, ge=1)
    """Number of rounds. Each further round samples pairs from the current policy, labels them, fits a new reward model
    and trains the policy again, with the current policy as initial policy and KL reference."""

    @model_validator(mode="after")
    def _check_parts(self) -> Arm:
        reward, algorithm = self.reward, self.algorithm
        if algorithm is not None:
            _check_reward(algorithm, reward)
        elif reward is None and self.feedback is None:
            raise ValueError(
                "the arm is empty: set 'feedback' for labels, also 'reward' for a reward model, and 'algorithm' to "
                "train a policy"
            )
        elif self.rounds > 1:
            raise ValueError("rounds: every round trains a policy; set the arm's 'algorithm', or remove 'rounds'")
        trained = [part for part in (reward, algorithm) if part is not None and part.needs_preferences]
        if trained and self.feedback is None:
            slot = "reward" if trained[0] is reward else "algorithm"
            raise ValueError(f"{slot} '{trained[0].kind}' is trained on preferences: set the arm's 'feedback'")
        user = next(
            (f"{slot} '{part.kind}'" for slot, part in (("reward", reward), ("algorithm", algorithm)) if part), ""
        )
        if user and not trained and self.feedback is not None:
            raise ValueError(f"{user} uses no preferences: remove the arm's 'feedback'")
        if self.rounds > 1 and (self.feedback is None or self.feedback.pairs.source == "task"):
            raise ValueError(
                "rounds: every round labels pairs sampled from the current policy; set feedback.pairs.source to "
                "'policy' or 'both'"
            )
        return self


def _check_reward(algorithm: AlgorithmConfig, reward: RewardConfig | None) -> None:
    """Check that an arm has a reward if and only if its algorithm needs one."""
    if reward is None and algorithm.needs_reward:
        raise ValueError(f"algorithm '{algorithm.kind}' needs a reward: set the arm's 'reward'")
    if reward is not None and not algorithm.needs_reward:
        raise ValueError(f"algorithm '{algorithm.kind}' uses no reward: remove the arm's 'reward'")
    if algorithm.needs_reward_model and (reward is None or not reward.saves_model):
        raise ValueError(
            f"algorithm '{algorithm.kind}': value_from: reward needs a reward that is a trained model, such as "
            "'bradley-terry'; use value_from: sft"
        )


def _drop_removed(items: object) -> object:
    return {name: item for name, item in items.items() if item is not None} if isinstance(items, Mapping) else items


_NamedLabelers = Annotated[
    dict[Name, LabelerSlot], BeforeValidator(_drop_removed, json_schema_input_type=dict[Name, LabelerSlot | None])
]


class EvaluateConfig(Config):
    """Settings of the evaluation of labels, reward models and policies."""

    judge: LabelerSlot | None = None
    """Labeler that decides win rates. By default the first of those that the task suggests that no arm learns from
    and that has what it needs; if there is none, there are no win rates. A judge that shares a model with an arm's
    labeler is reported with a warning."""
    judges: _NamedLabelers = Field({})
    """Additional judges, by name: every win rate is also reported by each of them. Null removes one of a spec below."""
    human_labels: SpecPath | None = None
    """File or folder with human labels of some of the pairs of responses that the judges compare, in a form that
    `rlaif label` reads. Every win rate is then also corrected for the errors of its judge. The pairs must be a random
    sample, such as the first rows of `evaluation/summary/pairs/A-vs-B.jsonl` in the folder of an earlier run."""
    matchups: list[tuple[str, str]] | None = None
    """Pairs of policies to compare: names of arms, `sft`, or `reference`. By default every arm that trains a policy is
    compared with `sft` and with every other one."""
    labelers: _NamedLabelers = Field({})
    """Additional labelers to measure on the validation comparisons, by name. Those of the arms are always measured.
    Null removes one of a spec below."""
    metrics: MetricSlots = Field([])
    """Metrics of the responses, besides those of the task. They may use models, and responses are not sampled again
    for them."""
    prompts: int | None = Field(None, ge=1)
    """Maximum number of test prompts, chosen at random with the seed. By default all are used."""
    comparisons: int | None = Field(None, ge=1)
    """Maximum number of validation comparisons, chosen at random with the seed. By default all are used."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the compared responses; 0 is greedy decoding."""
    responses: int = Field(1, ge=1)
    """Number of responses of each policy to each test prompt, sampled at `temperature`. Intervals take into account
    that responses to the same prompt are not independent."""
    show: int = Field(8, ge=0)
    """Number of test prompts that `report.json`, trackers and a report without JavaScript show; the sample browser of
    the report has all."""

    @model_validator(mode="after")
    def _check_responses(self) -> EvaluateConfig:
        if self.responses > 1 and self.temperature == 0:
            raise ValueError("responses: greedy decoding gives equal responses; set 'temperature' above 0")
        return self

    def named_judges(self) -> dict[str, LabelerConfig]:
        """Return the judges by name; the main one, which is called `judge`, may be missing."""
        return {**({"judge": self.judge} if self.judge is not None else {}), **self.judges}


def _check_requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]  # the following lines only mark a column
        raise ValueError(f"not a requirement such as 'rlaif-acme>=0.2': {reason}") from error
    if requirement.url:
        raise ValueError("name a package and its versions, such as 'rlaif-acme>=0.2', without an address")
    return value


def _check_plugin(value: str) -> str:
    if not is_file(value):
        raise ValueError(
            f"'{value}' is not the name of a Python file, such as my_rewards.py; list packages in requires"
        )
    return absolute_name(value)


class PublishedConfig(Config):
    """Results of a publication."""

    source: str = Field(min_length=1)
    """Where they were published, such as `RLAIF v2, Table 1`."""
    results: dict[str, FiniteFloat] = Field({})
    """Values by the names that trackers get, such as `win_rate/rlaif-vs-sft: 0.71`. Rates are between 0 and 1."""


class LabelersFile(Config):
    """Several labelers to compare, and published results of some of them."""

    labelers: dict[Name, LabelerSlot]
    published: list[PublishedConfig] = Field([])
    """`agreement/NAME` and `same_position/NAME`."""

    @model_validator(mode="after")
    def _check_published(self) -> Self:
        known = {f"{measure}/{name}" for measure in LABELER_RESULTS for name in self.labelers}
        unknown = [name for table in self.published for name in table.results if name not in known]
        if unknown:
            forms = " or ".join(f"{measure}/NAME" for measure in LABELER_RESULTS)
            raise ValueError(f"published.results.{unknown[0]}: expected {forms}, with the name of a labeler")
        return self


class Spec(Config):
    """Settings of a run. See docs/spec.md."""

    name: Name = "run"
    """Name of the run, used for the default run folder. By default the name of the file."""
    seed: int = Field(0, ge=0, strict=True)
    """Seed from which all random streams are derived."""
    evaluation_seed: int | None = Field(None, ge=0, strict=True)
    """Seed that chooses the test prompts and the validation comparisons of the evaluation, by default `seed`. Runs with
    different seeds that are compared need it in common; those of a family have it."""
    requires: list[Annotated[str, AfterValidator(_check_requirement)]] = Field([])
    """Plugins that must be installed, as pip requirements such as `rlaif-acme>=0.2`."""
    plugins: list[Annotated[str, AfterValidator(_check_plugin)]] = Field([])
    """Python files that implement hooks, as installed plugins do, such as `my_rewards.py`, relative to the spec. They
    are loaded only if you allow it, by `--plugin` or `--trust-local`."""
    task: TaskSlot
    """The task: data and annotator prompts."""
    policy: PolicyConfig
    """The model to train."""
    sft: SftConfig | None = SftConfig()
    """Supervised fine-tuning before the arms; null to start from the policy's model directly."""
    arms: Annotated[dict[Name, Arm], BeforeValidator(_drop_removed, json_schema_input_type=dict[Name, Arm | None])] = (
        Field({})
    )
    """Ways of training the policy, by name; null removes an arm of a spec below."""
    evaluate: EvaluateConfig | None = EvaluateConfig(prompts=DEFAULT_PROMPTS, comparisons=DEFAULT_COMPARISONS)
    """Evaluation at the end, by default on at most 200 test prompts and 500 validation comparisons; null for none."""
    trackers: list[TrackerSlot] = default_components("tensorboard")
    """Experiment trackers that get settings, metrics and results while the run goes on; an empty list for none. They
    change no result."""
    published: PublishedConfig | None = None
    """Results of a publication, which the report sets beside those of the run. They change no result."""

    @model_validator(mode="after")
    def _check_names(self) -> Spec:
        for name in self.arms:
            if name.lower() in TAKEN:  # some file systems ignore the case of names
                raise ValueError(f"arms.{name}: the name '{name}' is reserved; choose another")
        self._check_labeler_names()
        self._check_metric_names()
        self._check_trackers()
        known = [*(name for name, arm in self.arms.items() if arm.algorithm), *BASELINES]
        for pair in (self.evaluate and self.evaluate.matchups) or []:
            for name in pair:
                if name in self.arms and name not in known:
                    raise ValueError(f"evaluate.matchups: arm '{name}' has no 'algorithm', so it trains no policy")
                if name not in known:
                    raise ValueError(f"evaluate.matchups: no arm named '{name}'; {suggest(name, known)}")
            if pair[0] == pair[1]:
                raise ValueError(f"evaluate.matchups: '{pair[0]}' is compared with itself")
        return self

    def _check_labeler_names(self) -> None:
        """Check that the evaluation's labelers, which are reported by name, have names of their own."""
        taken = {"judge": "the judge"} | dict.fromkeys(self.arms, "an arm, whose labeler is measured anyway")
        judges, labelers = (self.evaluate.judges, self.evaluate.labelers) if self.evaluate else ({}, {})
        for slot, names in (("judges", judges), ("labelers", labelers)):
            for name in names:
                if name in taken:
                    raise ValueError(f"evaluate.{slot}.{name}: the name is taken by {taken[name]}; choose another")
                taken[name] = "an additional judge, which is measured anyway"

    def _check_metric_names(self) -> None:
        """Check that the metrics of the evaluation have other names than those that are measured anyway."""
        task = [metric for _, value in self.task for metric in configs_in(value) if isinstance(metric, MetricConfig)]
        taken = MEASURED | {name for metric in task for name in metric.names}
        for number, metric in enumerate(self.evaluate.metrics if self.evaluate else []):
            for name in metric.names:
                if name in taken:
                    raise ValueError(f"evaluate.metrics.{number}: '{name}' is measured anyway; remove the metric")

    def _check_trackers(self) -> None:
        for i, tracker in enumerate(self.trackers):
            if tracker in self.trackers[:i]:
                raise ValueError(f"trackers: '{tracker.kind}' is listed twice with the same settings; remove one")

    def matchups(self) -> list[tuple[str, str]]:
        """Return the matchups of the evaluation, or the default ones: arms against `sft`, then against each other."""
        if self.evaluate is None:
            return []
        if self.evaluate.matchups is not None:
            return list(self.evaluate.matchups)
        arms = [name for name, arm in self.arms.items() if arm.algorithm is not None]
        return [(arm, "sft") for arm in arms] + [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]

    @property
    def has_policies(self) -> bool:
        """True if a policy is trained or compared: False if all arms end at their labels or rewards."""
        return not self.arms or any(arm.algorithm is not None for arm in self.arms.values()) or bool(self.matchups())


def slug(name: str) -> str:
    """Convert a file stem to a valid spec name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:MAX_NAME] or "run"
