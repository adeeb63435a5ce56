"""The hacking alarm on a tiny policy that learns to exploit its reward."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlaif_framework import PluginManager, Prompt, Sample, Spec, Stage
from rlaif_framework.contracts.stage import read_metrics
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.records.samples import MeasuredSample
from rlaif_framework.report.run_report import StepReport, _find_alarms
from rlaif_framework.rl import CheckpointSelector, OnlineLearner, Rollout
from rlaif_framework.rl.rollout_log import log_rollout, read_rollouts
from rlaif_framework.training.checkpoints import load_weights, save_weights
from support.world import LetterReward, World

POSTS = [f"POST: {a} saw {b} at noon\n\nTL;DR:" for a in "abcdefgh" for b in ("him", "her", "them", "us")]
PROMPTS = [Prompt(str(i), text, text) for i, text in enumerate(POSTS)]
HACKED: dict[str, Any] = {
    "steps": 10,
    "prompts_per_step": 8,
    "responses_per_prompt": 8,
    "lr": 3e-2,
    "beta": 0.0,
    "alarm_every": 2,
}
"""The policy soon writes the same token in each response, because the reward of the world prefers the letter e."""


@pytest.fixture
def world(tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path, tmp_path: Path) -> World:
    return World(tiny_spec, manager, tiny_model, tmp_path, prompts=PROMPTS)


def read_checks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "alarm.jsonl").read_text().splitlines()]


def _alarm(stage: Stage) -> str:
    return str(stage.facts["alarm"])


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_stops_with_the_policy_before_the_hack(world: World) -> None:
    stage = world.stage("stopped")
    stopped = world.train("rloo", stage, **HACKED, alarm="stop")
    alarm, good = int(stage.facts["alarm_step"]), int(stage.facts["selected_step"])
    # The last two steps are compared; the policy after the second last check has sampled none of their responses.
    assert 2 <= good == alarm - 4
    assert stage.facts["alarm_checks"] == alarm / 2
    change = rf"step {alarm}: reward rose from -?0\.\d+ to [01]\S*, while .*responses with '\w*e\w*' went from \d%"
    assert re.match(change, _alarm(stage))
    assert _alarm(stage).endswith(f"kept: the policy after step {good}, before these responses")
    assert [row["step"] for row in read_metrics(stopped)] == list(range(1, alarm + 1))
    # The saved policy is, bit for bit, that of a run which ends there.
    short = world.train("rloo", world.stage("short"), **HACKED | {"steps": good}, alarm="off")
    assert not (short / "alarm.jsonl").exists()
    assert_equal_weights(stopped, short)


def test_a_warning_changes_nothing_but_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, printed = world.stage("warned"), list[str]()
    monkeypatch.setattr(stage.progress, "print", printed.append)
    warned = world.train("rloo", stage, **HACKED)
    silent = world.train("rloo", world.stage("silent"), **HACKED, alarm="off")
    assert_equal_weights(warned, silent)
    assert read_metrics(warned) == read_metrics(silent)
    alarm, good = int(stage.facts["alarm_step"]), int(stage.facts["alarm_step"]) - 4
    assert [check["step"] for check in read_checks(warned) if not check["alarm"]] == list(range(2, alarm, 2))
    assert {check["last_good_step"] for check in read_checks(warned) if check["alarm"]} == {good}
    assert printed == [f"warning: stage 'improve', {_alarm(stage)}"]  # only the first one
    assert _alarm(stage).endswith(f"`alarm: stop` keeps the policy after step {good}, before these responses")
    steps = [StepReport(name="rlaif/policy", reused=True, seconds=1.0, peak_memory_bytes=1, facts=stage.facts)]
    assert list(_find_alarms(steps)) == [f"stage 'rlaif/policy', {_alarm(stage)}"]


def test_a_killed_run_stops_at_the_same_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = world.stage("whole")
    whole = world.train("rloo", finished, **HACKED, alarm="stop")
    last = int(finished.facts["alarm_step"]) - 2
    stage = world.stage("cut", seconds=0)
    log = stage.log

    def log_and_die(number: int, metrics: Any) -> None:
        log(number, metrics)
        # The last checkpoint is older than the last check without an alarm, which is repeated.
        stage.checkpoint_seconds = 0 if number < last else 1e9
        if number == last + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "log", log_and_die)
    with pytest.raises(KeyboardInterrupt):
        world.train("rloo", stage, **HACKED, alarm="stop")
    assert [path.name for path in stage.checkpoint.glob("step-*")] == [f"step-{last - 1}"]
    resumed = world.stage("cut")
    cut = world.train("rloo", resumed, **HACKED, alarm="stop")
    assert resumed.facts == finished.facts
    assert read_checks(cut) == read_checks(whole)
    assert_equal_weights(whole, cut)


def test_a_hack_within_the_first_steps_is_found(world: World) -> None:
    """The responses are compared with those of the initial policy, not with those of the first steps."""
    stage = world.stage("fast")
    world.train("rloo", stage, **HACKED | {"steps": 6, "lr": 1e-1, "alarm_every": 6}, alarm="stop")
    assert "alarm" in stage.facts
    assert stage.facts["selected_step"] == 0


def test_a_judge_who_prefers_the_initial_policy_raises_the_alarm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge's verdicts replace those of the evaluations; the alarm then keeps the initial policy."""
    measure = CheckpointSelector._measure

    def judged(self: CheckpointSelector, number: int) -> dict[str, Any]:
        row = measure(self, number)
        assert row["gain"]["value"] == pytest.approx(row["reward"]["value"] - fmean(self.initial_rewards or []))
        rate = asdict(Estimate(0.1, 0.0, 0.2, 60))
        return {**row, "gain": asdict(Estimate(1.0, 0.5, 1.5, 60)), "wins": {**row["wins"], "rate": rate}}

    monkeypatch.setattr(CheckpointSelector, "_measure", judged)
    selection = {"every": 2, "prompts": 8, "judge": "test/taste"}
    settings = {**HACKED, "steps": 4, "checkpoint_selection": selection, "alarm": "stop"}
    stage = world.stage("run")
    folder = world.train("rloo", stage, **settings)
    (check,) = read_checks(folder)
    reason = "the validation reward rose by 1, while the win rate against the initial policy is 10%"
    assert check["alarm"] == f"step 2: {reason}"
    assert stage.facts["selected_step"] == 0
    assert len(read_metrics(folder)) == 2
    assert_equal_weights(folder, world.model)


def test_a_task_without_a_copy_rate_is_measured_all_the_same(world: World) -> None:
    stage = world.stage("run")
    source = "we met at noon and he saw them again"
    prompt, sample = Prompt("p", f"POST: {source}\n\nTL;DR:", source), Sample([5, 6, 2], source, True)
    rollout = Rollout([prompt], [sample], [source], [], [{"tokens": 3.0, "task/rougeL": 0.5}])
    log_rollout(stage, 0, rollout, [1.5])
    metrics = {"tokens": 3.0, "rougeL": 0.5, "copy_rate": 1.0, "reward": 1.5}
    # An algorithm need not save its samples.
    assert read_rollouts(stage, range(2)) == [MeasuredSample("p", [5, 6], metrics)]


def test_an_alarm_that_could_not_stop_is_refused(manager: PluginManager) -> None:
    settings = {"kind": "rloo", "prompts_per_step": 4, "responses_per_prompt": 4, "alarm": "stop"}
    with pytest.raises(ValueError, match=r"compares the responses of 2 steps .* and there are 1 steps"):
        narrow("algorithm", {**settings, "steps": 1}, manager)


@pytest.mark.parametrize(("steps", "window"), [(2, 2), (6, 2), (9, 3), (11, 3), (12, 4), (90, 4)])
def test_a_check_compares_at_most_a_third_of_the_steps(steps: int, window: int, manager: PluginManager) -> None:
    settings = {"kind": "rloo", "prompts_per_step": 4, "responses_per_prompt": 4, "steps": steps, "alarm": "stop"}
    config: Any = narrow("algorithm", settings, manager)
    assert config.alarm_window == window


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({"steps": 12, "alarm_every": 5}, [3, 4, 8, 9, 10, 11]),  # checks after 5, 10 and 12 steps
        ({"steps": 6, "alarm_every": 1}, [0, 1, 2, 3, 4, 5]),
        ({"steps": 1, "prompts_per_step": 4}, []),
        ({"steps": 12, "alarm": "off"}, []),
    ],
    ids=["regular", "every step", "too short", "off"],
)
def test_only_responses_that_a_check_reads_are_kept(
    settings: dict[str, Any], read: list[int], manager: PluginManager
) -> None:
    shape = {"kind": "rloo", "prompts_per_step": 8, "responses_per_prompt": 4}
    config: Any = narrow("algorithm", {**shape, **settings}, manager)
    assert [number for number in range(config.steps) if config.alarm_reads(number)] == read


def test_only_an_alarm_that_may_stop_is_in_the_key(manager: PluginManager) -> None:
    def unused(**settings: Any) -> frozenset[str]:
        return narrow("algorithm", {"kind": "rloo", **settings}, manager).unused_settings

    assert unused() == unused(alarm="off") == unused(alarm_every=3) == {"alarm", "alarm_every"}
    assert unused(alarm="stop") == frozenset()


def test_the_rewards_that_label_pairs_are_those_of_the_alarm(world: World) -> None:
    stage = world.stage("rewarded", max_new_tokens=1)
    folder = world.train("online-dpo", stage, **HACKED | {"steps": 6, "lr": 1e-9, "samples_every": 1})
    samples = read_rollouts(stage, range(6))
    assert samples
    assert all("reward" in sample.metrics for sample in samples)
    assert not any(row["alarm"] for row in read_checks(folder))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for path in (folder / "samples").iterdir() for line in path.open()]
    assert {row["preferred"] is None for row in rows} == {True, False}  # equal responses have no label
    assert all(isinstance(row["reward"], float) for row in rows)


def test_half_a_file_of_weights_is_no_policy_to_return_to(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = torch.nn.Linear(2, 1), tmp_path / "step-0.safetensors"

    def fail(tensors: Any, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("rlaif_framework.training.checkpoints.save_file", fail)
        with pytest.raises(OSError, match="no space left"):
            save_weights(model, path)
    assert list(tmp_path.glob("*.safetensors*")) == []
    save_weights(model, path)
    load_weights(model, path)


def test_a_checkpoint_that_was_deleted_is_not_selected(world: World) -> None:
    stage = world.stage("deleted")
    settings = {"steps": 4, "checkpoint_selection": {"every": 1, "prompts": 2, "candidates": 4}, "alarm": "off"}
    world.train("rloo", stage, **HACKED | settings)
    config: Any = narrow("algorithm", {"kind": "rloo", **HACKED, **settings}, world.manager)
    learner = OnlineLearner(config, stage.context, stage, world.model)
    selector = CheckpointSelector(config.checkpoint_selection, learner, LetterReward())
    best = stage.facts["selected_step"]
    selector._candidate(int(best)).unlink()
    selector.restore_best()
    assert stage.facts["selected_step"] in {1, 2, 3, 4} - {best}
