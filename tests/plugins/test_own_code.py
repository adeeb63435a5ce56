"""Files beside a spec: loaded as plugins where they are allowed, and in the keys of what uses them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_framework import Context, PluginError, PluginManager, Spec, SpecError, load_spec
from rlaif_framework.contracts import read_metrics
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.plugins import OwnCode
from support.fake_plugins import write_rows
from support.runs import execute

PLUGIN = '''
from __future__ import annotations

from rlaif_framework import Component, MetricConfig, RewardConfig, hookimpl


class VowelsConfig(RewardConfig):
    """Reward vowels."""

    per: float = 1.0
    """Vowels per reward of 1."""

    @property
    def needs_baseline(self) -> bool:
        return False


class Vowels:
    def __init__(self, config, context):
        self.config = config

    def fit(self, labels, initial, stage):
        (stage.folder / "reward.txt").write_text("vowels")

    def load(self, folder):
        return self

    def score(self, prompts, responses):
        return [sum(c in "aeiou" for c in text) / self.config.per for text in responses]


@hookimpl
def rlaif_reward_models() -> list[Component]:
    return [Component("local/vowels", VowelsConfig, f"{__name__}:Vowels")]


@hookimpl
def rlaif_run_finished(run, error):
    (run.folder / "seen").write_text("")
'''
SCORES = """
def brief(completions, **kwargs):
    return [-float(len(text)) for text in completions]


def calls(completions, **kwargs):
    return [float("!" in text) for text in completions]
"""
ALGORITHM = {"kind": "grpo", "steps": 1, "prompts_per_step": 2, "responses_per_prompt": 2}


@pytest.fixture
def write_spec(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Write a spec that uses a plugin in one arm, a function in another, and neither in the third."""

    def write(folder: str = "own", **changes: Any) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / "spec.yaml"
        path.with_name("my_plugin.py").write_text(PLUGIN)
        path.with_name("my_scores.py").write_text(SCORES)
        function = {"kind": "function", "target": "my_scores.py:brief"}
        spec = {
            "plugins": ["my_plugin.py"],
            "task": "tldr",
            "policy": {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 8},
            "sft": None,
            "arms": {
                "plugin": {"reward": "local/vowels", "algorithm": ALGORITHM},
                "function": {"reward": function, "algorithm": ALGORITHM},
                "neither": {"reward": "length", "algorithm": ALGORITHM},
            },
            "evaluate": {
                "judge": "length",
                "matchups": [],
                "prompts": 4,
                "comparisons": 2,
                "metrics": [{"kind": "function", "target": "my_scores.py:calls"}],
            },
            **changes,
        }
        path.write_text(yaml.safe_dump(spec))
        return path

    return write


def load(path: Path) -> tuple[Spec, PluginManager]:
    manager = PluginManager.load(code=OwnCode(allow_all=True))
    return load_spec(path, manager=manager), manager


def keys_of(path: Path) -> dict[str, str]:
    spec, manager = load(path)
    return {step.name: step.key for step in compose(spec, Context.from_spec(spec, manager))}


def test_a_run_uses_the_plugin_and_the_functions_and_its_spec_can_be_run_again(
    write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    terms = {"vowels": "local/vowels", "brief": {"kind": "function", "target": "my_scores.py:brief"}}
    path = write_spec(arms={"both": {"reward": {"kind": "sum", "terms": terms}, "algorithm": ALGORITHM}})
    spec, manager = load(path)
    run = execute(spec, tmp_path / "run", manager)
    assert (tmp_path / "run/seen").exists(), "the file's hook of the run was not called"
    measured = (tmp_path / "run/evaluation/metrics/calls/sft/measured.jsonl").read_text()
    assert len(measured.splitlines()) == 4
    assert '"calls":' in measured
    assert "calls" in (tmp_path / "run/report.html").read_text()
    assert {"reward/vowels", "reward/brief"} <= set(read_metrics(tmp_path / "run/both/policy")[0])
    # From another folder: what a run folder stores has absolute paths.
    again = execute(*reversed_pair(load(tmp_path / "run/spec.yaml"), tmp_path / "again"), store=tmp_path / "run-store")
    assert all(again.reused.values())
    assert [step.key for step in again.steps] == [step.key for step in run.steps]


def reversed_pair(found: tuple[Spec, PluginManager], folder: Path) -> tuple[Spec, Path, PluginManager]:
    spec, manager = found
    return spec, folder, manager


def test_a_changed_file_recomputes_what_used_it_and_only_that(write_spec: Callable[..., Path]) -> None:
    path = write_spec()
    before = keys_of(path)
    path.with_name("my_plugin.py").write_text(PLUGIN + "\n# changed\n")
    after = keys_of(path)
    changed = {name.partition("/")[0] for name in before if before[name] != after[name]}
    assert changed == {"plugin", "evaluation"}
    kept = {name for name in before if before[name] == after[name]}
    assert {"sft", "function/policy", "neither/policy", "evaluation/metrics/calls/sft"} <= kept
    path.with_name("my_scores.py").write_text(SCORES + "\n# changed\n")
    last = keys_of(path)
    recomputed = {name for name in after if after[name] != last[name]}
    assert {"function/reward", "function/policy", "evaluation/metrics/calls/sft"} <= recomputed
    assert recomputed.isdisjoint({"sft", "plugin/policy", "neither/policy", "evaluation/responses/sft"})


def test_the_place_of_a_file_is_not_in_the_keys(write_spec: Callable[..., Path], tmp_path: Path) -> None:
    path = write_spec()
    shutil.copytree(path.parent, tmp_path / "elsewhere")
    assert keys_of(path) == keys_of(tmp_path / "elsewhere/spec.yaml")


def test_another_function_of_the_same_file_is_another_reward(write_spec: Callable[..., Path]) -> None:
    path = write_spec()
    before = keys_of(path)
    path.write_text(path.read_text().replace("my_scores.py:brief", "my_scores.py:calls"))
    after = keys_of(path)
    assert before["function/reward"] != after["function/reward"]
    assert before["plugin/reward"] == after["plugin/reward"]


def test_paths_are_relative_to_the_spec_and_overrides_to_the_current_folder(
    write_spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("other.py").write_text(SCORES)
    spec, _ = load(path)
    assert spec.plugins == [str(path.with_name("my_plugin.py"))]
    manager = PluginManager.load(code=OwnCode(allow_all=True))
    override = "arms.function.reward.target=other.py:calls"
    reward: Any = load_spec(path, [override], manager).arms["function"].reward
    assert reward.target == f"{tmp_path}/here/other.py:calls"


def test_the_command_line_names_code_by_its_path_for_a_shell(
    write_spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(plugins=["x; touch owned.py"])
    monkeypatch.chdir(path.parent)
    with pytest.raises(SpecError) as caught:
        load_spec(Path("spec.yaml"), manager=PluginManager.load())
    assert str(caught.value) == (
        "spec.yaml names Python code, which can do everything that you can:\n"
        f"  {path.parent}/x; touch owned.py (plugins)\n"
        f"  {path.parent}/my_scores.py (arms.function.reward.target: brief, evaluate.metrics.0.target: calls)\n"
        "Read it, and allow it to run by --plugin 'x; touch owned.py' --plugin my_scores.py, or all that the spec "
        "names by --trust-local"
    )


def test_a_link_to_an_allowed_file_is_allowed_and_another_file_of_its_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.py").write_text("")
    (tmp_path / "link.py").symlink_to(tmp_path / "a/x.py")
    code = OwnCode([str(tmp_path / "a/x.py")])
    assert code.allows(str(tmp_path / "link.py"))
    assert code.allows(str(tmp_path / "b/../a/x.py"))
    assert not code.allows(str(tmp_path / "x.py"))
    assert not code.allows("x")
    assert OwnCode(["acme.rewards"]).allows("acme.rewards")
    assert not OwnCode(["acme.rewards"]).allows("acme")


def test_what_is_not_allowed_does_not_run_whoever_asks(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    for ask in (OwnCode().load, OwnCode().hash, lambda name: PluginManager().add_files([name])):
        with pytest.raises(SpecError, match="names Python code"):
            ask(str(path))
    with pytest.raises(SpecError, match=r"x\.py"):
        OwnCode().find_function(f"{path}:score")
    with pytest.raises(SpecError, match="--plugin os"):
        OwnCode().find_function("os:system")
    assert not (tmp_path / "owned").exists()


def test_pairs_are_labelled_by_a_function_beside_the_labelers_file(
    tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/my_scores.py").write_text(SCORES)
    labeler = tmp_path / "own/labeler.yaml"
    labeler.write_text("{kind: function, target: 'my_scores.py:brief'}")
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"prompt": "p", "responses": ["long text", "text"]}])
    command = ["label", pairs, "--labeler", labeler, "--out", tmp_path / "labels.jsonl"]
    assert rlaif(*command)[0] == 2
    code, out, message = rlaif(*command, "--plugin", labeler.with_name("my_scores.py"))
    assert code == 0, message
    (row,) = (json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines())
    assert row["probabilities"] == [0.0, 1.0]
    labeler.with_name("my_scores.py").write_text(SCORES.replace("-float", "float"))
    code, out, _ = rlaif(*command, "--trust-local")
    assert "starting over" in " ".join(out.split())
    (row,) = (json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines())
    assert row["probabilities"] == [1.0, 0.0]


def test_commands_list_the_components_of_a_file(
    write_spec: Callable[..., Path], rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    file = write_spec().with_name("my_plugin.py")
    code, out, _ = rlaif("components", "reward", "--plugin", file)
    assert code == 0
    assert "local/vowels" in out
    code, out, _ = rlaif("show", "reward", "local/vowels", "--plugin", file)
    assert "Vowels per reward of 1." in out
    assert '"reward.local.vowels"' in rlaif("schema", "--plugin", file)[1]
    code, _, message = rlaif("components", "reward", "--plugin", "none.py")
    assert (code, "there is no file" in message) == (2, True)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_like_this", "cannot be loaded: ModuleNotFoundError"),
        (
            PLUGIN.replace('"local/vowels"', '"vowels"'),
            "only built-ins have bare names; use '<namespace>/<name>', such",
        ),
        (PLUGIN.replace('"local/vowels"', '"acme/vowels"'), "the namespace 'acme' belongs to the distribution"),
        (PLUGIN.replace("@hookimpl\ndef rlaif_re", "def rlaif_re"), "'rlaif_reward_models' is not marked as a hook"),
        (PLUGIN.replace("rlaif_reward_models", "rlaif_rewards"), "no hook named 'rlaif_rewards'; did you mean"),
        (PLUGIN.replace("RewardConfig):", "MetricConfig):"), "its config VowelsConfig is not a RewardConfig"),
    ],
)
def test_a_file_that_cannot_be_loaded_ends_the_command(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "x.py").write_text(code)
    with pytest.raises(PluginError) as caught:
        PluginManager.load(code=OwnCode([str(tmp_path / "x.py")]))
    assert message in str(caught.value)
    assert str(tmp_path / "x.py") in str(caught.value)


@pytest.mark.parametrize("name", ["rlaif-acme", "x.yaml", ""])
def test_plugins_of_a_spec_are_files(name: str, write_spec: Callable[..., Path]) -> None:
    with pytest.raises(SpecError, match=r"plugins\.0: .* is not the name of a Python file"):
        load(write_spec(plugins=[name]))


def test_the_code_of_a_file_is_its_own(tmp_path: Path) -> None:
    """A file runs as it would alone: without the future statements of the framework, and beside a file of its name."""
    (tmp_path / "a").mkdir()
    for folder, value in ((tmp_path, 1), (tmp_path / "a", 2)):
        (folder / "json.py").write_text(
            f"def score(x: int) -> int: ...\nvalue = {value}\nkind = score.__annotations__['x']"
        )
    code = OwnCode(allow_all=True)
    first, second = (code.load(str(folder / "json.py")) for folder in (tmp_path, tmp_path / "a"))
    assert (first.value, second.value, first.kind) == (1, 2, int)
    assert first is code.load(str(tmp_path / "json.py")) is OwnCode(allow_all=True).load(str(tmp_path / "json.py"))
    assert not list(tmp_path.rglob("*.pyc"))
