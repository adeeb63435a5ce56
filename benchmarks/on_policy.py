"""Measure the agreement of reward models with labeler and judge on responses of the policy, as RL needs it.

python benchmarks/on_policy.py runs/quickstart [more run folders] [--arm rlaif] [--responses 8]

The baseline of the first run samples responses to the validation and test posts. The arm's labeler and the judge label
all pairs of them, and the reward model of every run scores them. Prints one line per run: the share of pairs on which
the reward model agrees with the labeler and with the judge, over all pairs and over pairs whose lengths differ by less
than 15 characters, for which a preference for length does not help.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from rlaif_framework import Comparison, Context, PluginManager, Preference, load_spec
from rlaif_framework.models import load_model
from rlaif_framework.training.responses import sample_texts, truncate_prompts

NEAR = 15
"""Maximum length difference, in characters, of pairs of similar length (exclusive)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--arm", default="rlaif")
    parser.add_argument("--responses", type=int, default=8)
    given = parser.parse_args()
    manager, first = PluginManager.load(), given.runs[0]
    spec = load_spec(first / "spec.yaml", (), manager)
    context, arm = Context.from_spec(spec, manager), spec.arms[given.arm]
    judge = spec.evaluate.judge if spec.evaluate is not None else None
    if arm.feedback is None or arm.reward is None or judge is None:
        raise SystemExit(f"arm '{given.arm}' needs feedback and a reward model, and the spec a judge")
    prompts = [*context.task.prompts("validation"), *context.task.prompts("test")]
    tokenizer = context.load_policy_tokenizer(first / "sft")
    prompts, _ = truncate_prompts(context, prompts, tokenizer)
    model = load_model(first / "sft", "causal", context.dtype, context.device)
    repeated = [p for p in prompts for _ in range(given.responses)]
    samples = sample_texts(context, model, tokenizer, repeated, temperature=0.9, seed=0)
    texts = [context.task.clean(sample.text) for sample in samples]
    written = {p.id: list(dict.fromkeys(t for q, t in zip(repeated, texts, strict=True) if q is p)) for p in prompts}
    # Duplicates were removed above: identical responses have no better one.
    pairs = [
        Comparison(f"{prompt.id}/{number}", prompt, pair)
        for prompt in prompts
        for number, pair in enumerate(combinations(filter(None, written[prompt.id]), 2))
    ]
    raters = {"labeler": arm.feedback.labeler, "judge": judge}
    labels = {
        name: np.array([first_probability(p) - 0.5 for p in context.build_labeler(config).label(pairs)])
        for name, config in raters.items()
    }
    longer = np.array([len(a) - len(b) for a, b in (pair.responses for pair in pairs)])
    print(f"# {len(pairs)} pairs of the baseline's samples, {np.sum(abs(longer) < NEAR)} of similar length", flush=True)
    print(compare("the longer response", longer, longer, labels))
    for run in given.runs:
        reward = context.build_reward(arm.reward).load(run / given.arm / "reward")
        found = dict(zip(zip((p.id for p in repeated), texts, strict=True), reward.score(repeated, texts), strict=True))
        margins = [found[p.prompt.id, p.responses[0]] - found[p.prompt.id, p.responses[1]] for p in pairs]
        print(compare(str(run), np.array(margins), longer, labels), flush=True)


def first_probability(preference: Preference) -> float:
    """Return the probability that the first response is preferred; 0.5 if the labeler could not say."""
    return 0.5 if preference.probabilities is None else preference.probabilities[0]


def compare(name: str, margins: np.ndarray, longer: np.ndarray, labels: dict[str, np.ndarray]) -> str:
    """Format the share of pairs whose margin (first minus second) has the sign of each rater's preference."""
    near = abs(longer) < NEAR
    agrees = {rater: np.sign(margins) == np.sign(given) for rater, given in labels.items()}
    shares = (f"{rater} {x.mean():.1%}, of similar length {x[near].mean():.1%}" for rater, x in agrees.items())
    return f"{name}: agrees with {'; '.join(shares)}"


if __name__ == "__main__":
    main()
