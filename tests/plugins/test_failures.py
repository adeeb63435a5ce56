"""Errors of plugins have their root cause, and the file and line of the plugin's code that led to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_framework import PluginError, PluginManager
from rlaif_framework.plugins import discovery
from rlaif_framework.plugins.discovery import SLOW_SECONDS, Plugin
from support.fake_plugins import HEAD, Site, labeler_code, write_rows


def load_one(name: str = "acme") -> Plugin:
    (found,) = (p for p in PluginManager.load().plugins if p.name == name)
    return found


def make_package(site: Site, **modules: str) -> Path:
    folder = site.folder / "rlaif_acme"
    folder.mkdir()
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    site.install("rlaif-acme", "")
    (site.folder / "rlaif_acme.py").unlink()
    return folder


def test_an_import_error_names_the_line_of_the_plugin_that_imports(site: Site) -> None:
    folder = make_package(site, __init__="from rlaif_acme import deep\n", deep="x = 1\n\nimport rlaif_not_there\n")
    reason = f"ModuleNotFoundError: No module named 'rlaif_not_there' ({folder / 'deep.py'}, line 3)"
    assert load_one().error == reason


def test_an_error_in_a_library_names_the_last_line_in_the_plugin(site: Site) -> None:
    folder = make_package(site, __init__="import json\n\ndata = json.loads('{')\n")
    error = str(load_one().error)
    assert error.startswith("JSONDecodeError: Expecting property name")
    assert error.endswith(f"({folder / '__init__.py'}, line 3)")


def test_the_root_cause_is_named_besides_the_last_error(site: Site) -> None:
    code = "try:\n    import rlaif_not_there\nexcept ImportError as e:\n    raise RuntimeError('no engine') from e\n"
    folder = make_package(site, __init__="\nfrom rlaif_acme import deep\n", deep=code)
    assert load_one().error == (
        f"RuntimeError: no engine, caused by ModuleNotFoundError: No module named 'rlaif_not_there' "
        f"({folder / 'deep.py'}, line 2)"
    )


def test_a_cause_that_the_plugin_hides_stays_hidden(site: Site) -> None:
    code = "try:\n    import rlaif_not_there\nexcept ImportError:\n    raise RuntimeError('no engine') from None\n"
    folder = make_package(site, __init__=code)
    assert load_one().error == f"RuntimeError: no engine ({folder / '__init__.py'}, line 4)"


def test_a_syntax_error_names_its_own_file_and_line(site: Site) -> None:
    make_package(site, __init__="from rlaif_acme import deep\n", deep="\ndef (:\n")
    assert load_one().error == "SyntaxError: invalid syntax (deep.py, line 2)"


@pytest.mark.parametrize(
    "code",
    ["raise BaseException('odd')", "raise SystemExit('bye')", "raise GeneratorExit('gone')", "assert False, 'never'"],
)
def test_whatever_a_plugin_raises_is_its_own_error(site: Site, code: str) -> None:
    site.install("rlaif-acme", f"\n{code}\n")
    site.install("rlaif-z", labeler_code("z/x"))
    manager = PluginManager.load()
    assert "z/x" in manager.names("labeler")
    (failed,) = (p for p in manager.plugins if p.error)
    assert str(failed.error).endswith(f"({site.folder / 'rlaif_acme.py'}, line 2)")


@pytest.mark.parametrize("code", ["raise KeyError('x')", "raise SystemExit(3)", "raise BaseException('odd')"])
def test_an_error_in_a_hook_names_its_line(site: Site, code: str) -> None:
    site.install("rlaif-acme", HEAD + f"\n@hookimpl\ndef rlaif_labelers():\n    {code}\n")
    error = str(load_one().error)
    assert error.startswith("rlaif_labelers() failed: ")
    assert error.endswith(f"({site.folder / 'rlaif_acme.py'}, line 6)")


def test_an_error_in_the_module_of_a_target_names_its_line(site: Site) -> None:
    folder = make_package(
        site, __init__=labeler_code("acme/x", target="rlaif_acme.deep:X"), deep="\n\nraise ValueError('half built')\n"
    )
    manager = PluginManager.load()
    config = manager.find("labeler", "acme/x").config.model_validate({"kind": "acme/x"})
    with pytest.raises(PluginError) as caught:
        manager.resolve("labeler", config)
    assert str(caught.value) == (
        f"labeler 'acme/x': cannot import rlaif_acme.deep:X: ValueError: half built ({folder / 'deep.py'}, line 3)"
    )


def test_a_component_that_ends_the_process_ends_no_command_as_finished(
    site: Site, tmp_path: Path, rlaif: Callable[..., tuple[int, str, str]]
) -> None:
    code = labeler_code("acme/x", target="rlaif_acme.deep:Labeler")
    labeler = """import sys

class Labeler:
    def __init__(self, config, context): ...

    def label(self, comparisons):
        sys.exit(0)
"""
    folder = make_package(site, __init__=code, deep=labeler)
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"prompt": "p", "responses": ["a", "b"]}])
    status, _, message = rlaif("label", pairs, "--labeler", "acme/x", "--out", tmp_path / "labels.jsonl")
    assert status == 2
    assert f"sys.exit(0) was called before the command had finished ({folder / 'deep.py'}, line 7)" in message


def test_the_time_to_load_a_plugin_is_measured(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("rlaif-acme", labeler_code("acme/x"))
    monkeypatch.setattr(discovery, "SLOW_SECONDS", SLOW_SECONDS)  # which the other tests have switched off
    for step, slow in ((SLOW_SECONDS * 0.6, True), (SLOW_SECONDS * 0.4, False)):
        # The clock is read before and after the import, and before and after the hooks.
        manager = PluginManager.load(clock=itertools.count(0, step).__next__)
        (plugin,) = (p for p in manager.plugins if not p.builtin)
        assert plugin.seconds == pytest.approx(2 * step)
        assert plugin.is_slow is slow
        assert not any(p.is_slow for p in manager.plugins if p.builtin)
