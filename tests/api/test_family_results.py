"""A family from Python: its members are results of runs, and its table is one of pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rlaif_framework as rlaif
from rlaif_framework import FamilyResult, PluginManager, RunResult, SpecError
from rlaif_framework.testing import tiny_task
from rlaif_framework.testing.world import add_plugin


@pytest.fixture(autouse=True)
def _plugins(manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> None:
    add_plugin(manager, tiny_task, "rlaif-testing")
    monkeypatch.setattr(PluginManager, "load", lambda **settings: manager)


@pytest.fixture
def small(tiny_model: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "task": "testing/tiny",
        "policy": {"model": str(tiny_model), "dtype": "fp32", "max_prompt_tokens": 96, "max_new_tokens": 6},
        "sft": None,
        "arms": {"a": {"feedback": {"kind": "ai", "labeler": {"kind": "length", "prefer": "longer"}}}},
        "evaluate": {"comparisons": 4},
        "trackers": [],
    }


def test_a_family_has_a_result_for_each_member_and_a_table(small: dict[str, Any], tmp_path: Path) -> None:
    matrix = {"arms.a.feedback.labeler.prefer": ["longer", "shorter"]}
    result = rlaif.run(
        {**small, "matrix": matrix}, tmp_path / "f", store=tmp_path / "store", seeds=[0, 1], verbose=False
    )
    assert isinstance(result, FamilyResult)
    name = "arms.a.feedback.labeler.prefer=longer,seed=1"
    member = result.members[name]
    assert isinstance(member, RunResult)
    assert (len(result.members), result.failed, member.spec.seed) == (4, {}, 1)
    assert member.folder == tmp_path / "f" / name
    assert member.evaluation is not None
    agreement = member.evaluation.labelers["a"].quality.agreement
    assert agreement is not None
    frame = pd.DataFrame(result.table()).set_index("member")
    assert frame.loc[name, "agreement/a"] == agreement.value
    assert list(frame["seed"]) == [0, 1, 0, 1]
    assert list(frame["arms.a.feedback.labeler.prefer"]) == ["longer", "longer", "shorter", "shorter"]
    (measure,) = result.report.measures
    assert measure.variants[1].difference is not None
    assert result.report_path.exists()
    assert "agreement of the labels of a" in result._repr_html_()
    assert repr(result).startswith(f"family small in {tmp_path / 'f'}\nnote: no interval over seeds")


def test_a_spec_without_the_keys_has_the_result_of_one_run(small: dict[str, Any], tmp_path: Path) -> None:
    result = rlaif.run(small, tmp_path / "one", store=tmp_path / "store", verbose=False, seeds=None)
    assert isinstance(result, RunResult)


def test_keywords_of_families_are_known(small: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"a spec has no 'seed_list'; the settings are .*seeds, matrix"):
        rlaif.run(small, seed_list=[1])
