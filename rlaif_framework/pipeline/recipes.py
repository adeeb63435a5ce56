"""The recipes of all stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlaif_framework.pipeline.steps import Recipe, Step, TaskScope
from rlaif_framework.plugins.component import ModelLoad, find_unused_policy_settings
from rlaif_framework.plugins.configs import AlgorithmConfig, LabelerConfig, MetricConfig, RewardConfig
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.spec.model import EvaluateConfig, PairsConfig, PolicyConfig, SftConfig

WORK = "rlaif_framework.pipeline.stages"

TRAINING = frozenset({"lora", "train_tokens", "save_dtype"})
"""Settings of the policy that matter only where something is trained."""
SAMPLING = frozenset({"max_new_tokens", "batch_tokens"})
"""Settings of the policy that matter only where something is sampled, labelled or scored."""
ALL = frozenset(PolicyConfig.model_fields)


def _unused_by(config: LabelerConfig | MetricConfig, policy: str) -> frozenset[str]:
    """Return the settings of the policy that a labeler or a metric does not use."""
    unused, models = find_unused_policy_settings(config), {load.model for load in config.loads(policy)}
    # It may have the policy's model as its own; one without a local model has no batches.
    unused |= frozenset() if policy in models else {"model"}
    return unused if models else unused | {"batch_tokens"}


@dataclass(frozen=True)
class ArmLabels:
    """The labels that an arm learns from."""

    sample: Step
    """The comparisons."""
    label: Step
    """Their preferences."""


@dataclass(frozen=True, kw_only=True)
class SftRecipe(Recipe):
    """Fine-tune the baseline on the reference responses of the training prompts."""

    stage = "sft"
    work = f"{WORK}.sft:train_baseline"
    distributed = True
    sft: SftConfig | None
    """None saves the policy's model unchanged."""
    prompts: Sequence[Prompt]
    task: TaskScope = TaskScope.CODE

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those of batches; without training, also those of training data."""
        # The saved generation config has the length limit.
        return frozenset({"batch_tokens"} if self.sft else {"batch_tokens", "train_tokens", "max_prompt_tokens"})

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy, trained unless `sft` is None."""
        if self.sft is None:
            return [ModelLoad(policy, "policy", groups=1)]
        return [ModelLoad(policy, "policy", trained=True, groups=self.sft.batch_size, optimizer=self.sft.optimizer)]


@dataclass(frozen=True, kw_only=True)
class SampleRecipe(Recipe):
    """Gather the comparisons to be labelled: the task's own, sampled ones, or both."""

    stage = "sample"
    work = f"{WORK}.sample:gather_pairs"
    pairs: PairsConfig
    policy: Step | None
    """The policy that is sampled from; None for pairs of the task only."""
    comparisons: Sequence[Comparison]
    prompts: Sequence[Prompt]
    task: TaskScope = TaskScope.SETTINGS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those of training; without sampling, also those of sampling."""
        return TRAINING if self.policy is not None else TRAINING | SAMPLING | {"dtype"}

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy, if responses are sampled from it."""
        return [ModelLoad(policy, "policy")] if self.pairs.source != "task" else []


@dataclass(frozen=True, kw_only=True)
class LabelerRecipe(Recipe):
    """Base of the recipes that label comparisons."""

    stage = "label"
    labeler: LabelerConfig
    task: TaskScope = TaskScope.ANNOTATOR_PROMPTS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those that the labeler does not use."""
        return _unused_by(self.labeler, policy)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the labeler's models."""
        return self.labeler.loads(policy)


@dataclass(frozen=True, kw_only=True)
class LabelRecipe(LabelerRecipe):
    """Label the comparisons of an arm, and measure the agreement with gold preferences for the gate."""

    work = f"{WORK}.gate:label_arm"
    sample: Step
    validation: Sequence[Comparison]


@dataclass(frozen=True, kw_only=True)
class GateRecipe(Recipe):
    """Stop the run if the labels of an arm do not agree with gold preferences better than chance."""

    stage = "gate"
    work = f"{WORK}.gate:check_labels"
    label: Step

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return all: the result depends on the labels only."""
        return ALL


@dataclass(frozen=True, kw_only=True)
class LabelHeldOutRecipe(LabelerRecipe):
    """Label held-out comparisons, to measure a labeler."""

    work = f"{WORK}.evaluate:label_held_out"
    comparisons: Sequence[Comparison]


@dataclass(frozen=True, kw_only=True)
class RewardRecipe(Recipe):
    """Fit the reward model of an arm."""

    stage = "reward"
    work = f"{WORK}.improve:fit_reward"
    distributed = True
    reward: RewardConfig
    sft: Step | None
    """None for a reward that does not start from the baseline."""
    labels: ArmLabels | None
    task: TaskScope = TaskScope.ANNOTATOR_PROMPTS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those that the reward does not use."""
        return find_unused_policy_settings(self.reward)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the reward's models."""
        return self.reward.loads(policy)


@dataclass(frozen=True)
class FittedReward:
    """The reward of an arm and the step that fitted it."""

    config: RewardConfig
    step: Step

    def loads(self, policy: str) -> list[ModelLoad]:
        """List the reward's models, none of them trained."""
        return [ModelLoad(load.model, "reward", dtype=load.dtype) for load in self.config.loads(policy)]


@dataclass(frozen=True, kw_only=True)
class ImproveRecipe(Recipe):
    """Improve a policy with the algorithm of an arm."""

    stage = "improve"
    work = f"{WORK}.improve:improve_policy"
    distributed = True
    algorithm: AlgorithmConfig
    initial: Step
    reward: FittedReward | None
    labels: ArmLabels | None
    prompts: Sequence[Prompt]
    validation: Sequence[Prompt]
    """Prompts of the checkpoint selection."""
    task: TaskScope = TaskScope.METRICS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those that the algorithm does not use."""
        return find_unused_policy_settings(self.algorithm)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the models of the algorithm and of the reward."""
        return [*self.algorithm.loads(policy), *(self.reward.loads(policy) if self.reward else [])]


@dataclass(frozen=True, kw_only=True)
class RespondRecipe(Recipe):
    """Respond to the test prompts with a policy."""

    stage = "respond"
    work = f"{WORK}.respond:respond_to_prompts"
    policy: Step
    prompts: Sequence[Prompt]
    """The test prompts, each as often as it is answered."""
    temperature: float
    responder: AlgorithmConfig | None
    """The arm's algorithm, if it is a `Responder`: it then answers test prompts instead of the policy."""
    reward: FittedReward | None
    """The reward that the responder chooses by."""
    task: TaskScope = TaskScope.METRICS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those of training, unless an algorithm responds."""
        return TRAINING if self.responder is None else frozenset()

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy, and the models of the reward for an algorithm that answers test prompts."""
        return [ModelLoad(policy, "policy"), *(self.reward.loads(policy) if self.reward else [])]


@dataclass(frozen=True, kw_only=True)
class ScoreRecipe(Recipe):
    """Base of the recipes that score texts with the reward of an arm."""

    stage = "score"
    reward: FittedReward
    task: TaskScope = TaskScope.ANNOTATOR_PROMPTS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those that the reward does not use, except those of truncating prompts and of scoring."""
        unused = find_unused_policy_settings(self.reward.config)
        return unused - {"chat", "dtype", "max_prompt_tokens", "batch_tokens"}

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the reward's models."""
        return self.reward.loads(policy)


@dataclass(frozen=True, kw_only=True)
class ScoreComparisonsRecipe(ScoreRecipe):
    """Score held-out comparisons."""

    work = f"{WORK}.score:score_comparisons"
    comparisons: Sequence[Comparison]


@dataclass(frozen=True, kw_only=True)
class ScoreResponsesRecipe(ScoreRecipe):
    """Score the responses of the baseline and of an arm's policy."""

    work = f"{WORK}.score:score_policies"
    prompts: Sequence[Prompt]
    baseline: Step
    """The baseline's responses to the prompts."""
    responses: Step
    """The policy's responses to the prompts."""


@dataclass(frozen=True, kw_only=True)
class MeasureRecipe(Recipe):
    """Measure the responses of a policy with a metric of the evaluation."""

    stage = "measure"
    work = f"{WORK}.measure:measure_responses"
    metric: MetricConfig
    responses: Step | None
    """The responses to the prompts; None for the reference responses."""
    prompts: Sequence[Prompt]
    task: TaskScope = TaskScope.ANNOTATOR_PROMPTS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those that the metric does not use."""
        return _unused_by(self.metric, policy)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the metric's models."""
        return self.metric.loads(policy)


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe(Recipe):
    """Compare the responses of two policies prompt by prompt."""

    stage = "judge"
    work = f"{WORK}.judge:judge_matchup"
    judge: LabelerConfig
    first: Step | None
    """Responses of the first policy; None for the reference responses."""
    second: Step | None
    prompts: Sequence[Prompt]
    task: TaskScope = TaskScope.ANNOTATOR_PROMPTS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return those that the judge does not use."""
        return _unused_by(self.judge, policy)

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the judge's models."""
        return self.judge.loads(policy)


@dataclass(frozen=True)
class Matchup:
    """Two policies compared by the judges."""

    first: str
    second: str
    judged: Mapping[str, Step]
    """The preferences of each judge."""


@dataclass(frozen=True)
class ArmResults:
    """The steps of an arm that the evaluation reads."""

    labeler: str | None
    """Name of the arm's labeler in the evaluation; None for an arm without feedback."""
    improve: Step | None = None
    """None for an arm that ends at its labels or its reward."""
    reward: Step | None = None
    comparison_scores: Step | None = None
    response_scores: Step | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe(Recipe):
    """Combine all measurements into one evaluation."""

    stage = "evaluate"
    work = f"{WORK}.evaluate:evaluate_run"
    evaluate: EvaluateConfig
    comparisons: Sequence[Comparison]
    prompts: Sequence[Prompt]
    """The test prompts, each as often as it is answered."""
    sft: Step | None
    """None if no policies are evaluated."""
    labelers: Mapping[str, LabelerConfig]
    labels: Mapping[str, Step]
    """The labels of each labeler on the comparisons."""
    responses: Mapping[str, Step]
    """The responses of each policy to the prompts: `sft` and the arms that train one."""
    metrics: Mapping[str, Sequence[Step]]
    """For each policy, what the metrics of the evaluation measured on its responses."""
    arms: Mapping[str, ArmResults]
    matchups: Sequence[Matchup]
    human_labels: Sequence[Comparison]
    """Pairs of responses with a human label, by which win rates are corrected."""
    metric_names: Sequence[str]
    """Names of what these metrics measure."""
    task: TaskScope = TaskScope.METRICS

    def unused_policy_settings(self, policy: str) -> frozenset[str]:
        """Return all: nothing is computed with a model."""
        return ALL
