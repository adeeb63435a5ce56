"""The commands on a spec with `seeds` and `matrix`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def family(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family of two labelers with two seeds; the labels of one are no better than chance."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    spec = {
        "name": "labelers",
        "seeds": [0, 1],
        "matrix": {"arms.a.feedback.labeler": {"good": "synthetic", "bad": {"kind": "length", "prefer": "shorter"}}},
        "task": "tldr",
        "policy": {"model": str(tiny_model), "dtype": "fp32", "lora": {"rank": 2}, "max_prompt_tokens": 96},
        "arms": {
            "a": {
                "feedback": {"kind": "ai", "labeler": "length", "pairs": {"limit": 8}},
                "reward": {"kind": "bradley-terry", "model": "base"},
            }
        },
        "evaluate": {"comparisons": 6},
        "trackers": [],
    }
    path = tmp_path / "family.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def test_run_goes_on_after_a_member_fails_and_exits_with_1(family: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("run", family, "--out", "runs/f")
    assert code == 1, err
    report = json.loads(Path("runs/f/family.json").read_text())
    assert [member["state"] for member in report["members"]] == ["finished", "finished", "failed", "failed"]
    assert "agree" in report["members"][2]["error"]
    assert "FAILED: member 'bad,seed=1': a/gate:" in out
    (line,) = [line for line in out.splitlines() if line.startswith("good ") and "%" in line and "100.0" not in line]
    accuracies = [member["measures"]["reward_accuracy/a"] for member in report["members"][:2]]
    assert line.split()[1:4:2] == [f"{100 * accuracy:.1f}" for accuracy in accuracies]
    assert "no interval over seeds: it has 2 seeds, and 3 or more are needed: all measures" in out
    assert f"report: {Path('runs/f/family.html').resolve()}" in out
    assert Path("runs/f/good,seed=0/report.html").exists()


def test_a_member_can_be_run_alone(family: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("run", family, "--member", "good,seed=1", "--out", "runs/one")
    assert code == 0, err
    assert yaml.safe_load(Path("runs/one/spec.yaml").read_text())["seed"] == 1
    assert "report.html" in out
    code, _, err = rlaif("run", family, "--member", "god,seed=1")
    assert (code, "no member 'god,seed=1'; did you mean 'good,seed=1'?" in err) == (2, True)
    code, _, err = rlaif("plan", family, "--unset", "matrix", "--unset", "seeds", "--member", "seed=1")
    assert (code, "has no members" in err) == (2, True)


def test_plan_counts_the_stages_of_all_members_and_the_distinct_ones(family: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("plan", family, "--set", "arms.a.feedback.allow_weak_labels=true")
    assert code == 0, err
    # The pairs of a seed are those of both labelers; all else depends on the labeler or the seed.
    rows = [line.split() for line in out.splitlines()[:5]]
    assert rows[1:] == [[name, "6", "1", "6"] for name in ("good,seed=0", "good,seed=1", "bad,seed=0", "bad,seed=1")]
    assert "4 members with 24 stages, of which 22 are distinct; 22 to do; peak memory of the largest one" in out
    planned = json.loads(rlaif("plan", family, "--json")[1])
    assert list(planned) == ["good,seed=0", "good,seed=1", "bad,seed=0", "bad,seed=1"]
    assert "stages to do" in rlaif("plan", family, "--member", "bad,seed=0")[1]
    assert not list(Path().iterdir())


def test_check_prints_the_family_or_one_member(family: Path, rlaif: RunCommand) -> None:
    code, out, err = rlaif("check", family, "--set", "seeds=[4]")
    assert code == 0, err
    assert yaml.safe_load(out) == {**yaml.safe_load(family.read_text()), "seeds": [4]}
    assert "family.yaml is valid; members:\n#   good,seed=4\n#   bad,seed=4\n" in err
    member = yaml.safe_load(rlaif("check", family, "--member", "good,seed=1")[1])
    assert (member["seed"], member["evaluation_seed"], "matrix" in member) == (1, 0, False)
    code, _, err = rlaif("check", family, "--set", "matrix.policy.model.gone=/nowhere", "--set", "seeds=[0]")
    assert code == 2
