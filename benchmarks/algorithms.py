"""Every algorithm under one budget on tldr-mini: reward, KL and judge win rate, over several seeds.

python benchmarks/algorithms.py [--seeds 0 1 2] [--spec specs/algorithms.yaml] [--runs runs/algorithms]

A table with a line an arm: the change of the held-out reward (of the arm's own reward model), the KL of the last step,
the win rate against the baseline, tokens of a response and the share that ended; means over the seeds, and each seed's
own in brackets. Runs that are there are reused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--spec", type=Path, default=ROOT / "specs" / "algorithms.yaml")
    parser.add_argument("--runs", type=Path, default=Path("runs/algorithms"))
    given = parser.parse_args()
    reports = []
    for seed in given.seeds:
        folder = given.runs / f"seed-{seed}"
        if not (folder / "report.json").exists():
            command = [sys.executable, "-m", "rlaif_framework", "run", str(given.spec), "--out", str(folder)]
            subprocess.run([*command, "--set", f"seed={seed}"], check=True)
        reports.append(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    print(f"# seeds {', '.join(map(str, given.seeds))}; {reports[0]['evaluation']['prompts']} test prompts each")
    print("| arm | change of reward | KL k1 | win rate against sft, % | tokens | ended, % | seconds |")
    print("|---|---|---|---|---|---|---|")
    for arm in ["sft", *reports[0]["evaluation"]["arms"]]:
        rows = [measure(report, arm) for report in reports]
        print(f"| {arm} | " + " | ".join(show(column) for column in zip(*rows, strict=True)) + " |")


def measure(report: dict[str, Any], arm: str) -> list[float | None]:
    """The columns of an arm in one run."""
    evaluation = report["evaluation"]
    measured, policy = evaluation["arms"].get(arm, {}), evaluation["policies"][arm]
    gain = measured.get("reward_gain")
    curve = [row["kl_k1"] for row in measured.get("curve", []) if "kl_k1" in row]
    win = next((w["rate"]["value"] for w in evaluation["wins"] if w["first"] == arm and w["rate"]), None)
    seconds = next((s["seconds"] for s in report["steps"] if s["name"] == f"{arm}/policy"), None)
    return [
        gain["value"] if gain else None,
        curve[-1] if curve else None,
        100 * win if win is not None else None,
        policy["tokens"]["value"],
        100 * policy["ended"]["value"],
        seconds,
    ]


def show(values: tuple[float | None, ...]) -> str:
    """Mean, and each seed's value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    digits = 3 if max(map(abs, known)) < 10 else 1
    return f"{fmean(known):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in known)})"


if __name__ == "__main__":
    main()
