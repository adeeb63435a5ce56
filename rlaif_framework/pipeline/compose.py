"""List the steps of a run: the baseline, the arms, and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.preflight import check_labeler
from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.pipeline.compose_evaluation import ArmEnd, compose_evaluation
from rlaif_framework.pipeline.keys import StepFactory
from rlaif_framework.pipeline.recipes import (
    ArmLabels,
    FittedReward,
    GateRecipe,
    ImproveRecipe,
    LabelRecipe,
    RewardRecipe,
    SampleRecipe,
    SftRecipe,
)
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.seeds import derive_seed, sample_subset
from rlaif_framework.spec.model import AiFeedback, Arm, HumanFeedback, PairsConfig, Spec


@dataclass(frozen=True)
class ArmSteps:
    """The steps of one arm."""

    improve: Step | None
    """The last round's policy; None for an arm that ends at its labels or its reward."""
    reward: FittedReward | None
    """The last round's reward."""
    steps: list[Step] = field(default_factory=list)
    """All steps in order, those of earlier rounds first."""


def compose(spec: Spec, context: Context) -> list[Step]:
    """List the steps of a run, each after the steps it depends on.

    Steps with equal recipes have equal keys, so that arms share what they have in common.

    Raises:
        SpecError: The task lacks data that the spec requires.
        DataError: A labeler cannot label the comparisons of its arm, or there is nothing to fine-tune on.
    """
    factory = StepFactory(context)
    prompts = list(context.task.prompts("train"))
    sft = factory.create("sft", _sft_recipe(spec, prompts))
    arms = {name: _compose_arm(factory, spec, name, sft, prompts) for name in spec.arms}
    steps = [step for arm in arms.values() for step in arm.steps]
    if spec.evaluate is not None:
        ends = {name: ArmEnd(arm.improve, arm.reward) for name, arm in arms.items()}
        steps += compose_evaluation(factory, spec, spec.evaluate, sft if spec.has_policies else None, ends)
    return [sft, *steps] if _needs_baseline(spec) else steps


def _needs_baseline(spec: Spec) -> bool:
    """Return False if all arms end before anything is sampled or trained from the baseline."""
    for arm in spec.arms.values():
        samples = arm.feedback is not None and arm.feedback.pairs.source != "task"
        if samples or (arm.reward is not None and arm.reward.needs_baseline):
            return True
    return spec.has_policies


def _sft_recipe(spec: Spec, prompts: Sequence[Prompt]) -> SftRecipe:
    if spec.sft is not None and _needs_baseline(spec) and not any(p.reference for p in prompts):
        raise DataError(
            "sft: the task's training prompts have no reference responses; set 'sft: null' to start without"
        )
    # Without training, the prompts must not be part of the key.
    return SftRecipe(sft=spec.sft, prompts=prompts if spec.sft else [])


def _compose_arm(factory: StepFactory, spec: Spec, name: str, sft: Step, prompts: Sequence[Prompt]) -> ArmSteps:
    """Compose the rounds of an arm; each starts from the policy of the previous one."""
    arm, steps = spec.arms[name], list[Step]()
    current = ArmSteps(sft, None)
    for number in range(1, arm.rounds + 1):
        # The last round has the folder of the arm, as the only round of other arms has.
        folder = name if number == arm.rounds else f"{name}/round-{number}"
        current = _compose_round(factory, arm, name, folder, number, sft, current.improve or sft, prompts)
        steps += current.steps
    return ArmSteps(current.improve, current.reward, steps)


def _compose_round(
    factory: StepFactory,
    arm: Arm,
    name: str,
    folder: str,
    number: int,
    sft: Step,
    policy: Step,
    prompts: Sequence[Prompt],
) -> ArmSteps:
    # Pairs do not exist before the run: checked with empty responses, because only prompts may lack a field.
    as_sampled = [Comparison(prompt.id, prompt, ("", "")) for prompt in prompts]
    for slot, part in (("reward", arm.reward), ("algorithm", arm.algorithm)):
        if part is not None:
            check_labeler(f"arms.{name}.{slot}", part, as_sampled)
    steps: list[Step] = []
    labels: ArmLabels | None = None
    if arm.feedback is not None:
        labels = _compose_labels(factory, arm.feedback, name, folder, number, policy, prompts)
        steps += [labels.sample, labels.label]
        # The gate is for AI labels: human ones are the standard it measures against. No key depends on it, so that
        # labels that pass are not trained on again when it is added. Without a reward or an algorithm, nothing is
        # trained on the labels.
        is_trained = arm.reward is not None or arm.algorithm is not None
        if is_trained and isinstance(arm.feedback, AiFeedback) and not arm.feedback.allow_weak_labels:
            steps.append(factory.create(f"{folder}/gate", GateRecipe(label=labels.label)))
    reward: FittedReward | None = None
    if arm.reward is not None:
        recipe = RewardRecipe(
            round=number,
            reward=arm.reward,
            sft=sft if arm.reward.needs_baseline else None,
            labels=labels if arm.reward.needs_preferences else None,
        )
        reward = FittedReward(arm.reward, factory.create(f"{folder}/reward", recipe))
        steps.append(reward.step)
    if arm.algorithm is None:
        return ArmSteps(None, reward, steps)
    improve = factory.create(
        f"{folder}/policy",
        ImproveRecipe(
            round=number,
            algorithm=arm.algorithm,
            initial=policy,
            reward=reward,
            labels=labels if arm.algorithm.needs_preferences else None,
            prompts=prompts,
            validation=list(factory.context.task.prompts("validation")),
        ),
    )
    return ArmSteps(improve, reward, [*steps, improve])


def _compose_labels(
    factory: StepFactory,
    feedback: AiFeedback | HumanFeedback,
    name: str,
    folder: str,
    number: int,
    policy: Step,
    prompts: Sequence[Prompt],
) -> ArmLabels:
    pairs, labeler = feedback.pairs, feedback.labeler
    own = _task_comparisons(factory.context, f"arms.{name}", pairs, number)
    as_sampled = [Comparison(p.id, p, ("", "")) for p in prompts] if pairs.source != "task" else []
    check_labeler(f"arms.{name}.feedback.labeler", labeler, [*own, *as_sampled])
    sample = factory.create(
        f"{folder}/pairs",
        SampleRecipe(
            round=number,
            pairs=pairs,
            policy=policy if pairs.source != "task" else None,
            comparisons=own,
            prompts=prompts if pairs.source != "task" else [],
        ),
    )
    validation = list(factory.context.task.comparisons("validation"))
    label = factory.create(f"{folder}/labels", LabelRecipe(labeler=labeler, sample=sample, validation=validation))
    return ArmLabels(sample, label)


def _task_comparisons(context: Context, place: str, pairs: PairsConfig, number: int) -> list[Comparison]:
    """Return the comparisons of the task that a round of an arm labels, none if all its pairs are sampled.

    Raises:
        SpecError: The task has no comparisons for training.
    """
    if pairs.source == "policy":
        return []
    own = context.task.comparisons("train")
    if not own:
        raise SpecError(
            f"{place}.feedback.pairs: the task has no comparisons for training; set 'source: policy' to sample "
            "pairs from the policy, or add comparisons to the task"
        )
    # Not by the seed of a stage: the choice is part of the recipe, before any stage runs.
    return sample_subset(own, pairs.limit, derive_seed(context.seed, "sample", "task pairs"), number - 1)
