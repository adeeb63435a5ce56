"""The time of a step is expected from a step in the store that did the same work, on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import Context, PluginManager, Spec, Store, plan_spec
from rlaif_framework.pipeline import timings
from rlaif_framework.pipeline.compose import compose
from rlaif_framework.pipeline.environment import describe_environment
from rlaif_framework.pipeline.run_record import RunRecord
from rlaif_framework.pipeline.timings import Workload, describe_time

Expect = Callable[..., dict[str, float | None]]


@pytest.fixture
def store(run_folder: Path, tmp_path: Path) -> Store:
    """A store with the artefacts of the finished run only: other tests add theirs to the one that it was made in."""
    made, record = Store(run_folder.parent / f"{run_folder.name}-store"), RunRecord.read(run_folder)
    for name, key in record.steps.items():
        path = made.path(record.manifests[name].stage, key)
        shutil.copytree(path, tmp_path / "store" / path.name, dirs_exist_ok=True)
    return Store(tmp_path / "store")


@pytest.fixture
def expect(store: Store, tiny_spec: Callable[..., Spec], manager: PluginManager) -> Expect:
    """Plan the spec of the finished run with other settings of its algorithm, and return the expected times."""

    def plan(seed: int = 3, **algorithm: Any) -> dict[str, float | None]:
        arms = tiny_spec().model_dump(mode="json")["arms"]
        arms["rlaif"]["algorithm"] |= algorithm
        planned = plan_spec(tiny_spec(arms=arms, seed=seed), store, manager)
        return {step.name: step.expected_seconds for step in planned}

    return plan


@pytest.fixture
def measured(run_folder: Path) -> Callable[[str], float]:
    return lambda name: float(json.loads((run_folder / name / "artefact.json").read_text())["seconds"])


def test_steps_in_the_store_take_no_time(expect: Expect) -> None:
    assert set(expect().values()) == {0.0}


def test_another_learning_rate_takes_the_time_that_was_measured(
    expect: Expect, measured: Callable[[str], float]
) -> None:
    found = expect(lr=5e-4)
    assert found["rlaif/reward"] == 0.0
    for name in ("rlaif/policy", "evaluation/responses/rlaif", "evaluation/summary"):
        assert found[name] == measured(name), name
    assert expect(seed=4)["sft"] == pytest.approx(measured("sft"))


def test_times_are_scaled_to_the_steps_but_not_far(expect: Expect, measured: Callable[[str], float]) -> None:
    assert expect(steps=6)["rlaif/policy"] == pytest.approx(2 * measured("rlaif/policy"))
    assert expect(steps=2)["rlaif/policy"] == pytest.approx(2 / 3 * measured("rlaif/policy"))
    assert expect(steps=7)["rlaif/policy"] is None
    assert expect(steps=1)["rlaif/policy"] is None


def test_nothing_is_expected_of_other_work_or_from_another_machine(
    expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert expect(responses_per_prompt=4)["rlaif/policy"] is None
    other = {**describe_environment(), "threads": 99}
    monkeypatch.setattr(timings, "describe_environment", lambda: other)
    assert expect(lr=5e-4)["rlaif/policy"] is None


def test_nothing_is_expected_of_steps_whose_answers_may_be_cached(
    tiny_spec: Callable[..., Spec], tiny_model: Path, manager: PluginManager
) -> None:
    arms = tiny_spec().model_dump(mode="json")["arms"]
    model = {"kind": "llm", "backend": {"kind": "transformers", "model": str(tiny_model)}}
    arms["rlaif"]["feedback"]["labeler"] = {"kind": "ensemble", "labelers": {"length": "length", "model": model}}
    context = Context.from_spec(tiny_spec(arms=arms), manager)
    steps = {step.name: step for step in compose(tiny_spec(arms=arms), context)}
    assert Workload.describe(steps["rlaif/labels"], context.task_config) is None
    assert Workload.describe(steps["rlaif/reward"], context.task_config) is not None


def test_records_without_a_time_are_left_out(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    contents = ("{", "[]", "{}", '{"workload": 1}', '{"workload": {"kind": "a", "amount": 0}, "seconds": 1}')
    for number, content in enumerate(contents):
        folder = tmp_path / f"sft-{number:020}"
        folder.mkdir()
        (folder / "artefact.json").write_text(content)
    (sft, *_) = plan_spec(tiny_spec(), Store(tmp_path), manager)
    assert sft.expected_seconds is None


def test_what_is_not_known_is_said() -> None:
    assert describe_time([30.0, 60.0]) == "expected time: about 2 min"
    assert describe_time([30.0, None, None]) == "expected time: at least 30.0 s; 2 of 3 stages were not measured"
    assert describe_time([None]).startswith("expected time: not known")
