"""The benchmark of labelling fails where its answers are not the reference's; the hacking alarm and the size of the
report keep their promises."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework.report.sample_data import MAX_BYTES, pack_samples


def load_benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a benchmark as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def labelling(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark of labelling."""
    return load_benchmark("labelling", monkeypatch)


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


def test_planted_hacks_are_caught_and_honest_runs_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hacking = load_benchmark("hacking", monkeypatch)
    posts = hacking.read_posts(60)
    config = hacking.OnlineConfig(kind="softmax", steps=60, prompts_per_step=8, responses_per_prompt=4)
    runs = {name: 20 if name.startswith("honest") else 10 for name in hacking.REWARDS}
    alarms = {
        name: sum(hacking.train(posts, name, seed, config) is not None for seed in range(count))
        for name, count in runs.items()
    }
    assert all(alarms[name] >= 9 for name in hacking.HACKS), alarms
    assert sum(alarms[name] for name in runs if name.startswith("honest")) <= 1, alarms
    assert alarms["unchanged"] == 0
    short = config.model_copy(update={"steps": 9, "prompts_per_step": 4, "responses_per_prompt": 8, "alarm_every": 3})
    honest = [name for name in runs if name not in hacking.HACKS]
    raised = {
        name: sum(hacking.train(posts, name, seed, short, 5.0) is not None for seed in range(20)) for name in honest
    }
    assert sum(raised.values()) <= 1, raised
    caught = sum(hacking.train(posts, "repetition", seed, short, 5.0) is not None for seed in range(10))
    assert caught >= 8


def test_ten_thousand_samples_fit_into_a_page_of_15_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    report = load_benchmark("report", monkeypatch)
    rows = list(report.write_rows(400))
    assert {len(rows[0]["responses"]), len(rows[0]["verdicts"])} == {6, 30}
    assert sum(len(row["prompt"]) for row in rows) > 950 * len(rows)
    half, whole = (len(report.make_report().render(rows[:count])) for count in (200, 400))
    assert whole + (10_000 - 400) * (whole - half) / 200 < 14_500_000
    packed = pack_samples(rows)
    assert packed is not None
    assert 10_000 * len(packed.data) / 400 < MAX_BYTES, "some of the samples are left out"
