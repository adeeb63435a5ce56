"""`rlaif new-plugin` writes distributions that install, are listed, and pass their tests, mypy and ruff at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from rlaif_framework import PluginManager, files
from rlaif_framework.cli.new_plugin import check_namespace, make_distribution
from rlaif_framework.errors import PluginError
from rlaif_framework.files import locked
from rlaif_framework.plugins.component import SLOTS, Slot
from rlaif_framework.plugins.targets import import_target

Rlaif = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
KINDS = SLOTS
OWN = {kind: f"the-{kind}s-co" for kind in KINDS}
"""A namespace for each kind, so that all can be installed together; longer than `acme`, as lines get longer with it."""


def write(folder: Path, namespace: str, kinds: Sequence[Slot]) -> Path:
    for path, text in make_distribution(namespace, kinds).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def run(*command: str, paths: Iterable[Path] = (), cwd: Path | None = None) -> str:
    """Run a command that must succeed, with folders on the path of Python and all installed plugins allowed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RLAIF_PLUGINS", "PYTHONPATH")}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *filter(None, sys.path)])
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A distribution of each kind."""
    folder = tmp_path_factory.mktemp("written")
    return {kind: write(folder / f"rlaif-{OWN[kind]}", OWN[kind], [kind]) for kind in KINDS}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution with all kinds."""
    return write(tmp_path_factory.mktemp("together") / "rlaif-acme", "acme", KINDS)


@pytest.fixture(scope="module")
def installed(written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders that make the distributions count as installed: their sources, and metadata as pip writes it."""
    site = tmp_path_factory.mktemp("site")
    for folder in written.values():
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        entries = project["entry-points"]["rlaif_framework.plugins"]
        named = "".join(f"{name} = {module}\n" for name, module in entries.items())
        (info / "entry_points.txt").write_text(f"[rlaif_framework.plugins]\n{named}")
    return [site, *(folder / "src" for folder in written.values())]


def test_each_kind_passes_its_own_tests(written: dict[str, Path], installed: list[Path]) -> None:
    tests = [str(folder / "tests") for folder in written.values()]
    config = ["-c", str(next(iter(written.values())) / "pyproject.toml"), "--rootdir", "/"]
    out = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *config, *tests, paths=installed)
    counts = out.splitlines()[-1]
    assert " passed" in counts
    assert "failed" not in counts


def test_each_kind_is_listed_and_has_a_class_that_can_be_imported(
    installed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLAIF_PLUGINS")
    for folder in installed:
        monkeypatch.syspath_prepend(str(folder))
    manager = PluginManager.load()
    found = {plugin.distribution: plugin for plugin in manager.plugins if not plugin.builtin}
    for kind, namespace in OWN.items():
        plugin = found[f"rlaif-{namespace}"]
        assert plugin.error is None
        (name,) = (name for name in manager.names(kind) if name.startswith(f"{namespace}/"))
        assert plugin.components == [f"{kind} {name}"]
        import_target(manager.find(kind, name), kind)


HEAVY = ("torch", "transformers", "accelerate", "datasets", "peft", "pyarrow", "scipy", "numpy", "matplotlib")
SKIP = f"\n[[tool.mypy.overrides]]\nmodule = {[f'{name}.*' for name in HEAVY]}\nfollow_imports = 'skip'\n"


# Without the types of torch, mypy takes a third of the time.
@pytest.mark.parametrize("added", [SKIP, pytest.param("", marks=pytest.mark.slow)], ids=["own-types", "all-types"])
def test_each_kind_and_all_together_pass_strict_mypy(
    added: str, written: dict[str, Path], together: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mypy")
    config = tmp_path / "pyproject.toml"
    config.write_text((together / "pyproject.toml").read_text(encoding="utf-8") + added)
    sources = [path for folder in (*written.values(), together) for path in sorted((folder / "src").iterdir())]
    sources += [path for folder in written.values() for path in sorted((folder / "tests").iterdir())]
    options = ["--config-file", str(config), "--cache-dir", os.devnull]
    run(sys.executable, "-m", "mypy", *options, *map(str, sources))


def test_each_kind_and_all_together_pass_ruff(written: dict[str, Path], together: Path) -> None:
    pytest.importorskip("ruff")
    folders = [str(folder) for folder in (*written.values(), together)]
    run(sys.executable, "-m", "ruff", "check", "--no-cache", *folders)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", str(together))


def test_all_kinds_together_install_from_a_wheel_and_pass_a_test(together: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path), str(together))
    out = run(sys.executable, "-m", "rlaif_framework", "plugins", paths=[tmp_path])
    (row,) = (line for line in out.splitlines() if "rlaif-acme 0.1.0" in line)
    assert all(f"{kind} acme/" in row for kind in KINDS)
    assert (tmp_path / "rlaif_acme" / "py.typed").exists()
    tests = [str(together / "tests" / f"test_{kind}.py") for kind in ("strategy", "task")]  # the latter reads files
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, paths=[tmp_path])


def test_the_command_writes_and_says_what_to_do_next(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = rlaif("new-plugin", "My_Lab", "--kind", "labeler", "--kind", "reward")
    assert code == 0
    assert "next: cd rlaif-my-lab && pip install --editable '.[test]' && rlaif plugins && pytest" in out
    folder = tmp_path / "rlaif-my-lab"
    assert "my-lab/concise" in (folder / "src/rlaif_my_lab/labeler.py").read_text()
    assert 'my-lab = "rlaif_my_lab"' in (folder / "pyproject.toml").read_text()
    assert "from rlaif_my_lab.reward import" in (folder / "tests/test_reward.py").read_text()
    assert not [path for path in folder.rglob("*") if path.is_file() and "acme" in path.read_text()]


def test_an_existing_folder_is_left_alone(rlaif: Rlaif, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    code, _, err = rlaif("new-plugin", "acme", "--kind", "task", "--out", tmp_path / "own")
    assert code == 2
    assert f"{tmp_path / 'own'} exists already; choose another folder with --out" in err
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["notes.txt"]


def test_two_commands_at_the_same_time_write_no_mixture(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with locked(Path("rlaif-lab"), "writes rlaif-lab"):
        code, _, err = rlaif("new-plugin", "lab", "--kind", "metric")
    assert (code, "writes rlaif-lab; wait until it has finished" in err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_command_left_is_replaced(rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    leftover = Path(f".rlaif-lab.{10**30}@{files._host()}.tmp")
    (leftover / "src").mkdir(parents=True)
    assert rlaif("new-plugin", "lab", "--kind", "metric")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rlaif-lab"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rlaif-acme", "leave out the prefix: rlaif new-plugin acme"),
        ("my lab!", "such as 'my-lab'"),
        ("3d", "beginning with a letter, such as 'd'"),
        ("a/b", "such as 'a-b'"),
        ("../x", "such as 'x'"),
        ("ünï", "cannot be a namespace"),
        ("", "such as 'acme'"),
        ("framework", "reserved for the framework"),
        ("Testing", "reserved for the framework"),
        ("example", "belongs to the distribution 'rlaif-example' of the catalogue"),
    ],
)
def test_names_that_no_distribution_could_own_are_refused(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message.replace("(", r"\(")):
        check_namespace(name)


def test_an_unknown_kind_is_refused_with_the_nearest_one(rlaif: Rlaif, tmp_path: Path) -> None:
    code, _, err = rlaif("new-plugin", "acme", "--kind", "labeller", "--out", tmp_path / "x")
    assert code == 2
    assert "no kind of component named 'labeller'; did you mean 'labeler'?" in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("namespace", ["acme-labs", "my-acme"])
def test_a_namespace_may_have_the_name_of_the_template_in_it(namespace: str) -> None:
    found = make_distribution(namespace, ["labeler"])
    module = f"rlaif_{namespace.replace('-', '_')}"
    assert f"src/{module}/__init__.py" in found
    assert f'{namespace} = "{module}"' in found["pyproject.toml"]
