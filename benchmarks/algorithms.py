"""Compare all algorithms with the same budget on tldr-mini: reward, KL and win rate over several seeds.

python benchmarks/algorithms.py [--seeds 0 1 2] [--spec specs/algorithms.yaml] [--runs runs/algorithms]

Prints a table with one line per arm: the change of the held-out reward (of the arm's own reward model), the KL
divergence of the last step (if the algorithm logs none, of one sample per test prompt), the win rate against the
baseline, the mean number of tokens of a response, and the EOS rate. Numbers are means over the seeds, followed by the
value of each seed. Finished runs are reused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from rlaif_framework import Context, PluginManager, load_spec
from rlaif_framework.models import (
    Group,
    encode_prompt,
    load_model,
    load_tokenizer,
    pack_groups,
    response_logprobs,
    sample_responses,
    split_by_tokens,
)
from rlaif_framework.training import truncate_prompts

ROOT = Path(__file__).parents[1]
OFFLINE = ("dpo", "rejection-sampling", "teacher")
"""Arms that log no KL. That of best-of-n is at most log n - (n - 1) / n, since it only selects from the baseline."""


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
    print("| arm | change of reward | KL k1 | win rate against sft, % | tokens | EOS rate, % | seconds |")
    print("|---|---|---|---|---|---|---|")
    for arm in ["sft", *reports[0]["evaluation"]["arms"]]:
        rows = [
            measure(report, arm, given.runs / f"seed-{seed}") for seed, report in zip(given.seeds, reports, strict=True)
        ]
        print(f"| {arm} | " + " | ".join(show(column) for column in zip(*rows, strict=True)) + " |")


def measure(report: dict[str, Any], arm: str, folder: Path) -> list[float | None]:
    """Return the columns of an arm in one run; None if a number does not exist."""
    evaluation = report["evaluation"]
    measured, policy = evaluation["arms"].get(arm, {}), evaluation["policies"][arm]
    gain = (measured.get("reward") or {}).get("gain")
    curve = [row["kl_k1"] for row in measured.get("curve", []) if "kl_k1" in row]
    win = next((w["rate"]["value"] for w in evaluation["wins"] if w["first"] == arm and w["rate"]), None)
    seconds = next((s["seconds"] for s in report["steps"] if s["name"] == f"{arm}/policy"), None)
    return [
        gain["value"] if gain else None,
        curve[-1] if curve else sample_kl(folder, arm) if arm in OFFLINE else None,
        100 * win if win is not None else None,
        policy["tokens"]["value"],
        100 * policy["eos_rate"]["value"],
        seconds,
    ]


@torch.no_grad()
def sample_kl(folder: Path, arm: str) -> float:
    """Estimate the KL (k1, nats per response) of an arm's policy from the baseline, and cache it in the run folder."""
    kept = folder / f"kl-{arm}.json"
    if kept.exists():
        return float(json.loads(kept.read_text()))
    manager = PluginManager.load()
    context = Context.from_spec(load_spec(folder / "spec.yaml", (), manager), manager)
    settings, temperature = context.policy, 0.9
    policy, baseline = (
        load_model(folder / name, "causal", context.dtype, context.device) for name in (f"{arm}/policy", "sft")
    )
    tokenizer = load_tokenizer(folder / "sft")
    prompts, _ = truncate_prompts(context, context.task.prompts("test"), tokenizer)
    ids = [encode_prompt(tokenizer, prompt.text) for prompt in prompts]
    samples = sample_responses(
        policy, tokenizer, ids, max_new_tokens=settings.max_new_tokens, temperature=temperature, seed=0
    )
    groups = [Group(prompt, [sample.ids]) for prompt, sample in zip(ids, samples, strict=True)]
    total = 0.0
    for batch in split_by_tokens([group.length for group in groups], settings.batch_tokens):
        packed = pack_groups([groups[i] for i in batch], tokenizer.pad_token_id, context.device)
        logprobs = (response_logprobs(model, packed, temperature) for model in (policy, baseline))
        total += float((next(logprobs) - next(logprobs)).sum())
    kept.write_text(json.dumps(total / len(groups)))
    return total / len(groups)


def show(values: tuple[float | None, ...]) -> str:
    """Format the mean and the value of each seed."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    digits = 3 if max(map(abs, known)) < 10 else 1
    return f"{fmean(known):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in known)})"


if __name__ == "__main__":
    main()
