"""Warn or stop if the reward rises while the responses get worse, which is a sign of reward hacking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_framework.contracts.protocols import Reward
from rlaif_framework.contracts.validation import score_responses
from rlaif_framework.files import atomic_path
from rlaif_framework.metrics.divergence import Change, Divergence, Phrase, find_divergence, judge_disagrees
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.samples import MeasuredSample
from rlaif_framework.records.step_rows import read_steps, record_step
from rlaif_framework.report.page import metric_name
from rlaif_framework.rl.config import ALARM_PROMPTS, ALARM_RESPONSES, OnlineConfig
from rlaif_framework.rl.learner import OnlineLearner
from rlaif_framework.rl.rollout_log import measure_rollout, read_rollouts
from rlaif_framework.seeds import sample_subset
from rlaif_framework.training.checkpoints import load_weights, save_weights
from rlaif_framework.training.responses import truncate_prompts

CHECKS = "alarm.jsonl"
"""File with one row per check."""


class HackingAlarm:
    """Compares the last steps' responses with those of the initial policy at regular intervals.

    There is an alarm if the reward has risen significantly and a symptom is found (`find_divergence`), or if the judge
    of the checkpoint selection prefers the initial policy (`judge_disagrees`). The checks depend on the responses only,
    so that a resumed run has the same ones.
    """

    def __init__(self, learner: OnlineLearner, reward: Reward | None) -> None:
        """Sample responses of the initial policy, and save it, since training may have to return to it.

        Args:
            learner: The models, before the first step.
            reward: Scores responses, if the arm has one.
        """
        self.config: OnlineConfig = learner.config
        self.learner, self.stage = learner, learner.stage
        self.folder = self.stage.checkpoint / "alarm"
        self.initial = self.folder / "initial.jsonl"
        """The responses of the initial policy."""
        if self.stage.is_main and self.config.alarm != "off":
            self.folder.mkdir(exist_ok=True)
            if not self._policy_file(0).exists():  # a resumed run starts with trained weights
                self._save_policy(0)
            if self._fills_window(self.config.steps) and not self.initial.exists():
                self._sample_initial(reward)
        learner.accelerator.wait_for_everyone()

    def check(self, number: int, evaluation: Mapping[str, Any] | None) -> bool:
        """Check the responses after `number` steps if a check is due; return True if training should stop.

        Args:
            number: Completed steps.
            evaluation: The evaluation of the checkpoint selection after this step, if there was one.
        """
        config, selection = self.config, self.config.checkpoint_selection
        judged = selection is not None and selection.judge is not None
        due = number % config.check_every == 0 or number == config.steps
        if config.alarm == "off" or not due:
            return False
        if not (judged or self._fills_window(number)):  # there is nothing to compare, but an alarm may return to it
            if self.stage.is_main:
                self._save_policy(number)
            return False
        raised = self.stage.is_main and self._decide(number, evaluation)
        return self.learner.any_process(raised and config.alarm == "stop")

    def finish(self) -> bool:
        """Record the checks and the first alarm in the stage's facts; return True if training was stopped by it.

        The policy is then the last saved one that sampled none of the responses that raised it.
        """
        if self.config.alarm == "off" or not self.stage.is_main:  # only this process saves the policy
            return False
        rows = read_steps(self.stage.folder / CHECKS)
        self.stage.facts["alarm_checks"] = len(rows)
        first = next((row for row in rows if row["alarm"]), None)
        if first is None:
            return False
        self.stage.facts |= {"alarm": first["alarm"] + self._advise(first), "alarm_step": first["step"]}
        if self.config.alarm != "stop":
            return False
        with self.stage.reading_checkpoint():
            load_weights(self.learner.policy_model, self._policy_file(first["last_good_step"]))
        self.stage.facts["selected_step"] = first["last_good_step"]
        return True

    def _sample_initial(self, reward: Reward | None) -> None:
        """Sample and score responses to training prompts, and save them."""
        context, stage = self.learner.context, self.stage
        prompts = sample_subset(context.task.prompts("train"), ALARM_PROMPTS, stage.seed("alarm prompts"))
        prompts, _ = truncate_prompts(context, prompts, self.learner.tokenizer)
        rollout = self.learner.roll_out(prompts, -(-ALARM_RESPONSES // len(prompts)), stage.seed("alarm"))  # rounded up
        rewards = None if reward is None else score_responses(reward, rollout.prompts, rollout.texts)
        rows = [asdict(sample) for sample in measure_rollout(rollout, rewards)]
        with atomic_path(self.initial) as temporary:
            write_rows(temporary, rows)

    def _decide(self, number: int, evaluation: Mapping[str, Any] | None) -> bool:
        """Check the responses, record the check, and return True if there is an alarm."""
        # An interrupted run may have checked after its last checkpoint: those checks are repeated.
        rows = [row for row in read_steps(self.stage.folder / CHECKS) if row["step"] < number]
        first = next((row for row in rows if row["alarm"]), None)
        last_good = self.config.step_before_check(number) if first is None else first["last_good_step"]
        row = {"step": number, "last_good_step": last_good, "alarm": self._compare(number, evaluation)}
        self.stage.report_step(number, {"alarm": float(row["alarm"] is not None)})
        record_step(self.stage.folder / CHECKS, row, self.folder)
        if row["alarm"] is None:
            self._save_policy(number)
        elif first is None:
            self.stage.progress.print(f"warning: stage '{self.stage.name}', {row['alarm']}{self._advise(row)}")
        return row["alarm"] is not None

    def _compare(self, number: int, evaluation: Mapping[str, Any] | None) -> str | None:
        """Compare the last responses with the initial ones; return a description of the signs of hacking, if any."""
        checks = -(-self.config.steps // self.config.check_every)  # rounded up
        signs = [*_describe_judge(evaluation, checks)]
        if self._fills_window(number):
            with self.stage.reading_checkpoint():
                initial = [MeasuredSample(**row) for _, row in read_rows(self.initial)]
            last = read_rollouts(self.stage, range(number - self.config.alarm_window, number))
            signs += self._describe(find_divergence(initial, last, checks))
        return f"step {number}: {'; '.join(signs)}" if signs else None

    def _fills_window(self, number: int) -> bool:
        """Return True if there have been enough steps for a comparison."""
        return number >= self.config.alarm_window

    def _describe(self, found: Divergence) -> Iterator[str]:
        """Describe how the responses diverge from the reward."""
        if found.is_hacking:
            signs = [describe_change(change) for change in found.changes]
            signs += [self._describe_phrase(found.phrase)] if found.phrase else []
            reward = f"{describe_change(found.reward)}, while " if found.reward else ""
            yield reward + ", ".join(signs)

    def _describe_phrase(self, phrase: Phrase) -> str:
        text = str(self.learner.tokenizer.decode(list(phrase.tokens))).strip()
        return f"responses with {text!r} went from {phrase.before:.0%} to {phrase.after:.0%}"

    def _advise(self, row: Mapping[str, Any]) -> str:
        """Say which policy was kept, or how to keep it."""
        step = row["last_good_step"]
        good = f"the policy after step {step}, before these responses" if step else "the initial policy"
        return f". Training stopped; kept: {good}" if self.config.alarm == "stop" else f". `alarm: stop` keeps {good}"

    def _policy_file(self, number: int) -> Path:
        return self.folder / f"step-{number}.safetensors"

    def _save_policy(self, number: int) -> None:
        """Save the policy's trained weights, to which an alarm may return, and delete those to which none can."""
        if self.config.alarm != "stop":
            return
        save_weights(self.learner.policy_model, self._policy_file(number))
        # A resumed run may repeat this check. The weights of the initial policy are always kept.
        for path in self.folder.glob("step-*.safetensors"):
            if 0 < int(path.stem.removeprefix("step-")) < self.config.step_before_check(number):
                path.unlink()


def describe_change(change: Change) -> str:
    """Describe the change of a metric: `EOS rate fell from 81% to 2%`."""
    verb = "rose" if change.after > change.before else "fell"
    form = ".0%" if change.metric.endswith("_rate") else ".3g"
    return f"{metric_name(change.metric)} {verb} from {change.before:{form}} to {change.after:{form}}"


def _describe_judge(evaluation: Mapping[str, Any] | None, checks: int) -> Iterator[str]:
    """Describe a disagreement of the judge with the reward on the validation prompts."""
    gain, rate = (evaluation or {}).get("gain"), ((evaluation or {}).get("wins") or {}).get("rate")
    if gain and rate and judge_disagrees(Estimate(**gain), Estimate(**rate), checks):
        yield (
            f"the validation reward rose by {gain['value']:.3g}, while the win rate against the initial policy is "
            f"{rate['value']:.0%}"
        )
