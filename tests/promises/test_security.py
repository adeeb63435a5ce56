"""Every numbered sentence of SECURITY.md has a test here, whose docstring is the sentence."""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from starlette.testclient import TestClient

from rlaif_framework import (
    DataError,
    ModelError,
    PluginManager,
    Prompt,
    RlaifError,
    Spec,
    SpecError,
    Store,
    load_labeler,
    load_policy,
    load_reward,
    load_run,
    load_spec,
)
from rlaif_framework.annotation.access import Access, SavedAccess
from rlaif_framework.annotation.answers import AnswerFile
from rlaif_framework.annotation.assignment import Desk
from rlaif_framework.annotation.items import read_items
from rlaif_framework.annotation.server import Annotation, PageSettings, create_app
from rlaif_framework.cli.annotate import annotate
from rlaif_framework.data import AnnotatorPrompts, Template, TemplateFault, row_files
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.data.row_files import read_row_file
from rlaif_framework.data.splits import read_part
from rlaif_framework.models import encode_prompt, find_model, load_model, load_tokenizer
from rlaif_framework.pipeline.planning import plan_spec
from rlaif_framework.records.jsonl import MAX_LINE
from rlaif_framework.store import MANIFEST
from rlaif_plugins.backends.openai import OpenAIConfig
from rlaif_plugins.backends.openai.service import Service
from rlaif_plugins.checks.exact_match import ExactMatch
from rlaif_plugins.checks.regex import Regex
from support.fake_plugins import Site
from support.own_code import save_own_code
from support.pages import strip_assets
from support.runs import digest, execute

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PROMPTS = ROOT / "plugins/rlaif_plugins/tasks/tldr/annotator_prompts.yaml"
SOURCES = sorted(
    path
    for folder in ("rlaif_framework", "plugins/rlaif_plugins", "registry")
    for path in (ROOT / folder).rglob("*.py")
)
ATTACK = "{{ lipsum.__globals__['os'].system('touch owned') }}"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = "\x1b]0;owned\x07\u202e"


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in an empty folder, in which attacks leave a file, and without anyone who answers questions."""

    def refuse(*args: Any) -> str:
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", refuse)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    assert not list(tmp_path.rglob("owned"))


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose code leaves the file `owned`."""
    return save_own_code(tiny_model, tmp_path / "own", tmp_path / "owned")


def sentences() -> dict[int, str]:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    found = re.findall(r"^(\d+)\. (.+(?:\n {3,4}.+)*)$", text, re.MULTILINE)
    return {int(number): " ".join(sentence.split()) for number, sentence in found}


def test_every_sentence_has_its_test() -> None:
    docs = [function.__doc__ for name, function in globals().items() if name.startswith("test_")]
    tested = [" ".join(doc.split()) for doc in docs if doc]
    assert sorted(tested) == sorted(sentences().values())
    assert list(sentences()) == list(range(1, len(sentences()) + 1))


def test_all_else_in_the_page_is_an_introduction() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    intro, *sections = re.split(r"^## .*$", text, flags=re.MULTILINE)
    for section in sections:
        assert re.fullmatch(r"\s*(\d+\. .+\n( {3,4}.+\n)*)+\s*", section)
    assert len(intro.split(".")) < 8


def test_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed plugins are trusted: their code runs when a command starts."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RLAIF_PLUGINS")
    mark = tmp_path / "ran"
    Site(tmp_path).install("rlaif-marker", f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    PluginManager.load()
    assert mark.exists()


def test_trusted_models(
    tiny_model: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    """A model that a spec trusts by `trust_remote_code: true` may run its own Python code, and `rlaif plan` says so."""
    folder = save_own_code(tiny_model, tmp_path / "own", tmp_path / "ran")
    policy = {"model": str(folder), "max_prompt_tokens": 96, "max_new_tokens": 8}
    for trusted in (False, True):
        spec = {"task": "tldr", "policy": {**policy, "trust_remote_code": trusted}}
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
        code, out, _ = rlaif("plan", tmp_path / "spec.yaml")
        assert code == 0
        assert ("runs the model's own code" in " ".join(out.split())) is trusted
    load_model(find_model(str(folder), trust_remote_code=True), "causal", torch.float32, CPU)
    assert (tmp_path / "ran").exists()


def test_the_store(tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    """The artefact store is trusted: an artefact that is in it is used without being computed again."""
    spec = tiny_spec(arms={}, evaluate=None, sft=None)
    first = execute(spec, tmp_path / "a", manager, tmp_path / "store")
    weights = first.artefact(first.steps[0]) / "model.safetensors"
    changed = weights.read_bytes()[:-4] + b"\0\0\0\0"
    weights.write_bytes(changed)
    record = weights.with_name(MANIFEST)  # it has the hashes, which find damage, but not what somebody meant to change
    record.write_text(json.dumps({**json.loads(record.read_text()), "files": {}}))
    second = execute(spec, tmp_path / "b", manager, tmp_path / "store")
    assert second.reused == {"sft": True}
    assert (tmp_path / "b/sft/model.safetensors").read_bytes() == changed


OWNED = "open('owned', 'w').close()\n"
"""Code that leaves the file `owned` in the current folder."""
SCORE = "def score(completions, **kwargs):\n    return [0.0 for _ in completions]\n"


def write_spec(folder: Path, model: Path, **changes: Any) -> Path:
    """Write a spec that names code beside it, in every place where it can."""
    folder.mkdir()
    for name in ("plugin.py", "reward.py", "labeler.py", "metric.py"):
        (folder / name).write_text(OWNED + SCORE)
    function = {"kind": "function", "target": "reward.py:score"}
    labeler = {"kind": "ensemble", "labelers": {"x": {"kind": "function", "target": "labeler.py:score"}}}
    spec = {
        "plugins": ["plugin.py"],
        "task": {"kind": "tldr", "metrics": [{"kind": "function", "target": "metric.py:score"}]},
        "policy": {"model": str(model), "max_prompt_tokens": 96, "max_new_tokens": 8},
        "sft": None,
        "arms": {"a": {"reward": {"kind": "sum", "terms": {"x": function}}, "algorithm": "grpo"}},
        "evaluate": {"judge": labeler},
        **changes,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    (folder / "labeler.yaml").write_text(yaml.safe_dump(labeler))
    return folder / "spec.yaml"


def test_allowed_code(tmp_path: Path, tiny_model: Path, rlaif: Callable[..., tuple[int, str, str]]) -> None:
    """Python files and modules that you allow by `--plugin` or `--trust-local` run, with everything that you can do."""
    spec = write_spec(tmp_path / "own", tiny_model)
    assert rlaif("plan", spec, "--trust-local")[0] == 0
    assert Path("owned").exists()
    Path("owned").unlink()
    files = [argument for name in ("plugin", "reward", "labeler", "metric") for argument in ("--plugin", f"{name}.py")]
    os.chdir(spec.parent)
    assert rlaif("plan", "spec.yaml", *files)[0] == 0
    Path("owned").unlink()


def test_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers and trackers that a spec names get texts of the data, and servers get the value of the environment
    variable that it names for the key: read it before you run it."""
    monkeypatch.setenv("SOME_VARIABLE", "its value")
    config = OpenAIConfig(model="m", base_urls=["http://localhost/v1"], api_key_env="SOME_VARIABLE")
    service = Service(config)
    assert service.key == "its value"
    assert [server.url for server in service.servers] == ["http://localhost/v1"]


@pytest.mark.parametrize("source", [ATTACK, "{{ x.__class__.__mro__ }}", "{{ x.append(1) }}", "{% include 'x' %}"])
def test_templates_are_sandboxed(
    source: str, tiny_model: Path, tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    """A template of a spec, an annotator prompt or a model reads the values it is given, calls no other code, and
    changes nothing."""
    task = {"kind": "tldr", "template": "{{ post }}" + source}
    spec = {"task": task, "policy": {"model": str(tiny_model)}, "evaluate": None}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    code, _, message = rlaif("plan", tmp_path / "spec.yaml")
    assert code == 2
    assert "task.template" in message
    assert "line 1: " in message
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump({"sample": "{{ source }}{{ first }}{{ second }}" + source}))
    with pytest.raises(DataError, match="not a valid template"):
        AnnotatorPrompts.load(PROMPTS, tmp_path / "prompts.yaml")
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% set x = messages %}" + source
    with pytest.raises(RlaifError, match="chat template"):
        encode_prompt(tokenizer, "Hi")


def test_templates_end(tiny_model: Path) -> None:
    """A template that takes too much work ends with one message, after the same amount of work on every machine."""
    for chat in (False, True):
        with pytest.raises(TemplateFault, match=r"^t, line 1: the template takes too much work") as caught:
            Template("t", LOOP, chat).render()
        assert "\n" not in str(caught.value)
    # Each iteration takes the same units, so a template does not pass on a faster machine.
    loop = Template("t", "{% for i in range(n) %}{% for j in range(9) %}{% endfor %}{% endfor %}")
    assert loop.render(n=10_000) == ""
    with pytest.raises(TemplateFault):
        loop.render(n=60_000)
    for path in SOURCES:
        if path.name.startswith("template"):
            assert not any("time" in call or "clock" in call for call in find_calls(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.yaml", "a: !!python/object/apply:os.system ['touch owned']"),
        ("x.yaml", "a: !!python/name:os.system"),
        ("x.yaml", "a: !!python/object/new:os.system ['touch owned']"),
        ("x.yaml", "!!python/module:os {}"),
        ("x.toml", "a = os.system('touch owned')"),
        ("x.json", "{\"a\": os.system('touch owned')}"),
    ],
)
def test_mappings_are_data(tmp_path: Path, name: str, text: str) -> None:
    """YAML, TOML and JSON files hold data: no tag or key in them creates an object or runs code."""
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match="is not valid"):
        read_mapping(tmp_path / name, "spec", SpecError)


def test_mappings_are_bounded(tmp_path: Path) -> None:
    """Files with mappings are refused if they are too large, are nested too deeply, refer to too many values by
    aliases, have numbers with too many digits, or name a key twice. This holds for each file that a spec is based on.
    """
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    hostile = {"#" * 2_000_000: "larger", "a: " + "[" * 9999: "deeply", laughs: "aliases", "a: 1\na: 2": "duplicate"}
    hostile["seed: 0x" + "f" * 4000] = "more than 100 characters"
    for text, reason in hostile.items():
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(SpecError, match=reason):
            read_mapping(tmp_path / "x.yaml", "spec", SpecError)
        (tmp_path / "top.yaml").write_text("base: x.yaml")
        with pytest.raises(SpecError, match=reason):
            load_spec(tmp_path / "top.yaml")


def test_special_files(
    tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, devices, sockets and other special files are refused before they are opened."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "top.yaml").write_text("base: pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path / "zero.yaml", Path("/dev/zero"), tmp_path / "top.yaml"):
        for command in ("run", "plan", "check"):
            code, _, message = rlaif(command, path)
            assert code == 2
            assert "not a regular file" in message
    for path in (tmp_path / "pipe.jsonl", tmp_path / "pipe.csv"):
        os.mkfifo(path)
        assert rlaif("label", path, "--labeler", "length", "--out", "labels.jsonl")[0] == 2


@pytest.mark.parametrize("place", ["package:rlaif_owner/x.yaml", "base: package:rlaif_owner/x.yaml"])
def test_specs_of_packages(
    tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A spec can name a file of an installed package, whose code does not run for it."""
    package = tmp_path / "site/rlaif_owner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("open('owned', 'w')")
    (package / "x.yaml").write_text("{task: tldr, policy: {model: 'package:rlaif_owner'}}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "top.yaml").write_text(place)
    given = tmp_path / "top.yaml" if place.startswith("base") else place
    code, _, message = rlaif("check", given)
    assert code == 2
    assert "contains neither a .gguf file nor a model folder" in message, "the file is not read"


def test_regular_expressions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A regular expression of a spec is matched in linear time."""
    prompt = Prompt("p", "p", "p", "a")
    for length in (100, 50_000):  # the `re` module would take more than a lifetime for the first one
        text = "a" * length + "!"
        assert Regex(pattern=r"\A(a+)+\z").grade(prompt, text) == 0.0
        assert ExactMatch(extract=r"\A(a|a)*\z").grade(prompt, text) == 0.0
    for path in SOURCES:
        if "checks" in path.parts:  # expressions of its own, and those of literal texts, may use `re`
            assert path.name == "patterns.py" or "import re2" not in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not a regular expression of RE2"):
        Regex(pattern=r"(a+)\1")


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_code_beside_specs(
    command: str, tmp_path: Path, tiny_model: Path, rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    """A spec can name Python files and functions, but they run only if you allow it; otherwise `check`, `plan`, `run`
    and `label` name them and stop."""
    spec = write_spec(tmp_path / "stranger", tiny_model)
    for given in ([spec], [spec, "--plugin", spec.with_name("reward.py")]):
        spec.with_name("reward.py").write_text(SCORE)
        code, out, message = rlaif(command, *given)
        assert (code, out) == (2, "")
        names = ("plugin.py", "labeler.py", "metric.py")
        assert all(str(spec.with_name(name)) in message for name in names)
        assert ("reward.py" in message) is (len(given) == 1)
        assert "--trust-local" in message
        assert "Traceback" not in message
    Path("pairs.jsonl").write_text('{"prompt": "a", "responses": ["b", "c"]}\n')
    for labeler in (spec.with_name("labeler.yaml"), "function"):
        more = ["--set", "target=os:system"] if labeler == "function" else []
        code, out, message = rlaif("label", "pairs.jsonl", "--out", "labels.jsonl", "--labeler", labeler, *more)
        assert (code, out) == (2, "")
        assert ("  os (target: system)\n" if more else "labeler.py") in message
    assert {path.name for path in Path().iterdir()} == {"pairs.jsonl"}


@pytest.mark.parametrize("requirement", ["rlaif-x @ https://example.org/x", "rlaif-x; os_name == 'posix'", "rlaif-x"])
def test_required_plugins(
    tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, requirement: str
) -> None:
    """A spec can ask for plugins by name and version, which installs nothing and names no other place to install
    from."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    monkeypatch.setattr("os.system", refuse)
    spec = {"requires": [requirement], "task": "tldr", "policy": {"model": "m"}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    code, _, message = rlaif("check", tmp_path / "spec.yaml")
    assert code == 2
    assert "example.org" not in message
    if "@" not in requirement:
        assert "pip install" in message


def test_code_of_models(
    own_model: Path,
    tmp_path: Path,
    rlaif: Callable[..., tuple[int, str, str]],
    run_folder: Path,
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python code of a model does not run unless the spec trusts the model, and no command asks a question about it.
    From Python, what a run folder holds is loaded with such code only if the caller passes `trust_remote_code=True`."""
    with pytest.raises(ModelError, match="trust_remote_code: true"):
        load_model(own_model, "causal", torch.float32, CPU)
    spec = {"task": "tldr", "policy": {"model": str(own_model)}, "sft": None}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert rlaif("plan", tmp_path / "spec.yaml")[0] == 0
    for command in (("check",), ("run", "--out", "out")):
        code, _, message = rlaif(*command, tmp_path / "spec.yaml")
        assert code == 2
        assert "set 'trust_remote_code: true' where the model is named" in message
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "responses": ["a", "b"]}\n')
    (tmp_path / "labeler.yaml").write_text(yaml.safe_dump({"kind": "likelihood", "model": str(own_model)}))
    arguments = ("--labeler", tmp_path / "labeler.yaml", "--out", "labels.jsonl")
    assert rlaif("label", tmp_path / "pairs.jsonl", *arguments)[0] == 2
    monkeypatch.setattr(PluginManager, "load", lambda **settings: manager)
    for load in (load_policy, load_reward):
        with pytest.raises(ModelError, match="trust_remote_code"):
            load(own_model)
    folder = tmp_path / "strange"
    (folder / "rlaif").mkdir(parents=True)
    shutil.copytree(own_model, folder / "rlaif" / "policy")
    strange = yaml.safe_load((run_folder / "spec.yaml").read_text())
    strange["policy"]["trust_remote_code"] = True
    strange["arms"]["rlaif"]["feedback"]["labeler"] = {"kind": "length"}
    (folder / "spec.yaml").write_text(yaml.safe_dump(strange))
    shutil.copy(run_folder / "run.json", folder)
    for load_from_run in (load_run, load_policy, load_reward, load_labeler):
        with pytest.raises(ModelError, match="trust_remote_code=True"):
            load_from_run(folder)
    # No call leaves the question to transformers.
    for path in SOURCES:
        for call in find_calls(path):
            if call.endswith((".from_pretrained", ".from_config")):
                assert call_settles_trust(path, call), f"{path}: {call}"


def find_calls(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def call_settles_trust(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]
    settled = re.compile(r"trust_remote_code=|\*\*source_settings\(|\*\*given")
    return all(settled.search(ast.unparse(call)) for call in calls)


def test_weights(tiny_model: Path, tmp_path: Path) -> None:
    """Weights are loaded from safetensors and GGUF files only, because other formats can run code."""

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch owned",)

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.pt"):
        torch.save({"weight": Attack()}, folder / name)
    load_model(folder, "causal", torch.float32, CPU)
    load_tokenizer(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="only safetensors are loaded"):
        load_model(folder, "causal", torch.float32, CPU)


def test_keys_cover_models(
    tiny_model: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    """The key of an artefact covers the contents of all files of a model that are loaded, and of the code that is
    trusted."""
    own_model = save_own_code(tiny_model, tmp_path / "own", tmp_path / "ran")
    policy = {"model": str(own_model), "trust_remote_code": True, "max_prompt_tokens": 96}
    spec = tiny_spec(policy=policy, arms={}, evaluate=None)

    def key() -> str:
        return plan_spec(spec, Store(tmp_path / "store"), manager)[0].key

    keys = {key()}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "modeling_own.py"):
        path = own_model / name
        path.write_text(path.read_text() + " \n")
        keys.add(key())
    weights = own_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    keys.add(key())
    assert len(keys) == 7


def test_texts_are_values(tiny_model: Path) -> None:
    """Texts of data and of servers are put into templates as values, and are never rendered as templates."""
    prompts = AnnotatorPrompts.load(PROMPTS)
    text = f"{ATTACK} {{{{ 7 * 7 }}}} {{% raw %}}"
    rendered = prompts.render(text, (text, text))
    assert rendered.count(text) == 3
    assert "49" not in rendered
    tokenizer = load_tokenizer(tiny_model)
    assert text in str(tokenizer.decode(encode_prompt(tokenizer, text)))
    # The answers of servers are put into questions by these annotations, which have no templates at all.
    for path in SOURCES:
        if "prompting" in path.parts or "strategies" in path.parts or "backends" in path.parts:
            called = {call.rpartition(".")[2] for call in find_calls(path)}
            assert not called & {"Template", "from_string", "eval", "exec"}


def test_code_beside_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python files beside data are not run."""
    folder = Path("stranger/data")
    folder.mkdir(parents=True)
    for name in ("data.py", "stranger.py", "__init__.py", "setup.py", "conftest.py"):
        (folder / name).write_text("import os\nos.system('touch owned')\n")
    (folder / "train.jsonl").write_text('{"post": "a", "summary": "b"}\n')
    assert [dict(row.values) for row in read_part(str(folder))] == [{"post": "a", "summary": "b"}]


def test_compressed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files that expand to much more are refused: a line, a JSON array and a row of a Parquet file have at most
    256 MiB each, and a CSV file at most 10,000 columns."""
    assert (MAX_LINE, row_files.MAX_ARRAY, row_files.MAX_COLUMNS) == (2**28, 2**28, 10_000)
    monkeypatch.setattr("rlaif_framework.records.jsonl.MAX_LINE", 1000)
    monkeypatch.setattr("rlaif_framework.data.row_files.MAX_LINE", 1000)
    monkeypatch.setattr("rlaif_framework.data.row_files.MAX_ARRAY", 1000)
    monkeypatch.setattr("rlaif_framework.data.row_files.MAX_COLUMNS", 100)
    hostile = {
        "x.jsonl.gz": '{"a": "' + "x" * 9_000_000,
        "x.csv.gz": "a,b\n1," + "x" * 9_000_000,
        "y.csv.gz": "," * 500,
        "x.json.gz": "[" + "{},\n" * 1_000_000,
    }
    for name, text in hostile.items():
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        with pytest.raises(DataError, match=r"longer than 1,000|field limit|100 columns|up to 1,000 bytes"):
            list(read_row_file(tmp_path / name))
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 9, pa.int32()), ["x" * 2000])
    pq.write_table(pa.table({"a": texts}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="row 1 has more than 1,000 bytes"):
        list(read_row_file(tmp_path / "x.parquet"))


@pytest.mark.parametrize("victim", ["../victim", "{tmp_path}/victim", "sft/../../victim"])
def test_run_folders(victim: str, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    """A run replaces and removes only artefacts that a run wrote, at their places inside the run folder, and follows no
    link there."""
    spec = tiny_spec(arms={}, evaluate=None, sft=None)
    (tmp_path / "victim").mkdir()
    for name in ("thesis.tex", "artefact.json"):
        (tmp_path / "victim" / name).write_text("{}")
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"steps": {victim.format(tmp_path=tmp_path): "x"}}))
    with pytest.raises(SpecError, match="was not written by a run"):
        execute(spec, out, manager)
    (out / "run.json").write_text(json.dumps({"steps": {"sft": "x", "old": "x"}}))
    for name in ("sft", "old"):
        (out / name).symlink_to(tmp_path / "victim")
        with pytest.raises(SpecError, match="is a link"):
            execute(spec, out, manager)
        (out / name).unlink()
        shutil.copytree(tmp_path / "victim", out / name)
        (out / name / "artefact.json").unlink()
        with pytest.raises(SpecError, match="was not written by a run"):
            execute(spec, out, manager)
        assert (out / name / "thesis.tex").exists()
        (out / name / "artefact.json").write_text("{}")
    execute(spec, out, manager)
    assert not (out / "old").exists()
    assert not (out / "sft/thesis.tex").exists()
    assert (tmp_path / "victim/thesis.tex").exists()


def test_where_a_run_writes(tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager) -> None:
    """A run writes only into its run folder, the artefact store, caches, and the places of the trackers in its spec."""
    execute(tiny_spec(arms={}), tmp_path / "out", manager, tmp_path / "store")
    assert {path.name for path in tmp_path.iterdir()} == {"work", "out", "store"}
    assert not list((tmp_path / "work").iterdir())


def test_nothing_is_unpickled(run_folder: Path) -> None:
    """No file of a store, a run folder or a data set is unpickled."""
    loaders = re.compile(r"(pickle|torch|joblib|numpy|np|marshal|shelve)\.(load|loads|open)|.*read_pickle")
    found = {path.name for path in SOURCES for call in find_calls(path) if loaders.fullmatch(call)}
    assert found == {"pairs_file.py"}, "only this temporary file, which has no name, is unpickled"
    endings = {path.suffix for path in run_folder.rglob("*") if path.is_file() and "events." not in path.name}
    assert not endings & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy"}
    assert digest(run_folder)


def test_unused_artefacts(tmp_path: Path, run_folder: Path, rlaif: Callable[..., tuple[int, str, str]]) -> None:
    """`rlaif gc` deletes only artefacts that the store wrote, and follows no link."""
    store, runs, victim = tmp_path / "store", tmp_path / "runs", tmp_path / "victim"
    shutil.copytree(run_folder.parent / "run-store", store)
    runs.mkdir()
    written = [path for path in store.iterdir() if (path / MANIFEST).exists()]
    linked, extended, bare = written[:3]
    linked.rename(victim)
    linked.symlink_to(victim)
    (extended / "thesis.tex").write_text("x")
    (bare / MANIFEST).unlink()
    before = digest(victim)
    assert rlaif("gc", "--store", store, "--runs", runs, "--delete")[0] == 0
    assert {path for path in written if path.exists()} == {linked, extended, bare}
    assert (extended / "thesis.tex").exists()
    assert digest(victim) == before


def test_terminal(tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]]) -> None:
    """Control characters in messages, tables and progress are escaped, so that no text can steer the terminal."""
    rows = [{"prompt": "p", "responses": ["a", "b"], "id": HOSTILE, f"prompt{HOSTILE}": 1}, {"prompt": "p", HOSTILE: 1}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"task": "tldr", "policy": {"model": f"m{HOSTILE}"}, HOSTILE: 1}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(spec))
    spec.pop(HOSTILE)
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(spec))
    arguments = ("--labeler", "length", "--out", "labels.jsonl")
    for argv in (
        ("check", tmp_path / "bad.yaml"),
        ("check", tmp_path / "good.yaml"),
        ("check", tmp_path / "good.yaml", "--json"),
        ("plan", tmp_path / "good.yaml"),
        ("label", tmp_path / "pairs.jsonl", *arguments),
        ("label", tmp_path / "pairs.jsonl", *arguments, "--skip-invalid"),
    ):
        _, out, message = rlaif(*argv)
        assert out or message
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out + message), argv


PROGRESS_TOKEN = "the-token-of-progress"


def serve_annotation(folder: Path, text: str) -> TestClient:
    """A client of the page of `rlaif annotate`, which shows one pair, with the token."""
    (folder / "pairs.jsonl").write_text(json.dumps({"prompt": text, "responses": [text, "b"]}) + "\n")
    pairs = read_items(folder / "pairs.jsonl")
    access = replace(Access.create("127.0.0.1", None), progress_token=PROGRESS_TOKEN)
    desk = Desk(AnswerFile.create(folder / "answers.sqlite"), list(pairs.items))
    app = create_app(Annotation(desk, pairs, {}, PageSettings(text)), access)
    return TestClient(app, "http://127.0.0.1:8000", headers={"Authorization": f"Bearer {access.token}"})


def test_annotation_page_needs_a_token(tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]]) -> None:
    """The page listens on this machine only, and its data need a random token; another address needs a token of your
    own."""
    client, body = serve_annotation(tmp_path, "a"), {"annotator": "Ann"}
    assert client.post("/api/items", json=body).status_code == 200
    for header in ("", "Bearer ", "Bearer guess"):
        assert client.post("/api/items", json=body, headers={"Authorization": header}).status_code == 401
    arguments = ("annotate", tmp_path / "pairs.jsonl", "--out", tmp_path / "other.sqlite", "--host", "0.0.0.0")
    code, _, message = rlaif(*arguments)
    assert (code, "needs --token" in message) == (2, True)
    assert inspect.signature(annotate).parameters["host"].default == "127.0.0.1"


def test_annotation_progress(tmp_path: Path) -> None:
    """The measurements, which name the models, need a second token, which the page for comparing does not have."""
    client = serve_annotation(tmp_path, "a")
    assert client.get("/api/progress").status_code == 401
    client.headers["Authorization"] = f"Bearer {PROGRESS_TOKEN}"
    assert client.get("/api/progress").status_code == 200
    assert PROGRESS_TOKEN not in client.get("/").text


def test_annotation_tokens(tmp_path: Path) -> None:
    """The tokens are kept beside the answers, in a file that only you can read."""
    answers = tmp_path / "answers.sqlite"
    saved = SavedAccess(token="t" * 16, progress_token="p" * 16, port=8000)
    saved.write(answers)
    file = SavedAccess.place(answers)
    assert file.parent == tmp_path
    assert file.stat().st_mode & 0o777 == 0o600
    assert SavedAccess.read(answers) == saved


def test_annotation_page_and_other_pages(tmp_path: Path) -> None:
    """Requests of other pages, and requests to other names of this machine, are refused."""
    client, body = serve_annotation(tmp_path, "a"), {"annotator": "Ann"}
    for header in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        for path in ("/", "/api/items"):
            assert client.post(path, json=body, headers=header).status_code == 403


def test_annotation_page_shows_texts(tmp_path: Path) -> None:
    """Texts are shown as texts, and the page runs and loads nothing but its own files."""
    hostile = "</script><script>owned</script><img src=x onerror=owned>"
    client = serve_annotation(tmp_path, hostile)
    page = client.get("/")
    assert "&lt;script&gt;owned" in page.text
    assert "<img" not in page.text
    assert re.findall("<script[^>]*>", page.text) == ['<script src="page.js" defer>']
    assert "innerHTML" not in client.get("/page.js").text
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    (shown,) = client.post("/api/items", json={"annotator": "Ann"}).json()["items"]
    assert hostile in shown["responses"]


def test_reports(tmp_path: Path, run_folder: Path) -> None:
    """Reports escape all texts, and load nothing from elsewhere."""
    from rlaif_framework.report.run_report import RunReport

    report = RunReport.read(run_folder)
    hostile = "<script>owned</script><img src=x onerror=owned>"
    report.model_copy(update={"warnings": [hostile]}).write(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;owned" in page
    page = strip_assets(page)
    assert set(re.findall(r"<script[^>]*>", page)) == {'<script type="application/json" id="chart-specs">'}
    assert "<img src=x" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "@import" not in page
