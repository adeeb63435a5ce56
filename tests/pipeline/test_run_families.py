"""A family of runs: what members share is computed once and first, a member that fails loses no other, numbers."""

from __future__ import annotations

import io
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console
from scipy import stats

from rlaif_framework import Family, PluginManager, RlaifError, Spec, SpecError, Store, plan_family, run_family, run_spec
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.metrics.seeds import SeedMean
from rlaif_framework.metrics.wins import measure_wins
from rlaif_framework.pipeline import engine
from rlaif_framework.pipeline.families import FamilyRun
from rlaif_framework.pipeline.stages.respond import read_responses
from rlaif_framework.progress import Progress
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.records.rows import load_preferences
from rlaif_framework.report.family_report import FamilyMeasure, FamilyReport
from rlaif_framework.spec.loading import resolve_spec
from rlaif_framework.testing import tiny_task
from rlaif_framework.testing.world import add_plugin
from support.pages import strip_assets
from support.runs import digest, run_rows

TINY: dict[str, Any] = {
    "task": "testing/tiny",
    "sft": {"lr": 1e-3, "batch_size": 4, "limit": 8},
    "arms": {
        "rlaif": {
            "feedback": {"kind": "ai", "labeler": "test/taste", "pairs": {"limit": 8}, "allow_weak_labels": True},
            "reward": {"kind": "bradley-terry", "lr": 1e-3, "batch_size": 4},
        }
    },
    "evaluate": {"comparisons": 8},
    "trackers": [],
}
"""A spec whose arm ends at its reward model."""
RL = {"kind": "rloo", "steps": 2, "prompts_per_step": 2, "responses_per_prompt": 2, "lr": 1e-3}
FULL = {
    "seeds": [0, 1, 2],
    "matrix": {"evaluate.temperature": {"greedy": 0.0, "sampled": 1.0}},
    "arms": {"rlaif": {**TINY["arms"]["rlaif"], "algorithm": RL}},
    "evaluate": {"judge": "length", "prompts": 6, "comparisons": 8},
}
"""A family that trains policies with three seeds."""
EPOCHS, COMPARISONS = "arms.rlaif.reward.epochs", "evaluate.comparisons"

BuildFamily = Callable[..., Family]


@pytest.fixture
def build(tiny_spec: Callable[..., Spec], manager: PluginManager) -> BuildFamily:
    """Build a family over the tiny model, from its keys and changes of the spec."""
    add_plugin(manager, tiny_task, "rlaif-testing")

    def build(seeds: list[int] | None = None, matrix: dict[str, Any] | None = None, **changes: Any) -> Family:
        spec = tiny_spec(**{**TINY, **changes}).model_dump(mode="json", exclude_unset=True)
        family = resolve_spec({**spec, "seeds": seeds, "matrix": matrix}, (), manager)
        assert isinstance(family, Family)
        return family

    return build


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that are computed, by name, in order."""
    names: list[str] = []
    compute = engine._compute

    def record(run: Any, step: Any, main: bool) -> None:
        names.append(step.name)
        compute(run, step, main)

    monkeypatch.setattr(engine, "_compute", record)
    return names


def run(family: Family, folder: Path, manager: PluginManager, progress: Progress | None = None) -> FamilyRun:
    return run_family(family, folder, Store(folder.parent / "store"), manager, progress)


def find(report: FamilyReport, name: str) -> FamilyMeasure:
    (found,) = (measure for measure in report.measures if measure.name == name)
    return found


# Running


def test_what_members_share_is_computed_once_and_before_everything_else(
    build: BuildFamily, computed: list[str], tmp_path: Path, manager: PluginManager
) -> None:
    family = build(matrix={COMPARISONS: [4, 6, 8]})
    planned = plan_family(family, Store(tmp_path / "store"), manager)
    run(family, tmp_path / "family", manager)
    shared = ["sft", "rlaif/pairs", "rlaif/labels", "rlaif/reward"]
    own = ["evaluation/labels/rlaif", "evaluation/margins/rlaif", "evaluation/summary"]
    assert computed == [*shared, *own * 3]
    assert len(computed) == len({step.key for steps in planned.values() for step in steps})
    assert (tmp_path / "family" / f"{COMPARISONS}=6" / "report.html").exists()
    plan = plan_family(family, Store(tmp_path / "store"), manager)
    assert all(step.cached for steps in plan.values() for step in steps)


def test_a_member_is_the_run_of_its_spec_alone(
    family_folder: Path, build: BuildFamily, tmp_path: Path, manager: PluginManager
) -> None:
    member = build(**FULL).find("greedy,seed=1")
    run_spec(member.spec, tmp_path / "alone", Store(tmp_path / "store"), manager)
    assert digest(tmp_path / "alone") == digest(family_folder / "greedy,seed=1")
    prompts = [
        [
            row["prompt"]
            for row in run_rows(family_folder / f"greedy,seed={seed}/evaluation/responses/sft/responses.jsonl")
        ]
        for seed in range(3)
    ]
    assert prompts[0] == prompts[1] == prompts[2]


def test_a_member_that_fails_loses_no_other_and_is_resumed(
    build: BuildFamily, computed: list[str], tmp_path: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = build(matrix={EPOCHS: [1, 2], COMPARISONS: [4, 8]})
    compute, broken = engine._compute, True

    def fail(run: Any, step: Any, main: bool) -> None:
        if broken and step.name == "rlaif/reward" and step.recipe.reward.epochs == 2:
            computed.append("failed")
            raise RlaifError("rlaif/reward: the loss is not finite")
        if broken and step.name == "evaluation/margins/rlaif" and len(step.recipe.comparisons) == 4:
            raise RuntimeError("out of memory")
        compute(run, step, main)

    monkeypatch.setattr(engine, "_compute", fail)
    out = io.StringIO()
    found = run(family, tmp_path / "family", manager, Progress(Console(file=out, width=300)))
    failed = {
        f"{EPOCHS}=1,{COMPARISONS}=4": "RuntimeError: out of memory",
        f"{EPOCHS}=2,{COMPARISONS}=4": "rlaif/reward: the loss is not finite",
        f"{EPOCHS}=2,{COMPARISONS}=8": "rlaif/reward: the loss is not finite",
    }
    assert found.failed == failed
    assert all(f"FAILED: member '{name}': {error}" in out.getvalue() for name, error in failed.items())
    report = FamilyReport.read(tmp_path / "family")
    assert {member.name: member.error for member in report.members if member.state == "failed"} == failed
    assert [member.state for member in report.members].count("finished") == 1
    assert computed.count("failed") == 1, "what failed for one member was tried again for another"
    broken = False
    assert run(family, tmp_path / "family", manager).failed == {}
    assert (computed.count("sft"), computed.count("rlaif/reward")) == (1, 2)
    assert {member.state for member in FamilyReport.read(tmp_path / "family").members} == {"finished"}
    done = len(computed)
    run(family, tmp_path / "family", manager)
    assert len(computed) == done


def test_an_interrupt_stops_the_family_and_keeps_what_is_finished(
    build: BuildFamily, tmp_path: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = build(seeds=[0, 1])
    compute = engine._compute

    def interrupt(run: Any, step: Any, main: bool) -> None:
        if run.spec.seed == 1:
            raise KeyboardInterrupt
        compute(run, step, main)

    monkeypatch.setattr(engine, "_compute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(family, tmp_path / "family", manager)
    report = FamilyReport.read(tmp_path / "family")
    assert [member.state for member in report.members] == ["finished", "not finished"]
    assert find(report, "reward_accuracy/rlaif").variants[0].mean.seeds.keys() == {0}


def test_the_time_left_is_that_of_the_members_left(
    build: BuildFamily, tmp_path: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, now = engine._compute, [0.0]

    def advance(run: Any, step: Any, main: bool) -> None:
        compute(run, step, main)
        now[0] += 30 * (1 + run.spec.seed)

    monkeypatch.setattr(engine, "_compute", advance)

    def run_seeds(seeds: list[int]) -> list[str]:
        out = io.StringIO()
        progress = Progress(Console(file=out, width=300), clock=lambda: now[0])
        run(build(seeds=seeds), tmp_path / "family", manager, progress)
        return re.findall(r"^member .*", out.getvalue(), re.MULTILINE)

    count = len(["sft", "pairs", "labels", "reward", "held-out labels", "margins", "summary"])  # stages of a member
    assert run_seeds([0, 1, 2]) == [
        "member 1 of 3: seed=0",
        f"member 2 of 3: seed=1; about {count * 30 * 2 // 60} min left",
        f"member 3 of 3: seed=2; about {round(count * 45 / 60)} min left",
    ]
    # Finished members count neither for the time nor as left.
    assert run_seeds([0, 3, 1, 4]) == [
        "member 1 of 4: seed=0",
        "member 2 of 4: seed=3",
        f"member 3 of 4: seed=1; about {count * 120 // 60} min left",
        f"member 4 of 4: seed=4; about {count * 120 // 60} min left",
    ]


def test_all_members_are_checked_before_anything_is_written(
    build: BuildFamily, tmp_path: Path, manager: PluginManager
) -> None:
    model = tmp_path / "missing"
    with pytest.raises(RlaifError, match=r"member 'no': .*missing"):
        run(build(matrix={"policy.model": {"no": str(model)}}), tmp_path / "family", manager)
    assert not (tmp_path / "family").exists()


def test_a_folder_with_other_content_is_refused(build: BuildFamily, tmp_path: Path, manager: PluginManager) -> None:
    family = build(seeds=[0])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(SpecError, match="exists and is not the folder of a family"):
        run(family, tmp_path / "own", manager)
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "family.json").write_text("{}")
    (tmp_path / "family" / "seed=0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecError, match="seed=0 is a link"):
        run(family, tmp_path / "family", manager)


# Numbers


@pytest.fixture
def family_folder(shared: Path, build: BuildFamily, manager: PluginManager) -> Path:
    """One finished family for all tests that only look at it."""
    with FileLock(shared / "family.lock"):
        if not (shared / "family" / "done").exists():
            run_family(build(**FULL), shared / "family", Store(shared / "family-store"), manager)
            (shared / "family" / "done").touch()
    return shared / "family"


@pytest.fixture
def report(family_folder: Path) -> FamilyReport:
    return FamilyReport.read(family_folder)


def test_the_numbers_are_those_of_the_members_and_their_means(report: FamilyReport, family_folder: Path) -> None:
    folders = {seed: family_folder / f"sampled,seed={seed}" for seed in range(3)}
    evaluations = {seed: Evaluation.load(folder / "evaluation/summary") for seed, folder in folders.items()}
    expected: dict[str, dict[int, float]] = {}
    for seed, found in evaluations.items():
        reward, policy = found.arms["rlaif"].reward, found.policies["rlaif"]
        assert reward is not None
        values = {
            "win_rate/rlaif-vs-sft": found.wins[0].rate,
            "agreement/rlaif": found.labelers["rlaif"].quality.agreement,
            "reward_accuracy/rlaif": reward.accuracy_gold,
            "reward_gain/rlaif": reward.gain,
            "tokens/rlaif": policy["tokens"],
            "eos_rate/rlaif": policy["eos_rate"],
        }
        for name, estimate in values.items():
            assert estimate is not None, name
            expected.setdefault(name, {})[seed] = estimate.value
        expected.setdefault("kl/rlaif", {})[seed] = found.arms["rlaif"].curve[-1]["kl_k1"]
    for name, seeds in expected.items():
        measure = find(report, name)
        assert [variant.variant for variant in measure.variants] == ["greedy", "sampled"]
        mean: SeedMean = measure.variants[1].mean
        assert mean.seeds == seeds, name
        assert mean.value == pytest.approx(statistics.fmean(seeds.values()))
    gain = find(report, "reward_gain/rlaif").variants[1].mean
    low, high = stats.t.interval(0.95, 2, gain.value, stats.sem(list(gain.seeds.values())))
    assert gain.over_seeds is not None
    assert (gain.over_seeds.low, gain.over_seeds.high) == pytest.approx((low, high))
    assert find(report, "tokens/rlaif").variants[1].mean.missing == ["no interval over seeds: all have the same value"]


def test_the_interval_of_win_rates_over_prompts_counts_each_prompt_once(
    report: FamilyReport, family_folder: Path
) -> None:
    comparisons, preferences = [], []
    for seed in range(3):
        folder = family_folder / f"greedy,seed={seed}" / "evaluation"
        verdicts = load_preferences(folder / "wins/rlaif-vs-sft/preferences.jsonl")
        texts = [read_responses(folder / "responses" / name) for name in ("rlaif", "sft")]
        for verdict, *pair in zip(verdicts, *texts, strict=True):
            prompt = Prompt(verdict.comparison, verdict.comparison, "")
            comparisons.append(Comparison(verdict.comparison, prompt, (pair[0], pair[1])))
            preferences.append(verdict)
    expected = measure_wins("rlaif", "sft", "judge", comparisons, preferences)
    mean = find(report, "win_rate/rlaif-vs-sft").variants[0].mean
    assert mean.over_prompts is not None
    assert expected.rate is not None
    assert mean.over_prompts.value == pytest.approx(expected.rate.value)
    assert (mean.over_prompts.count, expected.rate.count, expected.rate.clusters) == (6, 18, 6)


def test_the_page_shows_each_seed_and_says_what_was_not_computed(report: FamilyReport, family_folder: Path) -> None:
    page = (family_folder / "family.html").read_text(encoding="utf-8")
    assert 'href="sampled%2Cseed%3D2/report.html"' in page
    title, head, rows = next(table for table in report.list_tables() if table[0].startswith("tokens"))
    assert head[:6] == ("variant", "seed 0", "seed 1", "seed 2", "mean", "other prompts")
    assert [row[0] for row in rows] == ["greedy", "sampled"]
    assert f">{title}</h3>" in page
    assert all(cell in page for row in rows for cell in row)
    assert any("KL of rlaif from sft" in note and "not measured on prompts" in note for note in report.notes)
    assert 'role="img" aria-label="KL from the baseline by training step, mean over seeds' in page
    assert "<script>" not in strip_assets(page)


def test_curves_are_means_over_the_seeds_of_a_variant(report: FamilyReport, family_folder: Path) -> None:
    curves = {}
    for member in report.members:
        evaluation = Evaluation.load(family_folder / member.name / "evaluation/summary")
        curves[member.name] = evaluation.arms["rlaif"].curve
    (specs,) = re.findall(r'id="chart-specs">(.*?)</script>', (family_folder / "family.html").read_text("utf-8"), re.S)
    rows = json.loads(specs)["curve-reward"]["data"]["values"]
    assert [(row["arm"], row["step"], row["seeds"]) for row in rows] == [
        (variant, step, 3) for variant in ("greedy", "sampled") for step in (1, 2)
    ]
    first = [curves[f"greedy,seed={seed}"][0]["reward"] for seed in range(3)]
    found = [rows[0][key] for key in ("value", "low", "high")]
    assert found == pytest.approx([statistics.fmean(first), min(first), max(first)])


def test_one_seed_has_no_interval_over_seeds(build: BuildFamily, tmp_path: Path, manager: PluginManager) -> None:
    family = build(matrix={"arms.rlaif.feedback.pairs.limit": [4, 8]})
    found = run(family, tmp_path / "family", manager).report()
    assert [measure.name for measure in found.measures] == ["agreement/rlaif", "reward_accuracy/rlaif"]
    accuracy = find(found, "reward_accuracy/rlaif").variants
    assert all(variant.mean.over_seeds is None and variant.mean.over_prompts is not None for variant in accuracy)
    assert accuracy[1].difference is not None
    assert accuracy[1].difference.over_prompts is not None
    assert accuracy[1].p_holm is None
    assert found.notes == ["no interval over seeds: it has 1 seed, and 3 or more are needed: all measures"]
