"""Panels of plugins: shown as text, whatever they hold, and a broken one stops nothing."""

from __future__ import annotations

import base64
import io
import re
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rlaif_framework import Panel, PluginManager, Spec, Store, Table, hookimpl, run_spec
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.progress import Progress
from rlaif_framework.report.run_report import RunReport, read_samples
from support.fake_plugins import HEAD, Site
from support.pages import strip_assets

EVIL = "<script>alert(1)</script>"


def add_panels(manager: PluginManager, name: str, function: Callable[..., object]) -> None:
    module = types.ModuleType(f"rlaif_{name}")
    function.__name__ = "rlaif_report_panels"
    module.rlaif_report_panels = hookimpl(function)  # type: ignore[attr-defined]
    plugin = Plugin(name, f"rlaif-{name}", "1.0", module=module)
    manager.add(plugin)
    assert plugin.error is None


def report(
    run_folder: Path, folder: Path, build: Callable[..., Spec], manager: PluginManager
) -> tuple[str, RunReport, str]:
    """Run the finished tiny spec again; return the page, the report and what was printed."""
    out, store = io.StringIO(), Store(run_folder.parent / f"{run_folder.name}-store")
    run_spec(build(trackers=[]), folder, store, manager, Progress(Console(file=out)))
    return (folder / "report.html").read_text(), RunReport.read(folder), out.getvalue()


def test_panels_are_shown_and_escaped_and_load_nothing(
    run_folder: Path, tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{EVIL}</svg>'

    def panels(run: object) -> list[Panel]:
        assert (run.folder / "evaluation/summary/evaluation.json").exists()  # type: ignore[attr-defined]
        text = f"Some **words** {EVIL} ![i](http://e/x.png) [l](javascript:alert(1))"
        table = Table("t", ("a", EVIL), [(EVIL, 1), (None, 0.5)])
        return [Panel(f"Cost {EVIL}", text, table, svg), Panel("Last", "the end")]

    add_panels(manager, "acme", panels)
    page, found, _ = report(run_folder, tmp_path / "run", tiny_spec, manager)
    assert "<strong>words</strong>" in page
    # Contents, heading, text, two cells, and the description of the image.
    inert = strip_assets(page)
    assert inert.count("&lt;script&gt;") == 6
    assert "<td>0.5</td>" in page
    assert set(re.findall(r"<script[^>]*>", inert)) == {
        '<script type="application/json" id="chart-specs">',
        '<script type="application/octet-stream" id="sample-data">',
    }
    assert "javascript:" not in re.sub(r"\[l\]\(javascript:alert\(1\)\)", "", inert)
    (source,) = re.findall(r'<img alt="[^"]*" src="data:image/svg\+xml;base64,([\w+/=]+)">', page)
    assert base64.b64decode(source).decode() == svg
    assert "http://e/x.png" not in re.findall(r'src="([^"]+)"', inert)
    assert page.index(">Samples</h2>") < page.index(">Last</h2>") < page.index(">Stages</h2>")
    assert [panel.title for panel in found.panels] == [f"Cost {EVIL}", "Last"]
    assert found.render(list(read_samples(tmp_path / "run"))) == page


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (["text"], "rlaif_report_panels(): 'text' is not of type Panel"),
        ([Panel("x", 3)], "rlaif_report_panels(): text is 3"),  # type: ignore[arg-type]
        (None, "TypeError: 'NoneType' object is not iterable"),
    ],
    ids=["no panel", "no text", "nothing"],
)
def test_a_broken_panel_is_a_warning_and_the_others_are_shown(
    run_folder: Path,
    tmp_path: Path,
    tiny_spec: Callable[..., Spec],
    manager: PluginManager,
    returned: object,
    reason: str,
) -> None:
    add_panels(manager, "broken", lambda: returned)
    add_panels(manager, "acme", lambda: [Panel("Fine", "all is well")])
    page, _, printed = report(run_folder, tmp_path / "run", tiny_spec, manager)
    (warning,) = (line for line in printed.splitlines() if line.startswith("warning: plugin"))
    assert warning.startswith(f"warning: plugin 'broken' failed in rlaif_report_panels: {reason}")
    assert ">Fine</h2>" in page


def test_a_plugin_with_panels_is_listed(site: Site, rlaif: Callable[..., tuple[int, str, str]]) -> None:
    site.install("rlaif-acme", HEAD + "@hookimpl\ndef rlaif_report_panels(run):\n    return []\n")
    _, out, _ = rlaif("plugins")
    assert re.search(r"^acme +rlaif-acme 1.0 +rlaif_report_panels *$", out, re.M)
