"""Errors name the file, the line and the value, and show how a component is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rlaif_framework import PluginManager, SpecError, load_spec
from rlaif_framework.data.key_lines import find_lines
from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.plugins.examples import format_example
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.loading import load_labeler, load_labelers

YAML = """\
task: tldr
policy:
  model: a/b
  dtype: fp16
sft: &slow {lr: -1}
arms:
  a:
    feedback:
      kind: ai
      labeler: llm
    reward: bradly-terry
    algorithm:
      kind: reinforce
      steps: many
  b:
    feedback: human
    reward: {<<: *slow, kind: bradley-terry}
    algorithm: dpo
evaluate:
  matchups:
    - [a, sft]
    - [a]
"""
JSON = """{
\t"task": "tldr",
\t"policy": {"model": "a/b",
\t\t"dtype": "fp16"},
\t"sft": {"lr": -1}
}"""
TOML = """\
task = "tldr"
sft.lr = -1

[policy]
model = "a/b"
dtype = "fp16"   # too small

[arms."a b".algorithm]
kind = "dpo"
"""


def problems(*files: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(SpecError) as raised:
        load_spec(list(files), overrides)
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_problem_of_a_yaml_file_has_its_line_and_value(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", YAML)
    found = problems(path)
    for expected in (
        "4: policy.dtype: Input should be 'auto', 'fp32' or 'bf16', got 'fp16'",
        "5: sft.lr: Input should be greater than 0, got -1",
        "10: arms.a.feedback.labeler.backend: Field required, as in {kind: llm, backend: {kind: transformers, model: ",
        "11: arms.a.reward: no reward named 'bradly-terry'; did you mean 'bradley-terry'?",
        "14: arms.a.algorithm.steps: Input should be a valid integer, unable to parse string as an integer, got 'many'",
        "5: arms.b.reward.lr: Input should be greater than 0, got -1",
        "22: evaluate.matchups.1.1: Field required",
    ):
        assert any(line.startswith(f"{path}:{expected}") for line in found), (expected, found)
    assert len(found) == 7


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [("s.json", JSON, (4, 5)), ("s.toml", TOML, (6, 2))],
    ids=["json", "toml"],
)
def test_json_and_toml_have_lines_too(tmp_path: Path, name: str, text: str, lines: tuple[int, int]) -> None:
    path = write(tmp_path / name, text)
    found = problems(path)
    assert any(line.startswith(f"{path}:{lines[0]}: policy.dtype: ") for line in found), found
    assert any(line.startswith(f"{path}:{lines[1]}: sft.lr: ") for line in found), found


def test_a_problem_is_named_in_the_file_or_option_that_states_it(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "task: tldr\npolicy:\n  model: a/b\n  dtype: fp16\nsft: {lr: -1}\n")
    top = write(tmp_path / "top.yaml", "base: base.yaml\nsft:\n  lr: -2\n")
    more = write(tmp_path / "more.yaml", "\nseed: x\n")
    found = problems(top, more, overrides=("policy.max_new_tokens=0",))
    assert found == [
        f"{more}:2: seed: Input should be a valid integer, got 'x'",
        f"{base}:4: policy.dtype: Input should be 'auto', 'fp32' or 'bf16', got 'fp16'",
        "--set policy.max_new_tokens=0: policy.max_new_tokens: Input should be greater than or equal to 1, got 0",
        f"{top}:3: sft.lr: Input should be greater than 0, got -2",
    ]


def test_a_problem_around_what_an_option_sets_is_named_at_the_option(tmp_path: Path) -> None:
    text = "task: tldr\npolicy: {model: a/b}\narms:\n  x: {reward: length, algorithm: rloo}\n"
    path = write(tmp_path / "s.yaml", text)
    (found,) = problems(path, overrides=("arms.y.algorithm.lr=1e-5",))
    assert found.startswith("--set arms.y.algorithm.lr=1e-5: arms.y.algorithm: 'kind' is missing: name one of a2c, ")


@pytest.mark.parametrize(("value", "advice"), [("wandb", "'wandb'; write [wandb]"), ("3", "3; write [3]")])
def test_a_value_in_place_of_a_list_is_told_how_to_be_one(tmp_path: Path, value: str, advice: str) -> None:
    path = write(tmp_path / "s.yaml", f"task: tldr\npolicy: {{model: a/b}}\ntrackers: {value}\n")
    assert problems(path) == [f"{path}:3: trackers: Input should be a valid list, got {advice}"]


def test_a_missing_key_is_named_at_the_mapping_that_lacks_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "task: tldr\npolicy:\n  dtype: auto\n")
    assert problems(path) == [f"{path}:2: policy.model: Field required"]
    assert problems(write(tmp_path / "t.yaml", "seed: 1")) == ["task: Field required", "policy: Field required"]


def test_a_file_that_is_no_spec_is_told_apart(tmp_path: Path) -> None:
    published = "published: [{source: A paper, results: {agreement/longer: 0.6}}]\n"
    labelers = write(tmp_path / "labelers.yaml", f"similarity: similarity\nlonger: length\n{published}")
    with pytest.raises(SpecError, match=r"labelers\.yaml has none of the keys of a spec.*'rlaif label', as --labeler"):
        load_spec(labelers)


def test_a_problem_of_the_whole_spec_has_the_line_of_what_it_names(tmp_path: Path) -> None:
    text = "task: tldr\npolicy: {model: a/b}\nevaluate:\n  judge: rouge\n  matchups: [[x, sft]]\n"
    path = write(tmp_path / "s.yaml", text)
    assert problems(path) == [f"{path}:5: evaluate.matchups: no arm named 'x'; known: reference, sft."]


def test_long_values_are_shortened_and_passwords_not_shown(tmp_path: Path) -> None:
    model = "{kind: openai, model: m, base_urls: 'http://me:secret@host/v1'}"
    judge = f"{{kind: llm, backend: {model}}}"
    text = f"task: tldr\npolicy: {{model: a/b, dtype: {'x' * 5000}}}\nevaluate: {{judge: {judge}}}\n"
    found = problems(write(tmp_path / "s.yaml", text))
    assert len(found) == 2
    assert max(map(len, found)) < 400
    assert "secret" not in "".join(found)


def test_files_of_labelers_have_lines_too(tmp_path: Path, manager: PluginManager) -> None:
    path = write(tmp_path / "l.yaml", "mine:\n  kind: length\n  prefer: red\n")
    with pytest.raises(SpecError, match=r"l.yaml:3: mine.prefer: .*, got 'red'"):
        load_labelers(path, (), manager)
    path = write(tmp_path / "one.yaml", "kind: length\nprefer: red\n")
    with pytest.raises(SpecError, match=r"one.yaml:2: prefer: .*, got 'red'"):
        load_labeler(str(path), (), manager)
    with pytest.raises(SpecError, match=r"--set prefer=blue: prefer: .*, got 'blue'"):
        load_labeler("length", ["prefer=blue"], manager)


@pytest.mark.parametrize("slot", SLOTS)
def test_the_example_of_every_component_is_valid(slot: str, manager: PluginManager) -> None:
    for component, _ in manager.components(slot):  # type: ignore[arg-type]
        example = yaml.safe_load(format_example(component, manager))
        assert narrow(slot, example, manager).kind == component.name  # type: ignore[call-overload]


def test_the_lines_of_a_file_are_those_of_its_keys(tmp_path: Path) -> None:
    found = find_lines(write(tmp_path / "s.yaml", YAML))
    assert found["arms", "a", "algorithm", "steps"] == 14
    assert found["evaluate", "matchups", 1] == 22
    toml = find_lines(write(tmp_path / "s.toml", TOML))
    assert toml["arms", "a b", "algorithm", "kind"] == 9
    assert toml["arms", "a b"] == 8
    assert find_lines(write(tmp_path / "s.json", json.dumps({"a": [1, {"b": 2}]}, indent=1)))["a", 1, "b"] == 5
    assert find_lines(tmp_path / "gone.yaml") == {}


def test_a_mistake_that_many_arms_share_has_a_short_message(tmp_path: Path, manager: PluginManager) -> None:
    arms = {f"arm{i}": {"reward": "é" * 3000, "algorithm": "rloo"} for i in range(14)}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"task": "tldr", "policy": {"model": "a/b"}, "arms": arms}), encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        load_spec(path, manager=manager)
    lines = str(raised.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 4 more problems"
    assert f"arms.arm0.reward: no reward named '{'é' * 77}...'; known: " in lines[1]


def test_a_boolean_in_place_of_a_number_is_refused(tmp_path: Path) -> None:
    """Elsewhere `limit: true` would mean a limit of 1."""
    reward = "{kind: sum, terms: {l: length}, weights: {l: true}}"
    (tmp_path / "spec.yaml").write_text(
        "task: tldr\nseed: true\npolicy: {model: a/b, trust_remote_code: true, lora: {alpha: true}}\n"
        f"sft:\n  limit: true\narms:\n  a:\n    reward: {reward}\n    algorithm: grpo\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "spec.yaml")
    file = tmp_path / "spec.yaml"
    assert str(caught.value).splitlines()[1:] == [
        f"  {file}:2: seed: Input should be a valid integer, got true",
        f"  {file}:3: policy.lora.alpha: Input should be a number, got true",
        f"  {file}:5: sft.limit: Input should be a number, got true",
        f"  {file}:8: arms.a.reward.weights.l: Input should be a number, got true",
    ]
