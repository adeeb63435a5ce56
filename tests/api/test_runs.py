"""A run from Python is the run of the command, and what it made answers and scores as its evaluation."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlaif_framework as rlaif
from rlaif_framework import (
    Arm,
    Context,
    DataError,
    ModelError,
    PluginError,
    PluginManager,
    PolicyConfig,
    Prompt,
    RlaifError,
    RunResult,
    Spec,
    SpecError,
)
from rlaif_framework.records import read_rows
from support.chat_models import save_chat_model
from support.fake_plugins import write_rows
from support.runs import digest, execute

LENGTH_ARM = {
    "reward": {"kind": "length", "target": 20},
    "algorithm": {"kind": "rloo", "steps": 2, "prompts_per_step": 2, "responses_per_prompt": 2, "lr": 1e-3},
}


@pytest.fixture(autouse=True)
def _plugins(manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is no installed plugin."""
    monkeypatch.setattr(PluginManager, "load", lambda **settings: manager)


@pytest.fixture
def small(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """A spec that runs in a second, as a mapping."""
    posts = [{"post": f"my dog ate {i} shoes and I am sad", "summary": f"dog ate {i} shoes"} for i in range(40)]
    return {
        "name": "small",
        "task": {"kind": "tldr", "data": str(write_rows(tmp_path / "posts.jsonl", posts))},
        "policy": {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 6},
        "sft": None,
        "arms": {"rl": LENGTH_ARM},
        "evaluate": {"judge": "length", "prompts": 4},
    }


@pytest.fixture
def result(run_folder: Path) -> RunResult:
    return rlaif.load_run(run_folder)


def sampled(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """The prompts that were evaluated, by id, with the responses of a policy."""
    for _, row in read_rows(folder / f"evaluation/responses/{name}/responses.jsonl"):
        yield row["prompt"], row["response"]


def evaluated(result: RunResult, name: str) -> tuple[list[Prompt], list[str]]:
    prompts = {prompt.id: prompt for prompt in result.prompts()}
    rows = list(sampled(result.folder, name))
    return [prompts[key] for key, _ in rows], [response for _, response in rows]


# Running


def test_a_mapping_a_spec_and_a_file_are_the_same_run(small: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small), encoding="utf-8")
    built = Spec(
        name="small",
        task=small["task"],
        policy=PolicyConfig(**small["policy"]),
        sft=None,
        arms={"rl": Arm.model_validate(LENGTH_ARM)},
        evaluate=small["evaluate"],
    )
    store = tmp_path / "store"
    first = rlaif.run(small, tmp_path / "a", store=store, verbose=False)
    steps = json.loads((first.folder / "run.json").read_text())
    mixed = {**small, "arms": {"rl": Arm.model_validate(LENGTH_ARM)}}
    forms: list[Any] = [file, str(file), built, mixed]
    for number, given in enumerate(forms):
        again = rlaif.run(given, tmp_path / f"b{number}", store=store, verbose=False)
        assert json.loads((again.folder / "run.json").read_text()) == steps
        assert again.report is not None
        assert all(step.reused for step in again.report.steps)
    assert first.evaluation is not None
    assert first.evaluation.prompts == 4


def test_a_run_from_python_computes_what_the_command_computes(
    small: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small), encoding="utf-8")
    command = request.getfixturevalue("rlaif")
    places = ("--out", tmp_path / "a", "--store", tmp_path / "sa")
    assert command("run", file, *places, "--set", "arms.rl.algorithm.lr=5e-3")[0] == 0
    rlaif.run(file, tmp_path / "b", store=tmp_path / "sb", set={"arms.rl.algorithm.lr": 5e-3}, verbose=False)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_values_are_overridden_by_keyword_and_by_path(small: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"arms\.rl\.algorithm\.steps"):
        rlaif.run(small, seed=3, set={"arms.rl.algorithm.steps": 0})
    from rlaif_framework.api.settings import to_overrides
    from rlaif_framework.spec.loading import resolve_spec

    values = {"seed": 7, "arms.rl.reward": {"kind": "length", "per": 2e-5}, "name": "a: b # 'é\n😀", "sft.lr": 1e22}
    with pytest.raises(SpecError, match="name"):  # read as it was given, not as YAML
        resolve_spec(small, to_overrides(values), PluginManager.load())
    values["name"] = "x"
    spec = resolve_spec(small, to_overrides(values), PluginManager.load())
    assert isinstance(spec, Spec)
    assert (spec.seed, spec.arms["rl"].reward.per, spec.name) == (7, 2e-5, "x")  # type: ignore[union-attr]
    assert spec.sft is not None
    assert spec.sft.lr == 1e22
    again = resolve_spec(spec, to_overrides({"seed": 8}), PluginManager.load())
    assert again == spec.model_copy(update={"seed": 8})
    assert small["arms"]["rl"]["reward"] == LENGTH_ARM["reward"]  # the caller's mapping is unchanged


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms__rl__rounds": 2}, r"write set=\{'arms\.rl\.rounds'"),
        ({"sed": 2}, "the settings are name, seed"),
        ({"set": {"arms.rl.rounds": object()}}, "not JSON serializable"),
        ({"requires": ["rlaif-nowhere"]}, "rlaif-nowhere"),
        ({"policy": {"model": "/nowhere"}}, "no model at /nowhere"),
    ],
    ids=["underscores", "unknown", "object", "plugin", "model"],
)
def test_mistakes_are_errors_of_the_framework(
    small: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RlaifError, match=message):
        rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False, **settings)


def test_a_spec_is_a_file_a_mapping_or_a_spec() -> None:
    with pytest.raises(SpecError, match="not a list"):
        rlaif.run([])
    with pytest.raises(SpecError, match="a spec is the path of a file, a mapping or a Spec, not a dict in a list"):
        rlaif.run([{"task": "tldr"}])  # type: ignore[list-item]
    with pytest.raises(SpecError, match="nowhere"):
        rlaif.run("nowhere.yaml")


def test_the_process_of_the_caller_is_left_as_it_was(
    small: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()

    def facts() -> tuple[object, ...]:
        return (
            signal.getsignal(signal.SIGINT),
            sys.unraisablehook,
            sys.stdout,
            dict(os.environ),
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            warnings.filters[:],
        )

    before = facts()
    try:
        rlaif.run(small, tmp_path / "out", store=tmp_path / "store")
        assert facts() == before
    finally:
        logging.set_verbosity_error()
    printed = capfd.readouterr()
    assert "[1/" in printed.out
    assert "report: " in printed.out
    assert printed.err == ""
    rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False)
    assert capfd.readouterr() == ("", "")


def test_a_run_works_in_a_running_event_loop(small: dict[str, Any], tmp_path: Path) -> None:
    async def call() -> RunResult:
        return rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False)

    assert asyncio.run(call()).evaluation is not None


def test_an_interrupted_run_raises_and_the_next_call_resumes(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlaif_framework.contracts.stage import Stage

    log = Stage.log

    def interrupt(stage: Stage, number: int, metrics: Any) -> None:
        log(stage, number, metrics)
        if stage.name == "improve":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "log", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False)
    result = rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False)
    assert result.report is not None
    reused = {step.name: step.reused for step in result.report.steps}
    assert reused["sft"]
    assert not reused["rl/policy"]


def test_importing_the_package_imports_no_torch() -> None:
    import subprocess

    code = "import sys, rlaif_framework; print({'torch', 'transformers', 'datasets', 'rich'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Results


def test_a_result_has_the_evaluation_and_the_paths(result: RunResult, run_folder: Path) -> None:
    assert result.folder == run_folder
    assert result.evaluation is not None
    assert result.evaluation.prompts == 6
    assert list(result.arms) == ["rlaif"]
    arm = result.arms["rlaif"]
    assert arm.measured == result.evaluation.arms["rlaif"]
    assert result.policy_path() == arm.policy_path == run_folder / "rlaif" / "policy"
    assert result.reward_path("rlaif") == arm.reward_path
    assert result.policy_path("sft") == run_folder / "sft"
    assert result.report_path is not None
    assert result.report_path.exists()
    assert arm.labels_path is not None
    assert (arm.labels_path / "preferences.jsonl").exists()
    assert "win rate" in repr(result)


def test_a_notebook_shows_the_findings_escaped(result: RunResult) -> None:
    assert result.report is not None
    shown = result._repr_html_()
    assert shown is not None
    assert "<li>rlaif against sft: win rate" in shown
    assert "<script" not in shown
    hostile = result.report.model_copy(update={"summary": ["<script>alert(1)</script>"]})
    assert "<script" not in hostile._repr_html_()


def test_a_run_without_evaluation_has_paths_only(small: dict[str, Any], tmp_path: Path) -> None:
    result = rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False, evaluate=None)
    assert (result.evaluation, result.report, result.report_path, result._repr_html_()) == (None,) * 4
    assert result.policy().generate("POST: a dog\n\nTL;DR:")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda result: result.policy("rlai"), "did you mean 'rlaif'"),
        (lambda result: result.reward("sft"), "no arm named 'sft'"),
        (lambda result: result.labeler("nobody"), "no labeler named 'nobody'"),
        (lambda result: result.prompts("tset"), "no split named 'tset'; did you mean 'test'"),
        (lambda result: rlaif.load_policy(result.folder.parent / "tiny", "rlaif"), "not the folder of a run"),
        (lambda result: rlaif.load_run(result.folder / "rlaif"), "not the folder of a run"),
        (lambda result: rlaif.load_reward(result.folder / "rlaif" / "policy"), "reward model"),
    ],
    ids=["arm", "baseline", "labeler", "split", "model", "run", "kind"],
)
def test_what_a_run_does_not_have_is_an_error(
    result: RunResult, ask: Callable[[RunResult], object], message: str
) -> None:
    with pytest.raises(RlaifError, match=message):
        ask(result)


def test_a_policy_that_is_not_finished_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    for name in ("run.json", "spec.yaml"):
        (tmp_path / name).write_bytes((run_folder / name).read_bytes())
    with pytest.raises(DataError, match="finish the run"):
        rlaif.load_policy(tmp_path)


def test_a_spec_that_trusts_code_needs_the_consent_of_the_caller(run_folder: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load((run_folder / "spec.yaml").read_text())
    spec["arms"]["rlaif"]["reward"]["trust_remote_code"] = True
    (tmp_path / "run.json").write_bytes((run_folder / "run.json").read_bytes())
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    for load in (rlaif.load_run, rlaif.load_policy, rlaif.load_reward, rlaif.load_labeler):
        with pytest.raises(ModelError, match="trust_remote_code=True"):
            load(tmp_path)
    assert rlaif.load_run(tmp_path, trust_remote_code=True).spec.name == "tiny"


# Policies


@pytest.mark.parametrize("name", ["sft", "rlaif"])
def test_a_policy_generates_what_was_evaluated(result: RunResult, name: str) -> None:
    prompts, responses = evaluated(result, name)
    assert any(responses)
    assert result.policy(name).generate(prompts) == responses
    path = result.policy_path(name)
    loaded = rlaif.load_policy(path)
    assert loaded.generate(prompts) == responses
    assert [loaded.generate(prompt) for prompt in prompts[:2]] == [[text] for text in responses[:2]]


@pytest.mark.parametrize("family", ["chatml", "llama2"])
def test_a_chat_policy_generates_what_was_evaluated_for_messages_too(
    family: str, small: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    model = save_chat_model(family, tiny_model, tmp_path / family)
    result = rlaif.run(
        small,
        tmp_path / "out",
        store=tmp_path / "store",
        verbose=False,
        set={"policy.model": str(model), "policy.max_prompt_tokens": 900},
    )
    prompts, responses = evaluated(result, "rl")
    policy = rlaif.load_policy(tmp_path / "out")
    messages = [[{"role": turn.role, "content": turn.content} for turn in p.conversation] for p in prompts]
    assert policy.generate(prompts) == policy.generate(messages) == responses
    assert policy.generate(messages[0]) == responses[:1]


def test_sampled_responses_are_those_of_the_evaluation(small: dict[str, Any], tmp_path: Path) -> None:
    evaluate = {**small["evaluate"], "temperature": 0.8, "responses": 2}
    result = rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False, evaluate=evaluate, seed=5)
    prompts, responses = evaluated(result, "rl")
    assert len(prompts) == 8
    policy = result.policy()
    assert policy.generate(prompts, temperature=0.8) == responses
    assert policy.generate(prompts, temperature=0.8, seed=6) != responses


def test_an_algorithm_that_responds_itself_responds_as_evaluated(small: dict[str, Any], tmp_path: Path) -> None:
    arms = {"best": {"reward": {"kind": "length"}, "algorithm": {"kind": "best-of-n", "n": 3}}}
    result = rlaif.run(small, tmp_path / "out", store=tmp_path / "store", verbose=False, arms=arms)
    prompts, responses = evaluated(result, "best")
    assert result.policy().generate(prompts) == responses
    assert result.policy("sft").generate(prompts) != responses


def test_a_model_of_no_run_generates_as_transformers_does(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = rlaif.load_policy(tiny_model)
    messages = [{"role": "user", "content": "Hello there"}]
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=policy._context.dtype)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        new = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True).strip()
    assert policy.generate(messages, max_new_tokens=8) == [expected]
    assert policy.generate("Hello there", max_new_tokens=8) == [expected]
    assert policy.generate([]) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (3, "prompt 1: expected a text"),
        ("  ", "prompt 1: it is empty"),
        ([{"role": "assistant", "content": "hi"}], "ends with a turn of Assistant"),
        ([{"role": "wizard", "content": "hi"}], "known roles"),
    ],
    ids=["number", "empty", "answered", "role"],
)
def test_prompts_that_cannot_be_read_are_errors(result: RunResult, prompt: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        result.policy("sft").generate([prompt])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"temperature": -1.0}, "temperature is -1"), ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1")],
    ids=["temperature", "length"],
)
def test_settings_out_of_bounds_are_errors(result: RunResult, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        result.policy("sft").generate("a", **settings)


# Rewards


def test_a_reward_scores_what_was_evaluated(result: RunResult) -> None:
    prompts, responses = evaluated(result, "rlaif")
    expected = json.loads((result.folder / "evaluation/scores/rlaif/scores.json").read_text())["policy"]
    for reward in (result.reward(), rlaif.load_reward(result.folder / "rlaif" / "reward")):
        assert reward.score(prompts, responses) == pytest.approx(expected, abs=1e-5)
        alone = [reward.score(prompt, [text])[0] for prompt, text in zip(prompts, responses, strict=True)]
        assert alone == pytest.approx(expected, abs=1e-4)
        chat = [[{"role": "assistant", "content": text}] for text in responses]
        # As TRL calls a reward function.
        assert reward.score(prompts=prompts, completions=chat, completion_ids=[[1]]) == pytest.approx(
            expected, abs=1e-5
        )


def test_a_reward_model_of_no_run_scores_as_transformers_does(result: RunResult, tmp_path: Path) -> None:
    import shutil

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    shutil.copytree(result.reward_path(), tmp_path / "reward")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "reward")
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float32)
    messages = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": "An answer"}]
    inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    reward = rlaif.load_reward(tmp_path / "reward")
    with torch.no_grad():
        assert reward.score("A question", ["An answer"]) == pytest.approx([model(**inputs).logits.item()], abs=2e-2)


def test_prompts_and_completions_must_match(result: RunResult) -> None:
    reward = result.reward()
    with pytest.raises(DataError, match="2 prompts and 3 completions"):
        reward.score(["a", "b"], ["x", "y", "z"])
    with pytest.raises(DataError, match="one text"):
        reward.score("a", "x")
    with pytest.raises(DataError, match="completion 2 is a int"):
        reward.score("a", ["x", 3])  # type: ignore[list-item]
    assert reward.score("a", []) == []


# Labelers


def test_a_labeler_prefers_as_in_the_run(result: RunResult) -> None:
    context = Context.from_spec(result.spec, PluginManager.load())
    pairs = {pair.id: pair for pair in context.task.comparisons("validation")}
    rows = [row for _, row in read_rows(result.folder / "evaluation/labels/rlaif/preferences.jsonl")]
    chosen = [pairs[row["comparison"]] for row in rows]
    labeler = result.labeler()
    found = labeler.prefer(
        [pair.prompt for pair in chosen],
        [pair.responses[0] for pair in chosen],
        [pair.responses[1] for pair in chosen],
    )
    assert found == pytest.approx([row["probabilities"][0] for row in rows])
    assert len(set(found)) > 1
    judge = rlaif.load_labeler(result.folder, "judge")
    assert judge.prefer("a", ["long one", "b", "same "], ["short", "longer", "same"]) == [1.0, 0.0, 0.5]
    with pytest.raises(DataError, match="there are 2 first responses and 1 second responses"):
        judge.prefer("a", ["long one", "b"], ["short"])


def test_a_labeler_by_its_settings(tmp_path: Path) -> None:
    file = tmp_path / "labeler.yaml"
    file.write_text("kind: length\n", encoding="utf-8")
    config = rlaif.load_labeler("length").config
    for given in ("length", {"kind": "length"}, file, config):
        assert rlaif.load_labeler(given).prefer(["a"], ["long one"], ["short"]) == [1.0]
    (label,) = rlaif.load_labeler("length").label("a", ["long one"], ["short"])
    assert label.evidence.source == "length"
    with pytest.raises(SpecError, match="lenght"):
        rlaif.load_labeler("lenght")
    with pytest.raises(DataError, match="without a reference"):
        rlaif.load_labeler("rouge").prefer("a", ["b"], ["c"])
    assert rlaif.load_labeler("rouge").prefer("a", ["a dog"], ["no"], references=["a dog"])[0] > 0.5


def test_the_spec_of_a_finished_run_is_loaded_in_any_folder(
    tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(tiny_spec(arms={}, evaluate=None, sft=None), tmp_path / "run", manager)
    monkeypatch.chdir(tmp_path)
    assert rlaif.load_policy("run", "sft").generate("POST: a dog\n\nTL;DR:")


def use_installed_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call load the plugins, and work in a folder with a cache of its own."""
    monkeypatch.undo()
    monkeypatch.setenv("RLAIF_PLUGINS", "")
    monkeypatch.setenv("RLAIF_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)


def test_a_reward_takes_the_columns_that_its_task_lists(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_installed_plugins(tmp_path, monkeypatch)
    code = "def score(completions, answer):\n    return [float(a == b) for a, b in zip(completions, answer)]\n"
    Path("my_rewards.py").write_text(code, encoding="utf-8")
    write_rows(Path("sums.jsonl"), [{"prompt": f"{i} + 1?", "answer": str(i + 1)} for i in range(9)])
    small |= {
        "task": {"kind": "text", "data": "sums.jsonl", "columns": ["answer"]},
        "arms": {"checked": {"reward": {"kind": "function", "target": "my_rewards.py:score"}}},
        "sft": None,
        "evaluate": None,
    }
    reward = rlaif.run(small, "out", store="store", verbose=False, plugins=["my_rewards.py"]).reward()
    given: dict[str, Any] = {"answer": ["2", "3"], "trainer_state": object(), "other": [1, 2]}
    assert reward.score(["1 + 1?", "2 + 1?"], ["2", "4"], **given) == [1.0, 0.0]
    with pytest.raises(DataError, match="2 prompts and 1 answer; their numbers must be equal"):
        reward.score(["1 + 1?", "2 + 1?"], ["2", "4"], answer=["2"])
    with pytest.raises(PluginError, match="has no column 'answer'"):
        reward.score("1 + 1?", ["2"])


def test_code_of_the_caller_runs_only_if_it_is_allowed(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_installed_plugins(tmp_path, monkeypatch)
    code = "def score(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    (tmp_path / "my_rewards.py").write_text(code, encoding="utf-8")
    small["arms"] = {"rl": {**LENGTH_ARM, "reward": {"kind": "function", "target": "my_rewards.py:score"}}}
    small["evaluate"] = None
    with pytest.raises(SpecError, match=r"my_rewards\.py"):
        rlaif.run(small, "out", store="store", verbose=False)
    result = rlaif.run(small, "out", store="store", verbose=False, plugins=["my_rewards.py"])
    assert result.reward().score("a", ["four"]) == [4.0]
    for load in (rlaif.load_run, rlaif.load_policy, rlaif.load_reward, rlaif.load_labeler):
        with pytest.raises(SpecError, match=r"my_rewards\.py"):
            load("out")
    assert rlaif.load_reward("out", trust_local=True).score("a", ["four"]) == [4.0]


def test_the_report_of_an_unfinished_run_is_an_error_of_the_framework(run_folder: Path, tmp_path: Path) -> None:
    for name in ("run.json", "spec.yaml"):
        shutil.copy(run_folder / name, tmp_path / name)
    unfinished = rlaif.load_run(tmp_path)
    for read in (lambda: unfinished.report, lambda: unfinished.evaluation, lambda: unfinished.arms):
        with pytest.raises(DataError, match=r"is not finished: it has no report\.json"):
            read()
    assert "is not finished" in repr(unfinished)
    assert unfinished._repr_html_() is None
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DataError, match=r"report\.json is damaged"):
        _ = unfinished.report


def test_errors_about_settings_in_python_name_no_option_of_the_command(small: dict[str, Any], tmp_path: Path) -> None:
    for settings in ({"seed": "a"}, {"set": {"arms.rlaif.feedback.kind.b": 3}}):
        with pytest.raises(SpecError) as raised:
            rlaif.run(small, out=tmp_path / "out", **settings)
        assert "setting " in str(raised.value)
        assert "--set" not in str(raised.value)
    pairs = [{"prompt": "p", "responses": ["a", "b"]}]
    with pytest.raises(SpecError, match="setting prefer="):
        rlaif.label(pairs, "length", set={"prefer": "best"})
