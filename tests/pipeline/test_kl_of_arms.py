"""Arms with checkpoints are compared at equal KL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif_framework import PluginManager, Spec
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.report.leaderboard import Costs, build_leaderboard
from rlaif_framework.report.run_charts import draw_run
from rlaif_framework.report.run_report import RunReport
from rlaif_framework.store import Manifest
from support.runs import execute


def test_a_run_compares_its_arms_at_equal_kl(
    tmp_path: Path, tiny_spec: Callable[..., Spec], manager: PluginManager
) -> None:
    def arm(lr: float, **selection: Any) -> dict[str, Any]:
        algorithm = {"kind": "rloo", "steps": 2, "prompts_per_step": 2, "responses_per_prompt": 2, "lr": lr}
        algorithm["checkpoint_selection"] = {"every": 1, "prompts": 4, **selection}
        return {"reward": "length", "algorithm": algorithm}

    arms = {"near": arm(1e-3, judge="rouge"), "far": arm(1e-2, judge="rouge"), "unjudged": arm(1e-3)}
    pairs = {"source": "policy", "prompts": 4, "responses": 2}
    feedback = {"kind": "ai", "labeler": "length", "pairs": pairs, "allow_weak_labels": True}
    arms["twice"] = {**arm(1e-3, judge="rouge"), "feedback": feedback, "reward": "bradley-terry", "rounds": 2}
    run = execute(tiny_spec(arms=arms, evaluate={"judge": "rouge", "matchups": []}), tmp_path / "run", manager)
    evaluation = Evaluation.load(tmp_path / "run/evaluation/summary")
    checkpoints = {name: measured.checkpoints for name, measured in evaluation.arms.items()}
    assert {name: [c.step for c in found] for name, found in checkpoints.items()} == {name: [1, 2] for name in arms}
    assert all(c.kl and c.reward and c.win_rate and c.judge == "rouge" for c in checkpoints["far"])
    assert all(c.win_rate is None and c.judge is None for c in checkpoints["unjudged"])
    for name, measured in evaluation.arms.items():
        facts = Manifest.read(tmp_path / "run" / name / "policy").facts
        assert measured.selected_step == facts["selected_step"] in (1, 2)
    assert evaluation.equal_kl is not None
    assert set(evaluation.equal_kl.win_rates) == {"near", "far"}
    reached = {name: max(c.kl.value for c in checkpoints[name] if c.kl) for name in ("near", "far")}
    assert evaluation.equal_kl.kl == min(reached.values())
    assert any(line.startswith("at equal KL") for line in RunReport.read(run.folder).summary)
    # The KL of a second round is from the policy of the first one.
    (column,) = (x for x in build_leaderboard(evaluation, Costs()).columns if x.title == "KL")
    assert column.cells.keys() == {"near", "far", "unjudged"}
    for name, cell in column.cells.items():  # not that of the last step, whose policy may be another one
        (kept,) = (c.kl for c in checkpoints[name] if c.step == evaluation.arms[name].selected_step)
        assert kept is not None
        assert cell.value == kept.value
    charts = [json.dumps(x.spec) for x in draw_run(evaluation)["training"] if x.id.startswith("checkpoint")]
    assert len(charts) == 2
    assert all('"near"' in chart and '"twice"' not in chart for chart in charts)
