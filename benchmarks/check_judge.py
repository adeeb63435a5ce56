"""Power and false alarms of `rlaif check-judge`: simulated judges, one bias of 10 points planted in each.

`python benchmarks/check_judge.py` prints in which share of simulated judges each probe found a bias (its power or, for
judges without one, its false alarms), and in which share any did. Each judge is checked on pairs of its own. A judge
has a probability for each pair, between 0.1 and 0.9, and adds the bias to it. Those of the first kind (`soft`) answer
with this probability and a little noise, those of the second (`sampled`) draw a verdict from it anew in each answer,
and those of the third (`coin`) do so with a probability of 0.5 for every pair.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Literal

from rlaif_framework import Comparison, Component, Context, Evidence, LabelerConfig, PluginManager, Preference, hookimpl
from rlaif_framework.data.pairs_file import Inspect, PairsFile, scan_rows
from rlaif_framework.data.row_files import Row
from rlaif_framework.labelling.check_judge import CheckSettings, check_judge
from rlaif_framework.labelling.probes import OWN, POSITION, Probe, choose_probes
from rlaif_framework.metrics.judge_bias import SIGNIFICANCE
from rlaif_framework.plugins.discovery import Plugin
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.progress import Progress

BIAS = 0.1
ALARM, SIGNIFICANT = "an alarm", "an effect with p < 0.05"
MODEL = "Sim-1"


class JudgeConfig(LabelerConfig):
    """A simulated judge with a planted bias."""

    kind: Literal["simulated/judge"] = "simulated/judge"
    answers: Literal["soft", "sampled", "coin"] = "soft"
    bias: str = ""
    """Name of the probe that it should be found by."""
    seed: int = 0


class Judge:
    """Adds `BIAS` to the probability of a response that has the change of a probe."""

    def __init__(self, config: JudgeConfig, context: Context) -> None:
        # Another stream than that of the pairs.
        self.config, self.random = config, random.Random(f"judge {config.seed}")
        self.rewards = find_change(config.bias)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        for pair in comparisons:
            first = self.judge(pair)
            yield Preference(pair.id, (first, 1 - first), Evidence("simulated/judge"))

    def judge(self, pair: Comparison) -> float:
        a, b = pair.responses
        first = 0.5 if self.config.answers == "coin" else 0.5 + (quality(a) - quality(b)) / 2
        first += BIAS * (1 if self.config.bias == POSITION else self.rewards(a) - self.rewards(b))
        first += self.random.uniform(-0.05, 0.05) if self.config.answers == "soft" else 0
        first = min(max(first, 0.0), 1.0)
        return first if self.config.answers == "soft" else float(self.random.random() < first)


@hookimpl
def rlaif_labelers() -> list[Component]:
    return [Component("simulated/judge", JudgeConfig, f"{__name__}:Judge")]


def find_change(name: str) -> Callable[[str], bool]:
    """Return a function that recognises the texts that a probe changed."""
    if name in ("", POSITION):
        return lambda text: False
    if name == OWN:
        return lambda text: text.partition("By ")[2].startswith(MODEL)
    (probe,) = choose_probes([name])
    parts = [_fixed_parts(wording.changed) for wording in probe.wordings]
    return lambda text: _is_marked(text, probe) or any(p and all(x in text for x in p) for p in parts)


def _fixed_parts(template: str) -> list[str]:
    filled = template.replace("{own}", MODEL)
    return [text.strip() for text, *_ in Formatter().parse(filled) if text.strip()]


def _is_marked(text: str, probe: Probe) -> bool:
    if probe.name == "length":  # its last sentence is there twice
        return text.count("It ends here.") > 1
    return probe.name == "format" and ("- " in text or "**" in text)


def quality(text: str) -> float:
    """Return the quality of a response, which it states itself, from -0.4 to 0.4."""
    return float(text.partition("quality ")[2].split()[0])


@dataclass(frozen=True)
class Case:
    """A number of judges."""

    answers: str
    bias: str
    count: int


def make_rows(count: int, draw: random.Random) -> Iterator[Row]:
    """Pairs with human labels; the judge's model wrote one response of each."""
    for number in range(count):
        qualities = [round(draw.uniform(-0.4, 0.4), 3) for _ in range(2)]
        names = draw.sample([MODEL, "Sim-2"], 2)
        texts = [
            f"By {n}. This has quality {q} as stated. It ends here." for n, q in zip(names, qualities, strict=True)
        ]
        label = "a" if draw.random() < 0.5 + (qualities[0] - qualities[1]) / 2 else "b"
        values = {"prompt": f"question {number}?", "response_a": texts[0], "response_b": texts[1], "label": label}
        yield Row("simulated", number + 1, values={**values, "model_a": names[0], "model_b": names[1]})


def run_case(case: Case, simulations: int, manager: PluginManager) -> Counter[str]:
    """Count in how many checks each probe found a bias, any did, and any effect differed from 0 significantly."""
    found: Counter[str] = Counter()
    for seed in range(simulations):

        def scan(inspect: Inspect, seed: int = seed) -> PairsFile:
            return scan_rows(make_rows(case.count, random.Random(seed)), "simulated", inspect)

        settings = {"kind": "simulated/judge", "answers": case.answers, "bias": case.bias, "seed": seed}
        check = check_judge(
            CheckSettings(
                labelers={"": narrow("labeler", settings, manager)},
                task=narrow("task", "text", manager),
                own=MODEL,
                limit=case.count,
            ),
            scan,
            manager,
            Progress(),
        )
        found.update(check.biases)
        found[ALARM] += bool(check.biases)
        found[SIGNIFICANT] += any(x.p_holm is not None and x.p_holm < SIGNIFICANCE for x in check.probes)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200, help="judges of each kind [default: 200]")
    parser.add_argument("--pairs", type=int, default=100, help="pairs that each judge is checked on [default: 100]")
    parser.add_argument("--answers", nargs="+", default=["soft", "sampled", "coin"])
    parser.add_argument("--probes", nargs="+", default=[probe.name for probe in choose_probes()])
    options = parser.parse_args()
    manager = PluginManager.load()
    manager.add(Plugin("simulated", "rlaif-simulated", "1.0", module=sys.modules[__name__]))
    print(f"{options.simulations} judges each, {options.pairs} pairs, tolerance 5 points, Holm-adjusted p < 0.05")
    for answers in options.answers:
        for bias in ["", *options.probes]:
            found = run_case(Case(answers, bias, options.pairs), options.simulations, manager)
            shares = ", ".join(f"{name} {n / options.simulations:.1%}" for name, n in found.items() if n)
            print(f"{answers:8} {bias or 'no bias':10} {shares}", flush=True)


if __name__ == "__main__":
    main()
