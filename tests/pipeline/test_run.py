"""The whole job on a tiny model: it runs, repeats itself bit for bit, resumes, and learns what the oracle likes."""

from __future__ import annotations

import io
import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlaif_framework import PluginManager, Spec, Store, TrainingError, plan_spec, run_spec
from rlaif_framework.contracts import read_metrics
from rlaif_framework.pipeline.stages.respond import read_responses
from rlaif_framework.pipeline.steps import find_steps
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.progress import Progress
from support.oracle import taste
from support.runs import digest, execute, run_rows


def test_a_run_folder_holds_what_it_promises(run_folder: Path) -> None:
    for name in ("spec.yaml", "environment.json", "report.html", "report.json", "run.json"):
        assert (run_folder / name).stat().st_size > 0, name
    assert list(run_folder.glob("tensorboard/**/events.*"))
    assert [row["step"] for row in read_metrics(run_folder / "rlaif/policy")] == [1, 2, 3]
    assert len((run_folder / "rlaif/policy/samples/step-00001.jsonl").read_text().splitlines()) == 8


def test_transformers_opens_policy_and_reward_model_with_no_line_of_ours(run_folder: Path) -> None:
    policy: Any = AutoModelForCausalLM.from_pretrained(run_folder / "rlaif/policy")
    tokenizer = AutoTokenizer.from_pretrained(run_folder / "rlaif/policy")
    assert policy.generate(**tokenizer("POST: hello", return_tensors="pt"), max_new_tokens=3).shape[1] > 3
    reward = AutoModelForSequenceClassification.from_pretrained(run_folder / "rlaif/reward")
    assert reward.config.num_labels == 1
    start = AutoModelForCausalLM.from_pretrained(run_folder / "sft")
    moved = [not torch.equal(a, b) for a, b in zip(policy.parameters(), start.parameters(), strict=True)]
    assert any(moved), "the policy was saved as it started"


def test_the_first_step_is_on_policy(run_folder: Path) -> None:
    first = read_metrics(run_folder / "rlaif/policy")[0]
    assert abs(first["kl_k1"]) < 1e-5
    assert abs(first["kl_k3"]) < 1e-5


def test_a_second_run_reuses_every_stage_and_changing_the_algorithm_relabels_nothing(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    store = run_folder.parent / f"{run_folder.name}-store"
    again = execute(tiny_spec(), tmp_path / "again", manager, store)
    assert all(again.reused.values())
    assert digest(tmp_path / "again") == digest(run_folder)
    spec = tiny_spec()
    arms = spec.model_dump(mode="json")["arms"]
    arms["rlaif"]["algorithm"]["lr"] = 5e-4
    todo = {p.name for p in plan_spec(tiny_spec(arms=arms), Store(store), manager) if not p.cached}
    assert "rlaif/policy" in todo
    assert not todo & {"sft", "rlaif/pairs", "rlaif/labels", "rlaif/reward", "evaluation/labels/rlaif"}


def test_arms_share_the_stages_they_have_in_common(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    spec = tiny_spec().model_dump(mode="json")
    base, evaluate = spec["arms"]["rlaif"], {**spec["evaluate"], "prompts": 2, "comparisons": 2}
    other = {**base, "algorithm": {**base["algorithm"], "beta": 0.2}}
    two = tiny_spec(arms={"low": base, "high": other}, evaluate=evaluate)
    run = execute(two, tmp_path / "two", manager)
    assert run.reused["high/labels"]
    assert run.reused["high/reward"]
    assert not run.reused["high/policy"]
    evaluation = json.loads((tmp_path / "two/evaluation/summary/evaluation.json").read_text())
    assert [(w["first"], w["second"]) for w in evaluation["wins"]] == [("low", "sft"), ("high", "sft"), ("low", "high")]


def test_every_matchup_is_judged_by_every_judge_on_every_response(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    evaluate = tiny_spec().model_dump(mode="json")["evaluate"]
    evaluate |= {"judges": {"by-rouge": "rouge"}, "responses": 3, "temperature": 1.0, "prompts": 4}
    store = run_folder.parent / f"{run_folder.name}-store"
    run = execute(tiny_spec(evaluate=evaluate), tmp_path / "run", manager, store)
    assert run.reused["rlaif/policy"]
    responses = read_responses(tmp_path / "run/evaluation/responses/rlaif")
    assert len(responses) == 12
    assert len(set(responses[:3])) > 1, "the responses to a prompt are copies"
    evaluation = json.loads((tmp_path / "run/evaluation/summary/evaluation.json").read_text())
    assert (evaluation["prompts"], evaluation["responses"]) == (4, 3)
    assert [(win["judge"], win["rate"]["count"], win["rate"]["clusters"]) for win in evaluation["wins"]] == [
        ("judge", 12, 4),
        ("by-rouge", 12, 4),
    ]
    judged = run_rows(tmp_path / "run/evaluation/judges/by-rouge/rlaif-vs-sft/preferences.jsonl")
    assert len({row["comparison"] for row in judged}) == 12
    (difference,) = evaluation["differences"]
    means = [evaluation["policies"][name]["rougeL"]["value"] for name in ("rlaif", "sft")]
    assert difference["metrics"]["rougeL"]["value"] == pytest.approx(means[0] - means[1])


WATCHING = """
from rlaif_framework import hookimpl

@hookimpl
def rlaif_run_started(run):
    raise SystemExit("[/b] no licence")

@hookimpl
def rlaif_step_logged(run, number):
    run.notes.setdefault("watching", []).append(number)
    raise KeyError("reward")

@hookimpl
def rlaif_run_finished(run, error):
    run.notes["error"] = error
    raise ValueError("the mail server\\nis down")
"""


def watch_with(manager: PluginManager, name: str) -> None:
    """Add a plugin that fails in three hooks."""
    module = types.ModuleType(f"rlaif_{name}")
    exec(WATCHING, vars(module))
    manager.add(Plugin(name, f"rlaif-{name}", "1.0", module=module))


def test_a_hook_that_fails_is_told_once_and_ends_no_run(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    watch_with(manager, "first")
    watch_with(manager, "second")
    out = io.StringIO()
    store = Store(tmp_path / "store")
    run = run_spec(tiny_spec(arms={}, evaluate=None), tmp_path / "run", store, manager, Progress(Console(file=out)))
    assert run.notes["watching"] == [1, 1, 2, 2, 3, 3], "a plugin was not told, for another one's fault"
    for name in ("first", "second"):
        told = [line for line in out.getvalue().splitlines() if f"plugin '{name}'" in line]
        assert told == [
            f"warning: plugin '{name}' failed in rlaif_run_started: SystemExit: [/b] no licence",
            f"warning: plugin '{name}' failed in rlaif_step_logged: KeyError: 'reward'",
            f"warning: plugin '{name}' failed in rlaif_run_finished: ValueError: the mail server is down",
        ]
    assert digest(tmp_path / "run/sft") == digest(run_folder / "sft")


def test_a_hook_that_fails_hides_no_error(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    watch_with(manager, "first")
    weak = tiny_spec().model_dump(mode="json")["arms"]
    weak["rlaif"]["feedback"]["allow_weak_labels"] = False
    with pytest.raises(TrainingError, match=r"rlaif/gate: .* not above chance"):
        execute(tiny_spec(arms=weak, sft=None), tmp_path / "run", manager)


def test_a_loss_that_is_not_finite_stops_with_stage_and_step(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rlaif_framework.training.fine_tuning as fine_tuning

    monkeypatch.setattr(
        fine_tuning, "response_logprobs", lambda model, packed: torch.full((3,), float("nan"), requires_grad=True)
    )
    with pytest.raises(TrainingError, match=r"sft: stage 'sft', step 1 of 3, update 1 \(.*\): loss.* not finite"):
        execute(tiny_spec(), tmp_path / "run", manager)


@pytest.mark.parametrize(("lora", "steps"), [({"rank": 8}, 25), (None, 15)])
def test_a_policy_comes_to_win_by_the_oracles_own_count(
    lora: dict[str, int] | None, steps: int, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    base = tiny_spec().model_dump(mode="json")
    arms = {
        "oracle": {
            "reward": {"kind": "test/taste", "scale": 20.0},
            "algorithm": {**base["arms"]["rlaif"]["algorithm"], **STRONG, "lr": 1e-2, "steps": steps},
        }
    }
    policy = {**base["policy"], "lora": lora}
    execute(tiny_spec(arms=arms, policy=policy, evaluate=BY_ORACLE), tmp_path / "run", manager)
    check_improvement(tmp_path / "run", "oracle")


def test_labels_to_reward_model_to_policy_follow_the_oracles_taste(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    base = tiny_spec().model_dump(mode="json")
    arm = base["arms"]["rlaif"]
    arm["feedback"]["pairs"] = {"source": "both", "limit": 200, "temperature": 1.0}
    arm["reward"] = {"kind": "bradley-terry", "lr": 3e-3, "batch_size": 8, "epochs": 8}
    arm["algorithm"] |= {**STRONG, "lr": 3e-3, "steps": 60}
    policy, sft = {**base["policy"], "lora": None}, {"lr": 3e-3, "batch_size": 8, "epochs": 4}
    execute(tiny_spec(arms={"rlaif": arm}, policy=policy, sft=sft, evaluate=BY_ORACLE), tmp_path / "run", manager)
    check_improvement(tmp_path / "run", "rlaif")


STRONG = {
    "steps": 40,
    "prompts_per_step": 8,
    "responses_per_prompt": 4,
    "value_lr": 1e-3,
    "value_from": "sft",
    "beta": 0.0,
}


BY_ORACLE = {"judge": "test/taste", "prompts": 30, "temperature": 0.9, "comparisons": 4}


def check_improvement(folder: Path, arm: str) -> None:
    """The judge, the reward and a direct count must all say that the policy is better than the baseline."""
    evaluation = json.loads((folder / "evaluation/summary/evaluation.json").read_text())
    (win,) = evaluation["wins"]
    assert win["rate"]["low"] > 0.5, "the judge does not prefer the improved policy"
    assert evaluation["arms"][arm]["reward"]["gain"]["low"] > 0, "the held-out reward did not rise"
    before, after = (
        sum(taste(text, "e") for text in read_responses(folder / f"evaluation/responses/{name}"))
        for name in ("sft", arm)
    )
    assert after > 1.3 * before, "counted directly, the responses do not hold more of the letter"


def arms_of_every_shape(tiny_model: Path) -> dict[str, Any]:
    """Without a reward, without training, with a teacher, labelled on the spot, and iterated."""
    feedback = {
        "kind": "ai",
        "labeler": "test/taste",
        "pairs": {"source": "policy", "prompts": 8, "responses": 3},
        "allow_weak_labels": True,
    }
    backend = {"kind": "transformers", "model": str(tiny_model), "dtype": "fp32"}
    online = {"steps": 2, "prompts_per_step": 4, "lr": 1e-3}
    return {
        "offline": {"feedback": feedback, "algorithm": {"kind": "dpo", "lr": 1e-3, "batch_size": 8}},
        "best": {"reward": "test/taste", "algorithm": {"kind": "best-of-n", "n": 8}},
        "taught": {"algorithm": {"kind": "teacher", "backend": backend, "prompts": 6, "sft": {"batch_size": 3}}},
        "spot": {"algorithm": {"kind": "online-dpo", "labeler": "test/taste", **online}},
        "twice": {
            "feedback": feedback,
            "reward": {
                "kind": "sum",
                "terms": {"taste": "bradley-terry", "length": "length"},
                "weights": {"length": -1},
            },
            "algorithm": {"kind": "rloo", "responses_per_prompt": 2, **online},
            "rounds": 2,
        },
    }


def test_arms_of_every_shape_run_together_and_are_reported(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path
) -> None:
    arms = arms_of_every_shape(tiny_model)
    evaluate = {**BY_ORACLE, "prompts": 12, "matchups": [[arm, "sft"] for arm in arms]}
    spec = tiny_spec(arms=arms, evaluate=evaluate)
    run = execute(spec, tmp_path / "run", manager)
    folder = tmp_path / "run"
    measured = json.loads((folder / "report.json").read_text())["evaluation"]
    assert {name for name, arm in measured["arms"].items() if arm["reward"] is None} == {
        "offline",
        "taught",
        "spot",
    }
    assert measured["arms"]["best"]["reward"]["gain"]["low"] > 0, "the best of 8 has no higher reward than one"
    bounds = {name: arm["kl_bound"] for name, arm in measured["arms"].items() if arm["kl_bound"] is not None}
    assert bounds == {"best": pytest.approx(math.log(8) - 7 / 8)}
    assert {win["first"] for win in measured["wins"]} == arms.keys()
    assert all(read_responses(folder / f"evaluation/responses/{arm}") for arm in arms)
    assert (folder / "report.html").stat().st_size > 10_000
    # The second round samples from the first round's policy, and starts there.
    steps = {step.name: step for step in run.steps}
    first = steps["twice/round-1/policy"]
    assert list(find_steps(steps["twice/round-1/pairs"].recipe)) == [steps["sft"]]
    assert list(find_steps(steps["twice/pairs"].recipe)) == [first]
    assert first in find_steps(steps["twice/policy"].recipe)
    texts = [(folder / name / "comparisons.jsonl").read_text() for name in ("twice/pairs", "twice/round-1/pairs")]
    assert texts[0] != texts[1]
    prompts = [{row["prompt"]["id"] for row in map(json.loads, text.splitlines())} for text in texts]
    assert not prompts[0] & prompts[1], "both rounds label pairs of the same prompts"
    drawn = [
        {row["prompt"] for path in (folder / name / "samples").iterdir() for row in run_rows(path)}
        for name in ("twice/policy", "twice/round-1/policy")
    ]
    assert drawn[0] != drawn[1], "both rounds train on the same prompts"
    assert {"reward/taste", "reward/length"} <= read_metrics(folder / "twice/policy")[0].keys()
    # Round 1 labels what the offline arm labels: the work is shared.
    assert steps["twice/round-1/labels"].key == steps["offline/labels"].key
    again = execute(spec, tmp_path / "again", manager, store=tmp_path / "run-store")
    assert all(again.reused.values())


def test_the_plan_lists_the_models_of_every_shape(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, tiny_model: Path
) -> None:
    spec = tiny_spec(arms=arms_of_every_shape(tiny_model), evaluate=None)
    planned = {step.name: [load.role for load in step.loads] for step in plan_spec(spec, Store(tmp_path), manager)}
    assert planned["offline/policy"] == ["policy", "KL reference"]
    assert planned["twice/reward"] == ["reward model"]
    assert planned["twice/policy"] == ["policy", "KL reference", "reward"]
    assert "taught/policy" in planned
    assert "twice/round-1/policy" in planned
