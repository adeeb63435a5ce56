"""Evaluate a policy on fixed validation prompts during training, and select the checkpoint to keep (RLAIF G)."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_framework.contracts.protocols import Reward
from rlaif_framework.contracts.validation import score_responses
from rlaif_framework.errors import SpecError
from rlaif_framework.files import write_atomic
from rlaif_framework.metrics.estimates import estimate_mean
from rlaif_framework.metrics.wins import measure_wins
from rlaif_framework.records.preferences import Comparison, Evidence, Preference
from rlaif_framework.records.step_rows import EVALUATIONS, read_steps, record_step
from rlaif_framework.rl.alarm import HackingAlarm
from rlaif_framework.rl.config import CheckpointSelectionConfig
from rlaif_framework.rl.kl import sample_kl
from rlaif_framework.rl.learner import OnlineLearner
from rlaif_framework.seeds import sample_subset
from rlaif_framework.training.checkpoints import load_weights, save_weights
from rlaif_framework.training.loop import StepFunction
from rlaif_framework.training.responses import truncate_prompts


def train_online(
    learner: OnlineLearner,
    reward: Reward | None,
    step: StepFunction,
    state: MutableMapping[str, float] | None = None,
) -> None:
    """Train a policy, watch it for reward hacking, select its best checkpoint if configured, and save it.

    Args:
        learner: The models, with their config.
        reward: Reward of the arm, to evaluate checkpoints with.
        step: Computes a step; see `train_steps`.
        state: Numbers that steps carry over; see `train_steps`.
    """
    config = learner.config
    alarm = HackingAlarm(learner, reward)
    selection = config.checkpoint_selection
    selector = None if selection is None else CheckpointSelector(selection, learner, reward)

    def after(number: int) -> bool:
        if selector is None:
            return alarm.check(number, None)
        stalled = selector.evaluate(number)
        return alarm.check(number, selector.evaluation) or stalled

    learner.train(config.steps, step, state=state, after=after)
    stopped = alarm.finish()
    if selector is not None and not stopped:
        selector.restore_best()
    learner.save()


class CheckpointSelector:
    """Evaluates the policy at regular intervals by its greedy responses, and keeps the best checkpoints.

    Responses are evaluated by the reward, and by the win rate against the initial policy if there is a judge. The KL
    from the initial policy is measured on further responses, at the temperature of training.
    """

    def __init__(self, config: CheckpointSelectionConfig, learner: OnlineLearner, reward: Reward | None) -> None:
        """Draw the prompts, and sample the initial policy's responses to them.

        Raises:
            SpecError: The task has no validation prompts, or there is neither a reward nor a judge.
        """
        self.config, self.learner, self.reward, self.stage = config, learner, reward, learner.stage
        if reward is None and config.judge is None:
            raise SpecError("checkpoint_selection: there is no reward; set 'judge'")
        context, stage = learner.context, learner.stage
        prompts = sample_subset(context.task.prompts("validation"), config.prompts, stage.seed("watch prompts"))
        if not prompts:
            raise SpecError("checkpoint_selection: the task has no validation prompts; remove 'checkpoint_selection'")
        self.prompts, _ = truncate_prompts(context, prompts, learner.tokenizer)
        self.judge = context.build_labeler(config.judge) if config.judge is not None else None
        self.judge_title = config.judge.title if config.judge is not None else ""
        self.folder = stage.checkpoint / "candidates"
        self.folder.mkdir(exist_ok=True)
        first = self.folder / "initial.json"
        # Saved to disk, because a resumed run starts with trained weights.
        if stage.is_main and not first.exists():
            texts, scores = self._respond(), None
            if reward is not None and self.judge is not None:  # the alarm compares the gain with the win rate
                scores = score_responses(reward, self.prompts, texts)
            write_atomic(first, json.dumps({"responses": texts, "rewards": scores}))
        learner.accelerator.wait_for_everyone()
        with stage.reading_checkpoint():
            initial = json.loads(first.read_text(encoding="utf-8"))
            self.initial: list[str] = initial["responses"]
            self.initial_rewards: list[float] | None = initial["rewards"]
        self.evaluation: dict[str, Any] | None = None
        """The evaluation after the last step, None if none was due."""

    def evaluate(self, number: int) -> bool:
        """Evaluate after `number` steps if an evaluation is due; return True if training should stop."""
        self.evaluation = None
        if number % self.config.every and number < self.learner.config.steps:
            return False
        stop = False
        if self.stage.is_main:
            self.evaluation = self._measure(number)
            self.stage.report_step(number, _to_metrics(self.evaluation))
            rows = record_step(self.stage.folder / EVALUATIONS, self.evaluation, self.folder)
            save_weights(self.learner.policy_model, self._candidate(number))
            # After saving: the new checkpoint may not be a candidate itself.
            self._delete_others(rows)
            stop = self._has_stalled(rows)
        return self.learner.any_process(stop)

    def restore_best(self) -> None:
        """Load the best checkpoint's weights into the policy, and record its step in the stage's facts."""
        if not self.stage.is_main:  # only this process saves the policy
            return
        # RLAIF G: of the candidates with the highest reward, the one with the highest win rate.
        # On a GPU, a resumed run may rank a checkpoint higher than before it was interrupted, when it was deleted.
        rows = [row for row in read_steps(self.stage.folder / EVALUATIONS) if self._candidate(row["step"]).exists()]
        candidates = self._rank_candidates(rows)
        best = max(candidates, key=lambda row: (_win_rate(row), _mean_reward(row)))
        with self.stage.reading_checkpoint():
            load_weights(self.learner.policy_model, self._candidate(best["step"]))
        self.stage.facts["selected_step"] = best["step"]

    def _respond(self) -> list[str]:
        samples = self.learner.respond(self.prompts, 0.0, self.stage.seed("watch"))
        return [self.learner.context.task.clean(s.text) for s in samples]

    def _measure(self, number: int) -> dict[str, Any]:
        """Evaluate the policy: KL, mean reward, and win rate against the initial policy if there is a judge."""
        texts = self._respond()
        kl = _to_row(sample_kl(self.learner, self.prompts, self.stage.seed("checkpoint kl")))
        row: dict[str, Any] = {"step": number, "kl": kl, "reward": None, "gain": None, "wins": None}
        if self.reward is not None:
            scores = score_responses(self.reward, self.prompts, texts)
            row["reward"] = _to_row(scores)
            if self.initial_rewards is not None:
                row["gain"] = _to_row([new - old for new, old in zip(scores, self.initial_rewards, strict=True)])
        if self.judge is not None:
            pairs = zip(self.prompts, texts, self.initial, strict=True)
            comparisons = [Comparison(p.id, p, (new, old)) for p, new, old in pairs]
            # Equal responses are a tie, which needs no request to the judge.
            different = [c for c in comparisons if c.responses[0] != c.responses[1]]
            judged = {p.comparison: p for p in self.judge.label(different)}
            tie = Evidence(source="tie")
            labels = [judged.get(c.id) or Preference(c.id, (0.5, 0.5), tie) for c in comparisons]
            row["wins"] = asdict(measure_wins("policy", "initial", self.judge_title, comparisons, labels))
        return row

    def _candidate(self, number: int) -> Path:
        return self.folder / f"step-{number}.safetensors"

    def _rank_candidates(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the evaluations with the highest mean reward; without a reward, with the highest win rate."""
        measure = _mean_reward if self.reward is not None else _win_rate
        return sorted(rows, key=lambda row: -measure(row))[: self.config.candidates]

    def _delete_others(self, rows: list[dict[str, Any]]) -> None:
        """Delete the weights of checkpoints that are no longer candidates."""
        kept = {self._candidate(row["step"]) for row in self._rank_candidates(rows)}
        for path in self.folder.glob("step-*.safetensors"):
            if path not in kept:
                path.unlink()

    def _has_stalled(self, rows: list[dict[str, Any]]) -> bool:
        """Return True if the last `patience` evaluations were no better than an earlier one."""
        patience = self.config.patience
        if patience is None or len(rows) <= patience:
            return False
        measure = _win_rate if self.judge is not None else _mean_reward
        return max(map(measure, rows[-patience:])) <= max(map(measure, rows[:-patience]))


def _to_row(values: list[float]) -> dict[str, Any] | None:
    """Estimate a mean, as plain JSON."""
    estimate = estimate_mean(values)
    return None if estimate is None else asdict(estimate)


def _to_metrics(row: dict[str, Any]) -> dict[str, float]:
    """Convert an evaluation to metrics of a step."""
    metrics = {"validation/kl": row["kl"]["value"]}
    metrics |= {"validation/reward": _mean_reward(row)} if row["reward"] else {}
    measured = row["wins"] and row["wins"]["rate"]  # None if no verdict could be read
    return metrics | ({"validation/win_rate": _win_rate(row)} if measured else {})


def _win_rate(row: dict[str, Any]) -> float:
    """Return the win rate of an evaluation; 0 without a judge or a readable verdict."""
    rate = (row["wins"] or {}).get("rate")
    return float(rate["value"]) if rate else 0.0


def _mean_reward(row: dict[str, Any]) -> float:
    """Return the mean validation reward of an evaluation; 0 without a reward."""
    return float(row["reward"]["value"]) if row["reward"] else 0.0
