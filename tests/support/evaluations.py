"""Evaluations and reports that no run has to compute."""

from __future__ import annotations

from typing import Any

from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.report.run_report import RunReport, StepReport


def estimate(value: float, half: float = 0.05, count: int = 50) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "count": count}


def labeler(
    kind: str, agreement: dict[str, float] | None, gold_source: str | None = "human", settings: str = ""
) -> dict[str, Any]:
    quality = {
        "agreement": agreement,
        "slices": {"too-long": estimate(0.4)} if agreement else {},
        "same_position": estimate(0.91) if kind == "llm" else None,
        "first_when_same": None,
        "label_token_mass": None,
        "unparsed": estimate(0.0, 0.0),
        "refused": None,
        "sampled": None,
        "longer_wins": None,
        "gold_source": gold_source if agreement else None,
    }
    return {"kind": kind, "title": kind + settings, "quality": quality}


def win(rate: dict[str, float] | None, adjusted: dict[str, float] | None, ties: int = 0) -> dict[str, Any]:
    return {
        "first": "rlaif",
        "second": "sft",
        "judge": "judge",
        "rate": rate,
        "length_adjusted": adjusted,
        "lengths_overlap": True,
        "ties": ties,
        "unread": 0,
        "empty": 0,
    }


POLICY = {
    "tokens": estimate(20.0),
    "eos_rate": estimate(0.9),
    "copy_rate": estimate(0.02, 0.01),
    "rougeL": estimate(0.2),
}
REWARD: dict[str, Any] = {
    "accuracy_gold": estimate(0.7),
    "accuracy_labeler": estimate(0.75),
    "calibration": {
        "brier": estimate(0.2),
        "ece": 0.07,
        "bins": [{"low": 0.6, "high": 0.65, "confidence": 0.62, "accuracy": estimate(0.7)}],
    },
    "lengths": [
        {"low": -40, "high": -3, "agreement": estimate(0.6)},
        {"low": 5, "high": 90, "agreement": estimate(0.8)},
    ],
    "sft": estimate(0.0),
    "policy": estimate(0.4),
    "gain": estimate(0.4, 0.1),
    "loss": [{"step": 1, "loss": 0.69, "accuracy": 0.5}],
}
ARM: dict[str, Any] = {
    "labeler": "rlaif",
    "reward": REWARD,
    "curve": [{"step": 1, "reward": 0.0, "kl_k1": 0.0, "tokens": 20.0}, {"step": 2, "reward": 0.2, "kl_k1": 0.1}],
}
EVALUATION: dict[str, Any] = {
    "judges": {"judge": {"kind": "rouge"}},
    "labelers": {
        "judge": labeler("rouge", estimate(0.65)),
        "rlaif": labeler("similarity", estimate(0.72)),
        "llm": labeler("llm", estimate(0.45)),
    },
    "arms": {"rlaif": ARM},
    "policies": {"sft": POLICY, "rlaif": POLICY, "reference": {"copy_rate": estimate(0.0), "rougeL": estimate(1.0)}},
    "wins": [win(estimate(0.7), estimate(0.61), ties=3)],
    "differences": [{"first": "rlaif", "second": "sft", "metrics": {"rougeL": estimate(0.031, 0.01)}}],
    "samples": [
        {
            "prompt": "POST: <b>bold</b>",
            "reference": "fine",
            "responses": {"sft": "<script>x</script>", "rlaif": "a & b"},
        }
    ],
    "prompts": 50,
    "responses": 1,
    "comparisons": 50,
    "gold_comparisons": 50,
    "longer_is_better": estimate(0.6),
    "sft_loss": [],
}
SPEC: dict[str, Any] = {
    "name": "demo",
    "seed": 0,
    "task": {"kind": "tldr"},
    "policy": {"model": "m", "max_new_tokens": 48},
    "arms": {"rlaif": {"feedback": {"labeler": {"kind": "similarity", "model": "package:mini"}}}},
}
STEPS = [StepReport(name="sft", reused=True, seconds=1.5, peak_memory_bytes=2**30, facts={"prompts_truncated": 2})]


def build_report(spec: dict[str, Any] = SPEC, **changes: Any) -> RunReport:
    evaluation = Evaluation.model_validate({**EVALUATION, **changes})
    return RunReport.build(spec, evaluation, STEPS, {"python": "3.11"})


def make_row(number: int, text: str = "", probability: float | None = None, **responses: str) -> dict[str, Any]:
    """A row of `samples.jsonl`: of three samples, the first is won, the second a tie, and the third lost."""
    won = (0.9, 0.5, 0.2)[number % 3] if probability is None else probability
    texts = {"sft": f"a plain answer {number}", "rlaif": f"a better answer {number}", **responses}
    return {
        "id": f"p{number}",
        "prompt": text or f"POST: number {number} about {('cats', 'dogs')[number % 2]}",
        "reference": "a reference",
        "groups": {"topic": ("cats", "dogs")[number % 2]},
        "responses": {
            name: {"text": text, "rewards": {"rlaif": number / 7}, "metrics": {"tokens": 4.0, "eos_rate": 1.0}}
            for name, text in texts.items()
        },
        "verdicts": [
            {
                "first": "rlaif",
                "second": "sft",
                "judge": "judge",
                "probability": won,
                "orders": [won, 1 - won],
                "rationales": [["because"], ["since"]],
            }
        ],
    }


def correction(rate: float, bias: dict[str, float]) -> dict[str, Any]:
    return {
        "rate": estimate(rate, 0.06, 300),
        "human": estimate(rate, 0.09, 80),
        "bias": bias,
        "agreement": estimate(0.8, count=70),
        "weight": 0.6,
    }
