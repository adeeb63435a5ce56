"""The benchmark of labelling fails where its answers are not the reference's."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def labelling(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The benchmark as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "labelling.py"
    spec = importlib.util.spec_from_file_location("labelling_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("differs", "dtype", "fails"), [(9e-5, "fp32", False), (2e-4, "fp32", True), (2e-4, "bf16", False)]
)
def test_the_benchmark_fails_where_probabilities_are_not_the_references(
    labelling: Any, monkeypatch: pytest.MonkeyPatch, differs: float, dtype: str, fails: bool
) -> None:
    cases = iter([differs, 0.0])  # the worst of all cases counts, not the last
    backend = types.SimpleNamespace(model=types.SimpleNamespace(device="cpu"))
    monkeypatch.setattr(labelling, "open_backend", lambda model, dtype: backend)
    monkeypatch.setattr(labelling, "measure_product", lambda backend: 1e9)
    monkeypatch.setattr(labelling, "compare_choices", lambda *_: next(cases))
    monkeypatch.setattr(labelling, "compare_rationales", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["labelling.py", "--comparisons", "2", "--dtype", dtype])
    if not fails:
        labelling.main()
        return
    with pytest.raises(SystemExit) as stop:
        labelling.main()
    assert "probabilities differ from the baseline's by 2.0e-04" in str(stop.value.code)
