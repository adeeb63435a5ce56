"""Measure everything the run made: labelers, reward models, policies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from scipy.special import expit

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Responder
from rlaif_framework.contracts.stage import Stage, read_metrics
from rlaif_framework.contracts.validation import score_responses
from rlaif_framework.metrics.agreement import measure_labeler, measure_margins, observe
from rlaif_framework.metrics.calibration import measure_calibration, measure_human_length, measure_lengths
from rlaif_framework.metrics.estimates import estimate_mean
from rlaif_framework.metrics.wins import measure_wins
from rlaif_framework.models.loading import load_tokenizer
from rlaif_framework.pipeline.stages.improve import load_reward
from rlaif_framework.pipeline.stages.label import PREFERENCES, label_comparisons
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Preference, Prompt
from rlaif_framework.records.rows import load_preferences
from rlaif_framework.spec.model import Arm, EvaluateConfig
from rlaif_framework.training.responses import sample_from, truncate_prompts

RESPONSES = "responses.jsonl"


SCORES = "scores.json"


EVALUATION = "evaluation.json"


REFERENCE = "reference"


REWARD_MEASURES = (
    "accuracy_gold",
    "accuracy_labeler",
    "calibration",
    "lengths",
    "reward_sft",
    "reward_policy",
    "reward_gain",
    "loss",
)
"""What is measured of an arm's reward; all None for an arm without one."""


def sample_test(
    stage: Stage, context: Context, config: EvaluateConfig, prompts: Sequence[Prompt], arm: Arm | None = None
) -> None:
    """Let a policy respond to the test prompts; write `responses.jsonl` with the metrics that need no model.

    Args:
        stage: Its input `policy` is the model; `reward` is the arm's reward, where the arm answers itself.
        config: How to sample.
        prompts: The test prompts.
        arm: An arm whose algorithm answers itself (see `Responder`).
    """
    folder = stage.inputs["policy"]
    short, _ = truncate_prompts(context, prompts, load_tokenizer(folder))
    if arm is not None:
        responder = cast(Responder, context.build_algorithm(arm.algorithm))
        samples = responder.respond(folder, load_reward(stage, context, arm.reward), short, stage, config.temperature)
    else:
        seed = stage.seed("responses")
        samples = sample_from(context, stage, folder, short, temperature=config.temperature, seed=seed)
    rows = []
    for prompt, sample in zip(short, samples, strict=True):
        text = context.task.clean(sample.text)
        metrics = {**context.task.measure(prompt, text), "tokens": len(sample.ids), "ended": float(sample.finished)}
        rows.append({"prompt": prompt.id, "response": text, "metrics": metrics})
    write_rows(stage.folder / RESPONSES, rows)


def read_responses(folder: Path) -> list[str]:
    """A policy's responses to the test prompts, in their order."""
    return [row["response"] for _, row in read_rows(folder / RESPONSES)]


def judge_matchup(
    stage: Stage, context: Context, judge: ComponentConfig, first: str, second: str, prompts: Sequence[Prompt]
) -> None:
    """Let the judge compare two policies' responses prompt by prompt; equal responses are a tie without asking."""
    pairs = _pair_responses(prompts, stage.inputs.get(first), stage.inputs.get(second))
    different = [c for c in pairs if c.responses[0] != c.responses[1]]
    judged = {p.comparison: p for p in label_comparisons(stage, context, judge, different)}
    tie = Evidence(source=judge.kind)
    rows = [judged.get(c.id) or Preference(c.id, (0.5, 0.5), tie) for c in pairs]
    write_rows(stage.folder / PREFERENCES, map(asdict, rows))


def _pair_responses(prompts: Sequence[Prompt], first: Path | None, second: Path | None) -> list[Comparison]:
    """Two policies' responses to the test prompts; of None, which is no policy, the references."""
    texts = ([p.reference or "" for p in prompts] if x is None else read_responses(x) for x in (first, second))
    return [Comparison(p.id, p, (a, b)) for p, a, b in zip(prompts, *texts, strict=True)]


def score_comparisons(
    stage: Stage,
    context: Context,
    reward: ComponentConfig,
    comparisons: Sequence[Comparison],
    prompts: Sequence[Prompt],
) -> None:
    """Score validation comparisons, and the baseline's test responses, with a reward."""
    model = context.build_reward(reward).load(stage.inputs["reward"])
    short = _truncate(context, [*(c.prompt for c in comparisons), *prompts])
    twice = [prompt for prompt in short[: len(comparisons)] for _ in range(2)]
    scores = score_responses(model, twice, [text for c in comparisons for text in c.responses]) if comparisons else []
    margins = [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]
    baseline = score_responses(model, short[len(comparisons) :], read_responses(stage.inputs["sft"]))
    (stage.folder / SCORES).write_text(json.dumps({"margins": margins, "sft": baseline}))


def score_policy(stage: Stage, context: Context, reward: ComponentConfig, prompts: Sequence[Prompt]) -> None:
    """Score a policy's test responses with its reward."""
    model = context.build_reward(reward).load(stage.inputs["reward"])
    scores = score_responses(model, _truncate(context, prompts), read_responses(stage.inputs["policy"]))
    (stage.folder / SCORES).write_text(json.dumps({"policy": scores}))


def _truncate(context: Context, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """Prompts as policies are given them, and as rewards see them in training."""
    return truncate_prompts(context, prompts, load_tokenizer(context.policy_source))[0]


def evaluate_run(
    stage: Stage,
    context: Context,
    config: EvaluateConfig,
    arms: Mapping[str, str | None],
    labelers: Mapping[str, ComponentConfig],
    matchups: Sequence[tuple[str, str]],
    comparisons: Sequence[Comparison],
    prompts: Sequence[Prompt],
) -> None:
    """Gather every measurement into `evaluation.json`.

    Args:
        stage: Its inputs are named `labels/LABELER`, `responses/POLICY`, `judge/A/B`, `margins/ARM`, `scores/ARM`,
            `improve/ARM`.
        config: What was asked for.
        arms: The labeler of each arm, None for an arm without feedback.
        labelers: Every labeler that was measured, by name.
        matchups: Pairs of policies compared.
        comparisons: The validation comparisons that labelers and reward models were measured on.
        prompts: The test prompts.
    """
    preferences = {name: load_preferences(stage.inputs[f"labels/{name}"] / PREFERENCES) for name in labelers}
    qualities = {name: asdict(measure_labeler(comparisons, rows)) for name, rows in preferences.items()}
    policies: dict[str, Any] = {}
    for name in ("sft", *arms):
        rows = [row["metrics"] for _, row in read_rows(stage.inputs[f"responses/{name}"] / RESPONSES)]
        policies[name] = {key: _mean([row[key] for row in rows]) for key in rows[0]}
    if all(p.reference for p in prompts):
        measured = [context.task.measure(p, p.reference or "") for p in prompts]
        policies[REFERENCE] = {key: _mean([row[key] for row in measured]) for key in measured[0]}
    rewards: dict[str, Any] = {}
    for arm, labeler in arms.items():
        rewards[arm] = {"curve": read_metrics(stage.inputs[f"improve/{arm}"])}
        if f"scores/{arm}" not in stage.inputs:  # an algorithm that needs no reward
            rewards[arm] |= dict.fromkeys(REWARD_MEASURES)
            continue
        scores: dict[str, list[float]] = {}
        for kind in ("margins", "scores"):
            scores |= json.loads((stage.inputs[f"{kind}/{arm}"] / SCORES).read_text())
        known = measure_margins(comparisons, scores["margins"], lambda i: comparisons[i].preference)
        labels = preferences[labeler] if labeler is not None else []
        own = measure_margins(comparisons, scores["margins"], partial(_first_of, labels))
        gains = [a - b for a, b in zip(scores["policy"], scores["sft"], strict=True)]
        rewards[arm] |= {
            "accuracy_gold": known and asdict(known),
            "accuracy_labeler": own and asdict(own),
            **_measure_reward(comparisons, scores["margins"]),
            "reward_sft": _mean(scores["sft"]),
            "reward_policy": _mean(scores["policy"]),
            "reward_gain": _mean(gains),
            "loss": read_metrics(stage.inputs[f"reward/{arm}"]),
        }
    undecided = Evidence("known")
    longer = measure_human_length([observe(c, Preference(c.id, None, undecided)) for c in comparisons])
    wins = []
    for first, second in matchups:
        pairs = _pair_responses(prompts, *(stage.inputs.get(f"responses/{name}") for name in (first, second)))
        judged = load_preferences(stage.inputs[f"judge/{first}/{second}"] / PREFERENCES)
        wins.append(asdict(measure_wins(first, second, pairs, judged)))
    shown = {name: read_responses(stage.inputs[f"responses/{name}"])[: config.show] for name in ("sft", *arms)}
    samples = [
        {"prompt": p.text, "reference": p.reference, "responses": {name: shown[name][i] for name in shown}}
        for i, p in enumerate(prompts[: config.show])
    ]
    result = {
        "judge": config.judge.model_dump(mode="json"),
        "labelers": {
            name: {"kind": labelers[name].kind, "title": labelers[name].title, **quality}
            for name, quality in qualities.items()
        },
        "arms": {arm: {"labeler": labeler, **rewards[arm]} for arm, labeler in arms.items()},
        "policies": policies,
        "wins": wins,
        "samples": samples,
        "prompts": len(prompts),
        "comparisons": len(comparisons),
        "longer_is_better": longer and asdict(longer),
        "sft_loss": read_metrics(stage.inputs["sft"]),
    }
    (stage.folder / EVALUATION).write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")


def _measure_reward(comparisons: Sequence[Comparison], margins: Sequence[float]) -> dict[str, Any]:
    """Against known preferences: whether s(r1 - r2) means what it says, and how far length explains the accuracy."""
    firsts = [float(p) for p in expit(margins)]  # s(r1 - r2)
    seen = [
        observe(c, Preference(c.id, (p, 1 - p), Evidence("reward"))) for c, p in zip(comparisons, firsts, strict=True)
    ]
    calibration = measure_calibration(seen)
    return {"calibration": calibration and asdict(calibration), "lengths": [asdict(b) for b in measure_lengths(seen)]}


def _mean(values: Sequence[float]) -> dict[str, float] | None:
    estimate = estimate_mean(values)
    return None if estimate is None else asdict(estimate)


def _first_of(preferences: Sequence[Preference], index: int) -> float | None:
    """Probability of the first response; None where there is no label."""
    probabilities = preferences[index].probabilities if preferences else None
    return None if probabilities is None else probabilities[0]
