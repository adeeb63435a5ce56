"""List the steps of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlaif_framework.assembly.preflight import check_labeler
from rlaif_framework.data.human_labels import read_human_labels
from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.pipeline.keys import StepFactory
from rlaif_framework.pipeline.recipes import (
    ArmResults,
    EvaluateRecipe,
    FittedReward,
    JudgeRecipe,
    LabelHeldOutRecipe,
    Matchup,
    MeasureRecipe,
    RespondRecipe,
    ScoreComparisonsRecipe,
    ScoreResponsesRecipe,
)
from rlaif_framework.pipeline.steps import Step, find_steps
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.seeds import derive_seed, sample_subset
from rlaif_framework.spec.model import REFERENCE, EvaluateConfig, Spec


class ArmEnd(NamedTuple):
    """What an arm ends with."""

    improve: Step | None
    """The step that creates its policy."""
    reward: FittedReward | None


def compose_evaluation(
    factory: StepFactory, spec: Spec, config: EvaluateConfig, sft: Step | None, arms: Mapping[str, ArmEnd]
) -> list[Step]:
    """List the steps that measure labelers, rewards and policies, the summary last.

    Args:
        factory: Creates the steps.
        spec: The spec.
        config: Its evaluation.
        sft: The baseline; None if no policies are evaluated.
        arms: The last steps of the arms.

    Raises:
        SpecError: The task has no test prompts, or no references for a matchup with them, or there are human labels
            and no win rates.
        DataError: A labeler or the judge cannot label its comparisons, two test prompts have the same id, or the human
            labels cannot be read.
    """
    comparisons = sample_subset(
        factory.context.task.comparisons("validation"),
        config.comparisons,
        derive_seed(_evaluation_seed(spec), "validation"),
    )
    prompts = _choose_prompts(factory, spec, config) if sft is not None else []
    for name, arm in arms.items():
        if arm.reward is not None:  # it scores the test prompts and the validation comparisons as well
            answered = prompts if arm.improve is not None else []
            check_labeler(f"arms.{name}.reward", arm.reward.config, [*comparisons, *_compare_nothing(answered)])
    prompts = [prompt for prompt in prompts for _ in range(config.responses)]
    labelers, labeler_of_arm = _name_labelers(spec, config)
    labels = {}
    for name, labeler in labelers.items():
        held_out = comparisons
        if name in config.named_judges() and name not in labeler_of_arm.values():
            # A judge has to judge the test prompts; what it cannot label here says nothing about it.
            held_out = [c for c in comparisons if labeler.missing_field(c) is None]
        check_labeler(f"evaluate: {name}: labeler", labeler, held_out)
        recipe = LabelHeldOutRecipe(labeler=labeler, comparisons=held_out)
        labels[name] = factory.create(f"evaluation/labels/{name}", recipe)
    policies = {"sft": ArmEnd(sft, None), **arms}
    responses = {
        name: _respond(factory, spec, name, arm.improve, arm.reward, prompts, config.temperature)
        for name, arm in policies.items()
        if arm.improve is not None
    }
    results = {
        name: _score_arm(factory, name, labeler_of_arm[name], arm, responses, comparisons, prompts)
        for name, arm in arms.items()
    }
    judges = config.named_judges()
    matchups = [_judge(factory, judges, *pair, responses, prompts) for pair in spec.matchups()]
    metrics = _measure(factory, config, responses, prompts)
    human_labels = _read_human_labels(config, matchups)
    summary = EvaluateRecipe(
        # Without the metrics and the file of labels: what they measured, and its rows, are inputs of their own.
        evaluate=config.model_copy(update={"metrics": [], "human_labels": None}),
        comparisons=comparisons,
        prompts=prompts,
        sft=sft,
        labelers=labelers,
        labels=labels,
        responses=responses,
        metrics=metrics,
        metric_names=[name for metric in config.metrics if responses for name in metric.names],
        arms=results,
        matchups=matchups,
        human_labels=human_labels,
    )
    # Only steps of the evaluation: those of the arms are listed already. Arms may share some: each is listed once.
    earlier = [step for step in find_steps(summary) if step.name.startswith("evaluation/")]
    return [*dict.fromkeys(earlier), factory.create("evaluation/summary", summary)]


def _evaluation_seed(spec: Spec) -> int:
    return spec.seed if spec.evaluation_seed is None else spec.evaluation_seed


def _choose_prompts(factory: StepFactory, spec: Spec, config: EvaluateConfig) -> list[Prompt]:
    """Return the test prompts that policies are measured on."""
    found = factory.context.task.prompts("test")
    prompts = sample_subset(found, config.prompts, derive_seed(_evaluation_seed(spec), "test prompts"))
    if not prompts:
        raise SpecError("evaluate: the task has no test prompts; set 'evaluate: null' or add a test split to the task")
    matchups = spec.matchups()
    if any(REFERENCE in pair for pair in matchups) and not all(p.reference for p in prompts):
        raise SpecError(
            "evaluate.matchups: not every test prompt has a reference to compare with; remove these matchups"
        )
    _check_ids(prompts)
    if matchups:
        pairs = _compare_nothing(prompts)
        for name, judge in config.named_judges().items():
            check_labeler("evaluate.judge" if name == "judge" else f"evaluate.judges.{name}", judge, pairs)
    return prompts


def _compare_nothing(prompts: Sequence[Prompt]) -> list[Comparison]:
    """Return comparisons of empty responses, to check what only prompts may lack."""
    return [Comparison(prompt.id, prompt, ("", "")) for prompt in prompts]


def _check_ids(prompts: Sequence[Prompt]) -> None:
    """Refuse test prompts with equal ids, by which the judge's preferences are matched."""
    seen: dict[str, Prompt] = {}
    for prompt in prompts:
        if seen.setdefault(prompt.id, prompt) is not prompt:
            raise DataError(f"evaluate: two test prompts have the id '{prompt.id}'; make the ids unique")


def _name_labelers(spec: Spec, config: EvaluateConfig) -> tuple[dict[str, LabelerConfig], dict[str, str | None]]:
    """Collect the labelers to measure, each once.

    Returns:
        The labelers by name (the judges, arms, and those of `evaluate.labelers`), and the name of each arm's labeler.
    """
    labelers = config.named_judges()
    of_arm: dict[str, str | None] = {}
    for arm, settings in spec.arms.items():
        if settings.feedback is None:
            of_arm[arm] = None
            continue
        own = settings.feedback.labeler
        name = next((name for name, labeler in labelers.items() if labeler == own), arm)
        labelers[name], of_arm[arm] = own, name
    labelers |= {name: labeler for name, labeler in config.labelers.items() if labeler not in labelers.values()}
    return labelers, of_arm


def _respond(
    factory: StepFactory,
    spec: Spec,
    name: str,
    policy: Step,
    reward: FittedReward | None,
    prompts: Sequence[Prompt],
    temperature: float,
) -> Step:
    algorithm = spec.arms[name].algorithm if name in spec.arms else None
    responder = algorithm if algorithm is not None and algorithm.responds else None
    return factory.create(
        f"evaluation/responses/{name}",
        RespondRecipe(
            policy=policy,
            prompts=prompts,
            temperature=temperature,
            responder=responder,
            reward=reward if responder is not None else None,
        ),
    )


def _measure(
    factory: StepFactory, config: EvaluateConfig, responses: Mapping[str, Step], prompts: Sequence[Prompt]
) -> dict[str, list[Step]]:
    """List the steps that measure the responses of each policy with each metric."""
    for number, metric in enumerate(config.metrics):
        check_labeler(f"evaluate.metrics.{number}", metric, _compare_nothing(prompts))
    measured: dict[str, Step | None] = {**responses}
    if prompts and all(p.reference for p in prompts):
        measured[REFERENCE] = None  # the reference responses have no step
    return {
        name: [
            factory.create(
                f"evaluation/metrics/{metric.names[0]}/{name}",
                MeasureRecipe(metric=metric, responses=step, prompts=prompts),
            )
            for metric in config.metrics
        ]
        for name, step in measured.items()
    }


def _judge(
    factory: StepFactory,
    judges: Mapping[str, LabelerConfig],
    first: str,
    second: str,
    responses: Mapping[str, Step],
    prompts: Sequence[Prompt],
) -> Matchup:
    judged = {}
    for name, judge in judges.items():
        # The reference responses have no step.
        recipe = JudgeRecipe(judge=judge, first=responses.get(first), second=responses.get(second), prompts=prompts)
        folder = "wins" if name == "judge" else f"judges/{name}"
        judged[name] = factory.create(f"evaluation/{folder}/{first}-vs-{second}", recipe)
    return Matchup(first, second, judged)


def _read_human_labels(config: EvaluateConfig, matchups: Sequence[Matchup]) -> list[Comparison]:
    if config.human_labels is None:
        return []
    if not any(matchup.judged for matchup in matchups):
        raise SpecError("evaluate.human_labels: there are no win rates to correct; set evaluate.judge, or remove it")
    try:
        return read_human_labels(config.human_labels)
    except DataError as error:
        raise DataError(f"evaluate.human_labels: {error}") from error


def _score_arm(
    factory: StepFactory,
    name: str,
    labeler: str | None,
    arm: ArmEnd,
    responses: Mapping[str, Step],
    comparisons: Sequence[Comparison],
    prompts: Sequence[Prompt],
) -> ArmResults:
    reward = arm.reward
    if reward is None:
        return ArmResults(labeler, arm.improve)
    # Two steps, because the first does not depend on the policy: arms with the same reward share it.
    on_comparisons = ScoreComparisonsRecipe(reward=reward, comparisons=comparisons)
    margins = factory.create(f"evaluation/margins/{name}", on_comparisons)
    if arm.improve is None:
        return ArmResults(labeler, None, reward.step, margins)
    on_responses = ScoreResponsesRecipe(
        reward=reward, prompts=prompts, baseline=responses["sft"], responses=responses[name]
    )
    scores = factory.create(f"evaluation/scores/{name}", on_responses)
    return ArmResults(labeler, arm.improve, reward.step, margins, scores)
