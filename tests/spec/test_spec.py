"""The spec: what it accepts, and that everything wrong with it is told at once and in the right place."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_framework import Family, ModelError, PluginManager, Spec, SpecError, load_family, load_spec
from rlaif_framework.cli.main import main
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.models import find_model
from rlaif_framework.pipeline.run_folder import REPORTS
from rlaif_framework.spec.loading import build_spec
from rlaif_framework.spec.merging import set_value
from support.fake_plugins import labeler_code

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))
BASE: dict[str, Any] = {
    "name": "base",
    "task": {"kind": "tldr"},
    "policy": {"model": "some/model"},
    "arms": {
        "a": {
            "feedback": {"kind": "ai", "labeler": {"kind": "length"}},
            "reward": {"kind": "bradley-terry"},
            "algorithm": {"kind": "reinforce"},
        }
    },
    "evaluate": {"judge": {"kind": "rouge"}},
}


def changed(*overrides: str) -> dict[str, Any]:
    """The base spec with `--set` overrides."""
    data = deepcopy(BASE)
    for override in overrides:
        set_value(data, override)
    return data


def build(data: dict[str, Any], manager: PluginManager) -> Spec:
    return build_spec(data, "x.yaml", manager)


def problems(data: dict[str, Any], manager: PluginManager) -> list[str]:
    """The lines of the error a spec gives, but for its first."""
    with pytest.raises(SpecError) as raised:
        build(data, manager)
    head, *lines = str(raised.value).splitlines()
    assert head == "x.yaml is not a valid spec:"
    return [line.strip() for line in lines]


# What is accepted


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.name)
def test_every_spec_that_comes_with_the_package_is_valid(path: Path, manager: PluginManager) -> None:
    assert all(spec.arms for spec in load_members(path, manager))


def load_members(path: Path, manager: PluginManager) -> list[Spec]:
    """Load a spec, or the members of a family."""
    loaded = load_family(path, manager=manager)
    return [member.spec for member in loaded.members] if isinstance(loaded, Family) else [loaded]


def test_the_short_form_of_a_slot_is_the_component_with_its_defaults(manager: PluginManager) -> None:
    short = deepcopy(BASE)
    short["task"] = "tldr"
    short["arms"]["a"] = {
        "feedback": {"kind": "ai", "labeler": "length"},
        "reward": "bradley-terry",
        "algorithm": "reinforce",
    }
    short["evaluate"]["judge"] = "rouge"
    assert build(short, manager) == build(BASE, manager)


def test_human_is_short_for_human_feedback_by_the_human_labeler(manager: PluginManager) -> None:
    data = changed("arms.a.feedback=human")
    feedback = build(data, manager).arms["a"].feedback
    assert feedback is not None
    assert (feedback.kind, feedback.labeler.kind, feedback.pairs.source) == ("human", "human", "task")
    assert build(changed("arms.a.feedback={kind: human}"), manager) == build(data, manager)


def test_slots_nest_and_keep_the_settings_of_the_inner_component(manager: PluginManager) -> None:
    data = changed("arms.a.feedback.labeler={kind: llm, backend: {kind: transformers, model: m, chat: no}}")
    dumped = build(data, manager).model_dump(mode="json")["arms"]["a"]["feedback"]["labeler"]
    assert {key: dumped[key] for key in ("kind", "backend", "strategy")} == {
        "kind": "llm",
        "backend": {
            "kind": "transformers",
            "model": "m",
            "revision": None,
            "trust_remote_code": False,
            "dtype": "auto",
            "chat": "no",
            "date": "2025-01-01",
        },
        "strategy": {"kind": "direct"},
    }


def test_a_spec_without_a_name_is_named_after_its_file(tmp_path: Path, manager: PluginManager) -> None:
    data = {k: v for k, v in BASE.items() if k != "name"}
    path = tmp_path / "my first run!.json"
    path.write_text(json.dumps(data))
    assert load_spec(path, manager=manager).name == "my-first-run"


def test_yaml_toml_and_json_of_one_spec_are_equal(tmp_path: Path, manager: PluginManager) -> None:
    data = changed("seed=7", "sft={lr: 0.0005}", "evaluate.matchups=[[a, sft]]", "policy.lora={targets: [q_proj]}")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(data))
    (tmp_path / "s.toml").write_text("""
        name = "base"
        seed = 7
        task.kind = "tldr"
        policy = {model = "some/model", lora = {targets = ["q_proj"]}}
        sft.lr = 5e-4
        [arms.a]
        feedback = {kind = "ai", labeler = {kind = "length"}}
        reward.kind = "bradley-terry"
        algorithm.kind = "reinforce"
        [evaluate]
        judge.kind = "rouge"
        matchups = [["a", "sft"]]
    """)
    (tmp_path / "s.json").write_text(json.dumps(data))
    yml, toml, jsn = (load_spec(tmp_path / f"s.{kind}", manager=manager) for kind in ("yaml", "toml", "json"))
    assert yml == toml == jsn == build(data, manager)
    assert yml.seed == 7


def test_yaml_is_read_as_editors_read_it(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("a: no\nb: on\nc: 5e-4\nd: 2024-01-01\ne: true\nf: 4e10557\ng: 3\nh: 0.5\ni: null\nj: 1.5e+3\n")
    assert read_mapping(path, "spec", SpecError) == {
        "a": "no",
        "b": "on",
        "c": 0.0005,
        "d": "2024-01-01",
        "e": True,
        "f": "4e10557",  # a git revision, not a number beyond all bounds
        "g": 3,
        "h": 0.5,
        "i": None,
        "j": 1500.0,
    }


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("policy:\n  model: a\n  dtype: fp32\n  model: b\n")
    with pytest.raises(SpecError, match=r"(?s)duplicate key 'model', first in line 2.*line 4"):
        read_mapping(path, "spec", SpecError)


def test_a_revision_of_what_is_no_hub_id_is_an_error(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="is not a hub id: only hub models have revisions"):
        find_model(str(tiny_model), "main")


def test_a_value_model_starts_from_a_reward_that_is_a_model(manager: PluginManager) -> None:
    data = changed("arms.a.feedback=null", "arms.a.reward=length", "arms.a.algorithm={kind: ppo, value_from: reward}")
    (line,) = problems(data, manager)
    assert "value_from: reward needs a reward that is a trained model" in line


def test_true_is_no_seed(manager: PluginManager) -> None:
    assert problems(changed("seed=true"), manager) == ["seed: Input should be a valid integer, got true"]


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.name)
@pytest.mark.parametrize("as_json", [False, True], ids=["yaml", "json"])
def test_what_check_prints_is_the_same_spec_again(
    path: Path,
    as_json: bool,
    tmp_path: Path,
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["rlaif", "check", str(path), *(["--json"] if as_json else [])])
    monkeypatch.setattr(
        "rlaif_framework.pipeline.planning.check_spec", lambda spec, *rest: spec
    )  # the data is not here
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    again = tmp_path / f"again.{'json' if as_json else 'yaml'}"
    again.write_text(capsys.readouterr().out)
    found, expected = load_members(again, manager), load_members(path, manager)
    assert found == expected
    assert [spec.model_dump() for spec in found] == [spec.model_dump() for spec in expected]


def test_the_settings_of_third_party_components_survive_the_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.fake_plugins import Site

    monkeypatch.delenv("RLAIF_PLUGINS")
    monkeypatch.syspath_prepend(str(tmp_path))
    Site(tmp_path).install("rlaif-trip", labeler_code("trip/x"))
    manager = PluginManager.load()
    spec = build(changed("arms.a.feedback.labeler={kind: trip/x, votes: 9}"), manager)
    dumped = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert dumped["arms"]["a"]["feedback"]["labeler"] == {"kind": "trip/x", "votes": 9}
    assert build(dumped, manager) == spec


def test_a_spec_is_frozen(manager: PluginManager) -> None:
    with pytest.raises(ValueError, match="frozen"):
        build(BASE, manager).seed = 1  # type: ignore[misc]


def test_default_matchups_are_each_arm_against_sft_and_the_arms_among_each_other(manager: PluginManager) -> None:
    data = deepcopy(BASE)
    data["arms"]["b"] = data["arms"]["a"]
    assert build(data, manager).matchups() == [("a", "sft"), ("b", "sft"), ("a", "b")]
    data["evaluate"]["matchups"] = [["b", "reference"]]
    assert build(data, manager).matchups() == [("b", "reference")]
    data["evaluate"] = None
    assert build(data, manager).matchups() == []


# What is wrong, and where


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("polcy=1", "polcy: unknown key; did you mean 'policy'?"),
        ("policy.max_new_token=1", "policy.max_new_token: unknown key; did you mean 'max_new_tokens'?"),
        ("task.dta=mini", "task.dta: unknown key; did you mean 'data'?"),
        ("task=tlrd", "task: no task named 'tlrd'; did you mean 'tldr'? Run 'rlaif components task' to list them"),
        (
            "arms.a.feedback.labeler=lenght",
            "arms.a.feedback.labeler: no labeler named 'lenght'; did you mean 'length'? "
            "Run 'rlaif components labeler' to list them",
        ),
        (
            "arms.a.feedback.labeler.kind=qqq",
            "arms.a.feedback.labeler: no labeler named 'qqq'; known: choice, contains, ensemble, exact-match, "
            "function, human, json-valid, length, length-range, likelihood, llm, mix, rate, reference-likelihood, "
            "regex, rouge, similarity, synthetic, test/taste. Run 'rlaif components labeler' to list them",
        ),
        ("arms.a.feedback.labeler.prefr=x", "arms.a.feedback.labeler.prefr: unknown key; did you mean 'prefer'?"),
        ("arms.a.feedbak=human", "arms.a.feedbak: unknown key; did you mean 'feedback'?"),
        ("arms.a.feedback.pairs.sorce=x", "arms.a.feedback.pairs.sorce: unknown key; did you mean 'source'?"),
        (
            "evaluate.labelers.x={kind: llm, backend: {kind: transformers, model: m, dtpe: x}}",
            "evaluate.labelers.x.backend.dtpe: unknown key; did you mean 'dtype'?",
        ),
        (
            "evaluate.judge={kind: llm, backend: {kind: transfrmers}}",
            "evaluate.judge.backend: no backend named 'transfrmers'; did you mean 'transformers'? "
            "Run 'rlaif components backend' to list them",
        ),
        (
            "task.fields={postt: x}",
            "task.fields.postt: Input should be 'subreddit', 'title', 'post', 'summary', 'id', 'prompt', 'responses', "
            "'chosen', 'rejected', 'response_a', 'response_b', 'label', 'winner', 'human', 'confidence', 'slice', "
            "'reference', 'response' or 'score', got 'postt'",
        ),
    ],
)
def test_an_unknown_key_or_kind_is_named_with_the_nearest_one_at_its_path(
    override: str, expected: str, manager: PluginManager
) -> None:
    assert problems(changed(override), manager) == [expected]


@pytest.mark.parametrize(
    ("override", "where", "what"),
    [
        ("seed=x", "seed", "valid integer"),
        ("seed=-1", "seed", "greater than or equal to 0"),
        ("policy=some/model", "policy", "expected a mapping of settings, got str"),
        ("policy.model=3", "policy.model", "valid string"),
        ("policy.dtype=fp16", "policy.dtype", "'auto', 'fp32' or 'bf16'"),
        ("policy.lora.rank=0", "policy.lora.rank", "greater than or equal to 1"),
        ("policy.lora=16", "policy.lora", "expected a mapping of settings, got int"),
        ("policy.model=null", "policy.model", "valid string"),
        ("sft.lr=.inf", "sft.lr", "finite"),
        ("sft.lr=.nan", "sft.lr", "finite"),
        ("sft.lr=0", "sft.lr", "greater than 0"),
        ("sft=yes", "sft", "expected a mapping of settings, got str"),
        ("task=3", "task", "expected the name of a task or a mapping with 'kind', got int"),
        ("task=[tldr]", "task", "got list"),
        ("task=null", "task", "expected the name of a task or a mapping with 'kind', got null"),
        ("policy=null", "policy", "expected a mapping of settings, got null"),
        ("arms.a.feedback.labeler=null", "arms.a.feedback.labeler", "or a mapping with 'kind', got null"),
        ("task={data: mini}", "task", "'kind' is missing: name one of dialogue, text, tldr"),
        ("task={kind: 3}", "task", "'kind' is missing"),
        ("task.data=3", "task.data", "valid string; or: Input should be a valid dictionary"),
        ("task.data={train: 3}", "task.data.train", "valid string"),
        ("task.data={trian: x.jsonl}", "task.data.trian", "'train', 'validation' or 'test'"),
        ("policy.lora.targets=3", "policy.lora.targets", "'all-linear'; or: Input should be a valid list"),
        ("arms=[a]", "arms", "valid dictionary"),
        ("arms.a=rlaif", "arms.a", "expected a mapping of settings, got str"),
        ("arms.a.feedback=3", "arms.a.feedback", "got int"),
        ("arms.a.feedback=humann", "arms.a.feedback", "'kind' must be 'ai' or 'human', got 'humann'"),
        ("arms.a.feedback={labeler: length}", "arms.a.feedback", "'kind' must be 'ai' or 'human', it is missing"),
        ("arms.a.feedback={kind: [ai]}", "arms.a.feedback", "got ['ai']"),
        ("arms.a.feedback=ai", "arms.a.feedback.labeler", "required"),
        ("arms.a.feedback.labeler=llm", "arms.a.feedback.labeler.backend", "required"),
        ("arms.a.feedback.pairs.source=web", "arms.a.feedback.pairs.source", "'task', 'policy' or 'both'"),
        ("evaluate.matchups=[[a]]", "evaluate.matchups.0.1", "required"),
        ("evaluate.matchups=[a]", "evaluate.matchups.0", "valid tuple"),
        ("requires=acme", "requires", "valid list"),
        ("requires=[a b]", "requires.0", "not a requirement such as 'rlaif-acme>=0.2'"),
        ("name=a b", "name", "should match pattern"),
        ("task={kind: tldr, test_fraction: 0.6, validation_fraction: 0.5}", "task", "nothing to train on"),
        ("task={kind: dialogue, test_fraction: 0.6, validation_fraction: 0.5}", "task", "nothing to train on"),
    ],
)
def test_a_value_of_the_wrong_type_is_reported_at_its_path(
    override: str, where: str, what: str, manager: PluginManager
) -> None:
    lines = problems(changed(override), manager)
    assert any(line.startswith(f"{where}: ") and what in line for line in lines), lines
    assert all(where.startswith(line.partition(": ")[0]) for line in lines), "something else is said to be wrong"


def test_everything_wrong_with_a_spec_is_told_at_once(manager: PluginManager) -> None:
    data = changed("polcy=1", "policy.lora.rnk=1", "sft.lr=-1", "arms.a.reward=bradly-terry", "evaluate.judge=ruge")
    del data["policy"]["model"]
    lines = problems(data, manager)
    assert {line.partition(":")[0] for line in lines} == {
        "polcy",
        "policy.model",
        "policy.lora.rnk",
        "sft.lr",
        "arms.a.reward",
        "evaluate.judge",
    }
    assert "did you mean 'bradley-terry'?" in "".join(lines)


def test_keys_that_are_no_strings_are_refused(manager: PluginManager) -> None:
    assert problems({**deepcopy(BASE), 3: 4}, manager)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["arms.a.feedback=null"],
            "arms.a: reward 'bradley-terry' is trained on preferences: set the arm's 'feedback'",
        ),
        (["arms.a.reward=test/taste"], "arms.a: reward 'test/taste' uses no preferences: remove the arm's 'feedback'"),
        (
            ["arms.a.feedback={kind: human, pairs: {source: both}}"],
            "arms.a.feedback: pairs.source must be 'task': responses sampled in this run have no human preference",
        ),
    ],
)
def test_an_arm_states_feedback_if_and_only_if_its_reward_is_trained_on_it(
    overrides: Sequence[str], expected: str, manager: PluginManager
) -> None:
    assert problems(changed(*overrides), manager) == [expected]


def test_an_arm_without_preferences_needs_no_feedback(manager: PluginManager) -> None:
    assert build(changed("arms.a.reward=test/taste", "arms.a.feedback=null"), manager).arms["a"].feedback is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluate.matchups=[[b, sft]]", "evaluate.matchups: no arm named 'b'; known: a, reference, sft."),
        ("evaluate.matchups=[[a, stf]]", "evaluate.matchups: no arm named 'stf'; did you mean 'sft'?"),
        ("evaluate.matchups=[[a, a]]", "evaluate.matchups: 'a' is compared with itself"),
        (
            "evaluate.labelers.a=length",
            "evaluate.labelers.a: the name is taken by an arm, whose labeler is measured anyway; choose another",
        ),
        ("evaluate.labelers.judge=length", "evaluate.labelers.judge: the name is taken by the judge; choose another"),
        ("evaluate.judges.judge=length", "evaluate.judges.judge: the name is taken by the judge; choose another"),
        (
            "evaluate.judges.a=length",
            "evaluate.judges.a: the name is taken by an arm, whose labeler is measured anyway; choose another",
        ),
        (
            "evaluate.responses=2",
            "evaluate: responses: greedy decoding gives equal responses; set 'temperature' above 0",
        ),
    ],
)
def test_names_in_evaluate_must_exist_and_be_free(override: str, expected: str, manager: PluginManager) -> None:
    assert problems(changed(override), manager) == [expected]


@pytest.mark.parametrize("name", ["sft", "reference", "judge", "evaluation", "tensorboard", *REPORTS])
def test_an_arm_cannot_take_a_name_that_runs_use_themselves(name: str, manager: PluginManager) -> None:
    data = deepcopy(BASE)
    data["arms"][name] = data["arms"].pop("a")
    assert problems(data, manager) == [f"arms.{name}: the name '{name}' is reserved; choose another"]


# --set


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=5", ("seed",), 5),
        ("sft=null", ("sft",), None),
        ("sft.lr=1e-4", ("sft", "lr"), 1e-4),
        ("policy.lora.rank=4", ("policy", "lora", "rank"), 4),
        ("policy.model=a=b", ("policy", "model"), "a=b"),
        ("policy.revision=", ("policy", "revision"), None),
        ("task.data=no", ("task", "data"), "no"),
        ("evaluate.matchups=[[a, sft], [a, reference]]", ("evaluate", "matchups", 1, 1), "reference"),
        ("arms.a.algorithm.beta=0.5", ("arms", "a", "algorithm", "beta"), 0.5),
        (" seed = 5", ("seed",), 5),
    ],
)
def test_set_puts_one_value_where_its_path_says(override: str, path: tuple[Any, ...], value: object) -> None:
    data = changed(override)
    node: Any = data
    for part in path:
        node = node[part]
    assert node == value
    untouched = {k: v for k, v in BASE.items() if k != path[0]}
    assert {k: v for k, v in data.items() if k in untouched} == untouched


def test_set_reaches_into_lists_and_spells_out_short_forms() -> None:
    data = changed("evaluate.matchups=[[a, sft], [a, sft]]", "evaluate.matchups.1.1=reference")
    assert data["evaluate"]["matchups"] == [["a", "sft"], ["a", "reference"]]
    data = changed("task=tldr", "task.data=file.jsonl", "arms.a.reward=bradley-terry", "arms.a.reward.epochs=2")
    assert data["task"] == {"kind": "tldr", "data": "file.jsonl"}
    assert data["arms"]["a"]["reward"] == {"kind": "bradley-terry", "epochs": 2}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "expected path=value"),
        ("=3", "expected path=value"),
        ("seed.x.y=3", "the spec has no 'seed.x'"),
        ("seed.x=3", "'seed' is a single value and has no 'x'"),
        ("evaluate.matchups.7.0=a", "the spec has no 'evaluate.matchups.7'"),
        ("evaluate.matchups.x=a", "the spec has no 'evaluate.matchups.x'"),
        ("task.data={a", "not valid YAML"),
    ],
)
def test_a_set_that_goes_nowhere_says_so(override: str, expected: str) -> None:
    data = changed("seed=1", "evaluate.matchups=[[a, sft]]")
    with pytest.raises(SpecError) as raised:
        set_value(data, override)
    assert str(raised.value).startswith(f"--set {override}: ")
    assert expected in str(raised.value)


def test_overrides_apply_in_order_before_validation(tmp_path: Path, manager: PluginManager) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(BASE))
    spec = load_spec(path, ["seed=1", "seed=2", "policy.model=other"], manager)
    assert (spec.seed, spec.policy.model) == (2, "other")
    with pytest.raises(SpecError, match=r"policy\.modl: unknown key; did you mean 'model'"):
        load_spec(path, ["policy.modl=x"], manager)


# Files and requirements


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("s.yaml", "a: [1", "is not valid YAML"),
        ("s.yaml", "a: 1\n b: 2", "line 2"),
        ("s.yaml", "a: !!timestamp 2024-99-99", "is not valid YAML"),
        ("s.yaml", "", "does not hold a mapping"),
        ("s.yaml", "- a\n- b\n", "does not hold a mapping"),
        ("s.yaml", "just text", "does not hold a mapping"),
        ("s.toml", "a = ", "is not valid TOML"),
        ("s.json", "{", "is not valid JSON"),
        ("s.json", "[]", "does not hold a mapping"),
        ("s.txt", "a: 1", "unknown file type '.txt'; use .yaml, .toml or .json"),
        ("s", "a: 1", "unknown file type ''"),
    ],
)
def test_a_file_that_is_no_spec_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    assert str(path) in str(raised.value)
    assert expected in str(raised.value)


def test_a_missing_folder_or_undecodable_spec_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no spec file at .*gone.yaml"):
        load_spec(tmp_path / "gone.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(SpecError, match=r"cannot read .*folder.yaml"):
        load_spec(tmp_path / "folder.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: \xe9t\xe9".encode("latin-1"))
    with pytest.raises(SpecError, match=r"cannot read .*latin.yaml"):
        load_spec(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (
            "rlaif-not-there>=0.2",
            "rlaif-not-there>=0.2 is not installed; install it: pip install 'rlaif-not-there>=0.2'",
        ),
        ("pydantic>=99", "pip install -U 'pydantic>=99'"),
    ],
)
def test_an_unmet_requirement_comes_first_with_the_pip_command(
    tmp_path: Path, requirement: str, expected: str, manager: PluginManager
) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**BASE, "requires": [requirement], "task": "not-there/x"}))
    with pytest.raises(SpecError) as raised:
        load_spec(path, manager=manager)
    assert expected in str(raised.value)
    assert "no task named" not in str(raised.value), "what the plugin would bring is reported as missing too"


@pytest.mark.parametrize("requirement", ["pydantic>=2", "PyYAML", "pyyaml>=5", "huggingface-hub", "rlaif_framework"])
def test_a_met_requirement_is_met_however_its_name_is_spelt(
    tmp_path: Path, requirement: str, manager: PluginManager
) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**BASE, "requires": [requirement]}))
    assert load_spec(path, manager=manager).requires == [requirement]


def test_a_value_that_is_set_is_one_value_whatever_anchors_share(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("arms:\n  a: {reward: &r {kind: length, per: 1}}\n  b: {reward: *r}\n")
    data = read_mapping(path, "spec", SpecError)
    set_value(data, "arms.a.reward.per=2")
    assert data["arms"]["a"]["reward"]["per"] == 2
    assert data["arms"]["b"]["reward"]["per"] == 1


def test_an_anchor_that_holds_itself_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("arms: &a\n  b: *a\n")
    with pytest.raises(SpecError, match="contains an alias of itself"):
        read_mapping(path, "spec", SpecError)
