"""Measure the labelers, rewards and policies of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from pydantic import TypeAdapter
from scipy.special import expit

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage, read_metrics
from rlaif_framework.data.human_labels import HumanLabels, list_unlabelled
from rlaif_framework.metrics.agreement import measure_labeler, measure_margins, observe
from rlaif_framework.metrics.calibration import measure_calibration, measure_human_length, measure_lengths
from rlaif_framework.metrics.equal_kl import Checkpoint, compare_at_equal_kl
from rlaif_framework.metrics.estimates import Estimate, estimate_mean
from rlaif_framework.metrics.evaluation import (
    SAMPLES,
    Curve,
    Evaluation,
    MeasuredArm,
    MeasuredLabeler,
    MeasuredReward,
    PairedDifference,
    SampleResponses,
)
from rlaif_framework.metrics.label_examples import find_uncertain
from rlaif_framework.metrics.response_metrics import average_metrics, measure_differences
from rlaif_framework.metrics.wins import WinRate, measure_wins
from rlaif_framework.pipeline.artefact_files import PREFERENCES
from rlaif_framework.pipeline.recipes import ArmResults, EvaluateRecipe, LabelHeldOutRecipe
from rlaif_framework.pipeline.stages.judge import pair_responses
from rlaif_framework.pipeline.stages.label import label_comparisons
from rlaif_framework.pipeline.stages.measure import read_measured
from rlaif_framework.pipeline.stages.respond import read_response_metrics, read_responses
from rlaif_framework.pipeline.stages.score import read_scores
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.records.evaluated_prompts import (
    EvaluatedPrompt,
    EvaluatedResponse,
    Verdict,
    find_groups,
    save_evaluated,
)
from rlaif_framework.records.jsonl import write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Preference
from rlaif_framework.records.rows import load_preferences
from rlaif_framework.records.step_rows import EVALUATIONS, read_steps
from rlaif_framework.spec.model import REFERENCE
from rlaif_framework.store import Manifest

UNCERTAIN = 3
"""Number of labels of each labeler that the report shows."""
ESTIMATE: TypeAdapter[Estimate | None] = TypeAdapter(Estimate | None)
PAIRS = "pairs"
"""Name of the folder in the artefact with a file of pairs for each matchup, for human annotators."""


def label_held_out(stage: Stage, context: Context, recipe: LabelHeldOutRecipe) -> None:
    """Label the validation comparisons with one of the measured labelers."""
    label_comparisons(stage, context, recipe.labeler, recipe.comparisons)


def evaluate_run(stage: Stage, context: Context, recipe: EvaluateRecipe) -> None:
    """Combine all measurements and write `evaluation.json`."""
    judges = recipe.evaluate.named_judges()
    metrics = _collect_metrics(stage, context, recipe)
    labels = {name: load_preferences(stage.artefact(step) / PREFERENCES) for name, step in recipe.labels.items()}
    compared_by = {name: _list_labelled(step) for name, step in recipe.labels.items()}
    # Without labels: the accuracy of picking the longer response depends on the gold preferences only.
    unlabelled = [observe(c, Preference(c.id, None, Evidence("gold"))) for c in recipe.comparisons]
    compared = _pair_policies(stage, recipe)
    human = HumanLabels(recipe.human_labels)
    arms = {
        name: MeasuredArm(
            labeler=arm.labeler,
            reward=_measure_reward(stage, recipe, arm, labels),
            curve=_read_curve(stage, arm.improve),
            checkpoints=_read_checkpoints(stage, arm.improve),
            rounds=arm.improve.recipe.round if arm.improve is not None else 1,
            selected_step=_read_selected_step(stage, arm.improve),
            kl_bound=_read_fact(stage, arm.improve, "kl_bound"),
        )
        for name, arm in recipe.arms.items()
    }
    Evaluation(
        judges={name: judge.model_dump(mode="json") for name, judge in judges.items()},
        labelers={
            name: MeasuredLabeler(
                kind=recipe.labelers[name].kind,
                title=recipe.labelers[name].title,
                quality=measure_labeler(compared_by[name], preferences),
                calibration=measure_calibration(
                    [observe(c, p) for c, p in zip(compared_by[name], preferences, strict=True)]
                ),
                uncertain=find_uncertain(zip(compared_by[name], preferences, strict=True), UNCERTAIN),
            )
            for name, preferences in labels.items()
        },
        arms=arms,
        policies=average_metrics(metrics, recipe.prompts),
        metrics=recipe.metric_names,
        wins=_measure_wins(stage, recipe, compared, human),
        equal_kl=compare_at_equal_kl({name: arm.checkpoints for name, arm in arms.items() if arm.starts_at_baseline}),
        human_labels=len(human),
        unused_labels=human.count_unused(pair for pairs in compared for pair in pairs),
        differences=[
            PairedDifference(
                first=m.first,
                second=m.second,
                metrics=measure_differences(metrics[m.first], metrics[m.second], recipe.prompts),
            )
            for m in recipe.matchups
        ],
        samples=_show_samples(stage, recipe),
        prompts=len(recipe.prompts) // recipe.evaluate.responses,
        responses=recipe.evaluate.responses,
        comparisons=len(recipe.comparisons),
        gold_comparisons=sum(c.preference not in (None, 0.5) for c in recipe.comparisons),
        longer_is_better=measure_human_length(unlabelled),
        sft_loss=_read_curve(stage, recipe.sft),
    ).save(stage.folder)
    _write_pairs(stage, recipe, compared)
    save_evaluated(stage.folder / SAMPLES, _join_samples(stage, recipe, compared, metrics))


def _list_labelled(step: Step) -> Sequence[Comparison]:
    """Return the validation comparisons that a labeler labelled."""
    assert isinstance(step.recipe, LabelHeldOutRecipe)
    return step.recipe.comparisons


def _read_curve(stage: Stage, step: Step | None) -> Curve:
    """Read the training metrics of a policy; none if it is not trained."""
    return read_metrics(stage.artefact(step)) if step is not None else []


def _read_selected_step(stage: Stage, step: Step | None) -> int | None:
    """Read the training step whose policy was kept; None if it is the last one."""
    found = _read_fact(stage, step, "selected_step")
    return None if found is None else int(found)


def _read_fact(stage: Stage, step: Step | None, name: str) -> float | None:
    """Read a number that an algorithm has stated about its policy; None if it has not."""
    found = Manifest.read(stage.artefact(step)).facts.get(name) if step is not None else None
    return found if isinstance(found, int | float) else None


def _read_checkpoints(stage: Stage, step: Step | None) -> list[Checkpoint]:
    """Read the evaluations of a policy during training; none without `checkpoint_selection`."""
    rows = read_steps(stage.artefact(step) / EVALUATIONS) if step is not None else []
    return [
        Checkpoint(
            step=row["step"],
            kl=ESTIMATE.validate_python(row["kl"]),
            reward=ESTIMATE.validate_python(row["reward"]),
            win_rate=ESTIMATE.validate_python((row["wins"] or {}).get("rate")),
            judge=(row["wins"] or {}).get("judge"),
        )
        for row in rows
    ]


def _measure_reward(
    stage: Stage, recipe: EvaluateRecipe, arm: ArmResults, labels: Mapping[str, Sequence[Preference]]
) -> MeasuredReward | None:
    if arm.reward is None or arm.comparison_scores is None:
        return None
    comparisons = recipe.comparisons
    margins = read_scores(stage.artefact(arm.comparison_scores))["margins"]
    # Of an arm that ends at its reward there are none.
    on_responses = read_scores(stage.artefact(arm.response_scores)) if arm.response_scores is not None else {}
    baseline, policy = on_responses.get("sft", []), on_responses.get("policy", [])
    own_labels = labels[arm.labeler] if arm.labeler is not None else []
    clusters = [prompt.text for prompt in recipe.prompts] if on_responses else []
    # The probability of the first response in the Bradley-Terry model.
    stated = [float(p) for p in expit(margins)]
    observations = [
        observe(c, Preference(c.id, (p, 1 - p), Evidence("reward"))) for c, p in zip(comparisons, stated, strict=True)
    ]
    return MeasuredReward(
        accuracy_gold=measure_margins(comparisons, margins, lambda i: comparisons[i].preference),
        accuracy_labeler=measure_margins(comparisons, margins, partial(_label_of_first, own_labels)),
        calibration=measure_calibration(observations),
        lengths=measure_lengths(observations),
        sft=estimate_mean(baseline, clusters),
        policy=estimate_mean(policy, clusters),
        # Paired by prompt, which removes the variance between prompts.
        gain=estimate_mean([after - before for after, before in zip(policy, baseline, strict=True)], clusters),
        loss=read_metrics(stage.artefact(arm.reward)),
    )


def _label_of_first(preferences: Sequence[Preference], index: int) -> float | None:
    """Return the labelled probability of a comparison's first response; None if there is no label."""
    probabilities = preferences[index].probabilities if preferences else None
    return None if probabilities is None else probabilities[0]


def _collect_metrics(stage: Stage, context: Context, recipe: EvaluateRecipe) -> dict[str, list[dict[str, float]]]:
    """Read the metrics of each response, for each policy and for the references if every prompt has one."""
    rows = {name: read_response_metrics(stage.artefact(step)) for name, step in recipe.responses.items()}
    if recipe.prompts and all(p.reference for p in recipe.prompts):
        rows[REFERENCE] = [dict(context.task.measure(p, p.reference or "")) for p in recipe.prompts]
    for name, steps in recipe.metrics.items():
        for step in steps:
            for row, measured in zip(rows[name], read_measured(stage.artefact(step)), strict=True):
                row |= measured
    return rows


def _pair_policies(stage: Stage, recipe: EvaluateRecipe) -> list[list[Comparison]]:
    """Return the pairs of responses of each matchup."""
    find = recipe.responses.get
    return [pair_responses(stage, recipe.prompts, find(m.first), find(m.second)) for m in recipe.matchups]


def _measure_wins(
    stage: Stage, recipe: EvaluateRecipe, compared: Sequence[Sequence[Comparison]], human: HumanLabels
) -> list[WinRate]:
    return [
        measure_wins(m.first, m.second, judge, pairs, load_preferences(stage.artefact(step) / PREFERENCES), human)
        for m, pairs in zip(recipe.matchups, compared, strict=True)
        for judge, step in m.judged.items()
    ]


def _write_pairs(stage: Stage, recipe: EvaluateRecipe, compared: Sequence[Sequence[Comparison]]) -> None:
    """Write the pairs of each matchup to files for human annotators."""
    folder = stage.folder / PAIRS
    folder.mkdir(exist_ok=True)
    for matchup, pairs in zip(recipe.matchups, compared, strict=True):
        name = f"{matchup.first}-vs-{matchup.second}"
        write_rows(folder / f"{name}.jsonl", list_unlabelled(pairs, stage.seed("pairs", name)))


def _join_samples(
    stage: Stage,
    recipe: EvaluateRecipe,
    compared: Sequence[Sequence[Comparison]],
    metrics: Mapping[str, Sequence[Mapping[str, float]]],
) -> Iterator[EvaluatedPrompt]:
    """Join responses, rewards and verdicts by test prompt, one row for each response to it."""
    responses = {name: read_responses(stage.artefact(step)) for name, step in recipe.responses.items()}
    rewards = _read_rewards(stage, recipe)
    judged = [
        (matchup, judge, load_preferences(stage.artefact(step) / PREFERENCES))
        for matchup in recipe.matchups
        for judge, step in matchup.judged.items()
    ]
    # Pairs have ids of their own if there are several responses to a prompt.
    ids = [pair.id for pair in compared[0]] if compared else [prompt.id for prompt in recipe.prompts]
    for index, (name, prompt) in enumerate(zip(ids, recipe.prompts, strict=True)):
        yield EvaluatedPrompt(
            id=name,
            prompt=prompt.text,
            reference=prompt.reference,
            groups=find_groups(prompt.columns.items()),
            responses={
                policy: EvaluatedResponse(
                    texts[index],
                    {arm: scores[index] for arm, scores in rewards[policy].items()},
                    dict(metrics[policy][index]),
                )
                for policy, texts in responses.items()
            },
            verdicts=[Verdict.read(m.first, m.second, judge, found[index]) for m, judge, found in judged],
        )


def _read_rewards(stage: Stage, recipe: EvaluateRecipe) -> dict[str, dict[str, list[float]]]:
    """Read the scores of each policy's responses by the reward of each arm that scored them."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in recipe.responses}
    for arm, results in recipe.arms.items():
        if results.response_scores is not None:
            scores = read_scores(stage.artefact(results.response_scores))
            found["sft"][arm], found[arm][arm] = scores["sft"], scores["policy"]
    return found


def _show_samples(stage: Stage, recipe: EvaluateRecipe) -> list[SampleResponses]:
    responses = {name: read_responses(stage.artefact(step)) for name, step in recipe.responses.items()}
    return [
        SampleResponses(
            prompt=prompt.text,
            reference=prompt.reference,
            responses={name: texts[index] for name, texts in responses.items()},
        )
        # The first response to each prompt.
        for index, prompt in list(enumerate(recipe.prompts))[:: recipe.evaluate.responses][: recipe.evaluate.show]
    ]
