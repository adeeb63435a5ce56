"""Read the main numbers of a finished run, each with the values of the prompts that it is the mean of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rlaif_framework.metrics.agreement import observe, score_choice
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.metrics.seeds import Measure, Measured
from rlaif_framework.pipeline.artefact_files import PREFERENCES
from rlaif_framework.pipeline.recipes import EvaluateRecipe
from rlaif_framework.pipeline.stages.respond import read_response_metrics, read_responses
from rlaif_framework.pipeline.stages.score import read_scores
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.records.rows import load_preferences


def list_measures(summary: Step, artefact: Callable[[Step], Path]) -> Iterator[Measure]:
    """Yield the win rates of a run by each judge, and for each arm the agreement of its labels, the accuracy of its
    reward, and the change of the reward, KL divergence, length and EOS rate of its policy. What was not measured is
    left out.

    Args:
        summary: The last step of the run, which summarises its evaluation.
        artefact: Returns the folder of the artefact of a step.
    """
    recipe = summary.recipe
    assert isinstance(recipe, EvaluateRecipe)
    evaluation = Evaluation.load(artefact(summary))
    yield from _list_wins(recipe, evaluation, artefact)
    for arm, results in recipe.arms.items():
        measured = evaluation.arms[arm]
        reward, labeler = measured.reward, measured.labeler
        if labeler is not None:
            yield from _measure_agreement(recipe, evaluation, arm, labeler, artefact)
        if reward is not None and reward.accuracy_gold is not None and results.comparison_scores is not None:
            margins = read_scores(artefact(results.comparison_scores))["margins"]
            rows = _score_margins(recipe, margins)
            yield _mean(f"reward_accuracy/{arm}", f"accuracy of the reward of {arm}", reward.accuracy_gold.value, rows)
        if reward is not None and reward.gain is not None and results.response_scores is not None:
            scores = read_scores(artefact(results.response_scores))
            changes = [after - before for after, before in zip(scores["policy"], scores["sft"], strict=True)]
            rows = list(zip((p.text for p in recipe.prompts), changes, strict=True))
            title = f"change of the held-out reward of {arm}"
            yield _mean(f"reward_gain/{arm}", title, reward.gain.value, rows, is_rate=False)
        if (kl := measured.find_kl()) is not None:
            yield Measure(f"kl/{arm}", f"KL of {arm} from sft", False, Measured(kl))
        if arm in recipe.responses:
            yield from _measure_responses(recipe, evaluation, arm, artefact)


def _mean(name: str, title: str, value: float, rows: Sequence[tuple[str, float]], is_rate: bool = True) -> Measure:
    """Return a measure that is the mean of values, each with its prompt."""
    return Measure(name, title, is_rate, Measured(value, [prompt for prompt, _ in rows], [x for _, x in rows]))


def _list_wins(recipe: EvaluateRecipe, evaluation: Evaluation, artefact: Callable[[Step], Path]) -> Iterator[Measure]:
    found = {(win.first, win.second, win.judge): win for win in evaluation.wins}
    for matchup in recipe.matchups:
        texts = [
            [p.reference or "" for p in recipe.prompts] if step is None else read_responses(artefact(step))
            for step in (recipe.responses.get(matchup.first), recipe.responses.get(matchup.second))
        ]
        for judge, step in matchup.judged.items():
            win = found[matchup.first, matchup.second, judge]
            if win.rate is None:
                continue
            verdicts = load_preferences(artefact(step) / PREFERENCES)
            rows = [
                (prompt.text, score_choice(verdict.probabilities[0], True), len(a), len(b))
                for prompt, a, b, verdict in zip(recipe.prompts, *texts, verdicts, strict=True)
                if (a or b) and verdict.probabilities is not None
            ]
            prefix = "" if judge == "judge" else f"{judge}/"
            pair = f"{prefix}{matchup.first}-vs-{matchup.second}"
            title = f"of {matchup.first} against {matchup.second}, judged by {evaluation.labelers[judge].title}"
            yield _mean(f"win_rate/{pair}", f"win rate {title}", win.rate.value, [row[:2] for row in rows])
            if win.length_adjusted is not None:
                both = [row for row in rows if row[2] and row[3]]  # an empty response has no ratio of lengths
                measured = Measured(
                    win.length_adjusted.value,
                    [prompt for prompt, _, _, _ in both],
                    [score for _, score, _, _ in both],
                    [a / b for _, _, a, b in both],
                )
                name = f"win_rate_length_adjusted/{pair}"
                yield Measure(name, f"length-adjusted win rate {title}", True, measured)


def _measure_agreement(
    recipe: EvaluateRecipe, evaluation: Evaluation, arm: str, labeler: str, artefact: Callable[[Step], Path]
) -> Iterator[Measure]:
    agreement = evaluation.labelers[labeler].quality.agreement
    if agreement is None:
        return
    labels = load_preferences(artefact(recipe.labels[labeler]) / PREFERENCES)
    observed = [(c.prompt.text, observe(c, label)) for c, label in zip(recipe.comparisons, labels, strict=True)]
    # As in the evaluation: labels that are copies are left out, unless all are.
    own = [(prompt, x) for prompt, x in observed if not x.copied] or observed
    rows = [(prompt, x.correct) for prompt, x in own if x.decided]
    yield _mean(f"agreement/{arm}", f"agreement of the labels of {arm}", agreement.value, rows)


def _score_margins(recipe: EvaluateRecipe, margins: Sequence[float]) -> list[tuple[str, float]]:
    """Return 1 for each comparison whose better response scores higher, 0 if it scores lower, 0.5 for equal scores."""
    return [
        (c.prompt.text, 0.5 if margin == 0 else float((margin > 0) == (c.preference > 0.5)))
        for c, margin in zip(recipe.comparisons, margins, strict=True)
        if c.preference is not None and c.preference != 0.5
    ]


def _measure_responses(
    recipe: EvaluateRecipe, evaluation: Evaluation, arm: str, artefact: Callable[[Step], Path]
) -> Iterator[Measure]:
    metrics = read_response_metrics(artefact(recipe.responses[arm]))
    for key, title, is_rate in (("tokens", "tokens of a response", False), ("eos_rate", "EOS rate", True)):
        mean = evaluation.policies[arm].get(key)
        if mean is not None:
            rows = [(prompt.text, row[key]) for prompt, row in zip(recipe.prompts, metrics, strict=True)]
            yield _mean(f"{key}/{arm}", f"{title} of {arm}", mean.value, rows, is_rate)
