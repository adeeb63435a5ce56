"""Packages that are missing and plugins that fail: what to install, and what still works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlaif_framework.errors import describe_missing
from support.fake_plugins import Site, labeler_code
from support.outcomes import Outcome, files, refused
from support.outcomes import rlaif as rlaif
from support.outcomes import spec as spec


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
