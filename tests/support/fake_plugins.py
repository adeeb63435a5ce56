"""Fake distributions for tests: a module and a `.dist-info` folder on the path, as pip would leave them."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

HEAD = """\
from typing import Literal
from rlaif_framework import Component, LabelerConfig, hookimpl
"""


def labeler_code(
    name: str, target: str = "rlaif_plugins.labelers.length:LengthLabeler", config: str = "MadeConfig"
) -> str:
    """Source of a plugin module that offers one labeler with one setting."""
    return HEAD + textwrap.dedent(f"""
        class {config}(LabelerConfig):
            \"\"\"Made for a test.\"\"\"

            kind: Literal["{name}"] = "{name}"
            votes: int = 3

        @hookimpl
        def rlaif_labelers():
            yield Component("{name}", {config}, "{target}")
    """)


@dataclass(frozen=True)
class Site:
    """A folder on the path that distributions are put into."""

    folder: Path

    def install(
        self,
        distribution: str,
        code: str,
        *,
        name: str | None = None,
        module: str | None = None,
        version: str = "1.0",
        requires: Sequence[str] = (),
    ) -> str:
        """Write a distribution with one plugin, and give the plugin's name."""
        module = module or distribution.replace("-", "_")
        name = name or distribution.removeprefix("rlaif-")
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n")
        (info / "entry_points.txt").write_text(f"[rlaif_framework.plugins]\n{name} = {module}\n")
        importlib.invalidate_caches()
        return name


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A folder on the path, with discovery switched on."""
    monkeypatch.delenv("RLAIF_PLUGINS")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
