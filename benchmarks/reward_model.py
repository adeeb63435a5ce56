"""Measure speed and memory of reward-model training, relative to TRL's RewardTrainer in the same run.

python benchmarks/reward_model.py [--pairs tldr_pairs.jsonl] [--precisions fp32 bf16] [--steps 4] [--random 1B]
                                  [--train-tokens 2048]

Both sides train the same score model on the same pairs in the same order, batch by batch, in the same precision, each
in a separate process. There are two cases: TL;DR pairs, where two short responses share a long prompt, and pairs whose
responses dominate (posts as responses to a short prompt). Prints one line per case: the ratio of pairs per second to
TRL's, such as `2.31x`, peak memory, and the largest difference of the two loss curves. Medians exclude the first step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from sides import MINI, add_arguments, answer_side, describe, make_clock, run_side, save_scores, save_start, time_steps

from rlaif_framework import Comparison, Context, LabelledComparison, PluginManager, Prompt, Stage
from rlaif_framework.contracts import read_metrics
from rlaif_framework.models import load_model, load_tokenizer
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.loading import build_spec
from rlaif_plugins.rewards.bradley_terry import model as bradley_terry

CASES = ("tldr", "responses")
BATCH, LR = 8, 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser, CASES, ["fp32"], steps=4)
    parser.add_argument("--pairs", help="JSON Lines with prompt, response_a, response_b; default: tldr-mini")
    given = parser.parse_args()
    if answer_side(given.side, {"ours": run_ours, "trl": run_trl}):
        return
    with tempfile.TemporaryDirectory() as scratch:
        start = Path(scratch) / "start"
        save_start(given.model, given.random, start)
        save_scores(start, Path(scratch) / "scores")
        print(
            f"# {given.random or given.model}, batches of {BATCH} pairs, {torch.get_num_threads()} threads", flush=True
        )
        for case in given.cases:
            rows = read_rows(case, given.pairs, BATCH * given.steps)
            path = Path(scratch) / f"{case}.json"
            path.write_text(json.dumps(rows))
            for precision in given.precisions:
                settings = {"rows": str(path), "precision": precision, "steps": given.steps}
                settings["train_tokens"] = given.train_tokens
                settings["start"] = f"{scratch}/scores"
                mine = run_side(sys.argv[0], {**settings, "who": "ours"})
                theirs = None if given.only else run_side(sys.argv[0], {**settings, "who": "trl"})
                print(compare(case, precision, mine, theirs), flush=True)


def compare(case: str, precision: str, mine: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    """Format one line."""
    rate = BATCH / describe(mine["seconds"])
    head = f"{case}, {precision}: "
    if theirs is None:
        return f"{head}{rate:.3f} pairs/s, {mine['tokens']:.0f} tokens per pair, peak {mine['peak'] / 2**30:.2f} GiB"
    slow = BATCH / describe(theirs["seconds"])
    apart = max(abs(a - b) for a, b in zip(mine["losses"], theirs["losses"], strict=True))
    return (
        f"{head}{rate / slow:.2f}x  ({rate:.3f} against {slow:.3f} pairs/s; {mine['tokens']:.0f} tokens per pair with "
        f"the prompt shared, {mine['unshared']:.0f} without; peak {mine['peak'] / 2**30:.2f} against "
        f"{theirs['peak'] / 2**30:.2f} GiB; losses {mine['losses'][0]:.4f} to {mine['losses'][-1]:.4f}, "
        f"largest difference {apart:.1e})"
    )


def read_rows(case: str, path: str | None, count: int) -> list[dict[str, str]]:
    """Return the pairs of a case; those of `responses` have posts as responses to a short prompt."""
    rows = [json.loads(line) for line in Path(path or MINI).read_text(encoding="utf-8").splitlines()]
    if path:
        pairs = [{"prompt": r["prompt"], "chosen": r["response_a"], "rejected": r["response_b"]} for r in rows]
    else:
        texts = [(r["post"], r["candidate"], r["flawed"][0]["text"]) for r in rows if "candidate" in r]
        pairs = [{"prompt": post, "chosen": good, "rejected": bad} for post, good, bad in texts]
    pairs = [{**p, "prompt": f"POST: {p['prompt']}\n\nTL;DR:"} for p in pairs]
    if case == "responses":
        posts = [p["prompt"] for p in pairs]
        pairs = [{"prompt": f"Story {i}:", "chosen": a, "rejected": b} for i, (a, b) in enumerate(pairwise(posts))]
    return [{k: v.strip() for k, v in pairs[i % len(pairs)].items()} for i in range(count)]


def run_ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Train the reward model `bradley-terry`."""
    rows = json.loads(Path(settings["rows"]).read_text())
    manager = PluginManager.load()
    policy = {
        "model": settings["start"],
        "chat": "plain",  # as on the other side
        "dtype": settings["precision"],
        "train_tokens": settings["train_tokens"],
    }
    spec = build_spec({"task": "tldr", "policy": policy, "evaluate": None}, "benchmark", manager)
    context = Context.from_spec(spec, manager)
    reward = {"model": settings["start"], "lr": LR, "batch_size": BATCH, "schedule": "constant", "warmup": 0}
    model = context.build_reward(narrow("reward", {"kind": "bradley-terry", **reward}, manager))
    labels = []
    for number, row in enumerate(rows):
        prompt = Prompt(str(number), row["prompt"], row["prompt"])
        labels.append(LabelledComparison(Comparison(str(number), prompt, (row["chosen"], row["rejected"])), (1.0, 0.0)))
    # The order of the rows, as on TRL's side, instead of a random one.
    in_order = lambda stage, total, size, number: list(range(number * size, (number + 1) * size))  # noqa: E731
    setattr(bradley_terry, "draw_batch", in_order)  # noqa: B010

    def fit(stage: Stage) -> list[float]:
        model.fit(labels, Path(settings["start"]), stage)
        return [row["loss"] for row in read_metrics(stage.folder)]

    seconds, losses = time_steps(bradley_terry, "reward", context, fit)
    tokenizer = load_tokenizer(settings["start"])
    sizes = [[len(tokenizer(row[k])["input_ids"]) for k in ("prompt", "chosen", "rejected")] for row in rows]
    return {
        "seconds": seconds,
        "losses": losses,
        "tokens": sum(map(sum, sizes)) / len(rows),
        "unshared": sum(2 * p + a + b for p, a, b in sizes) / len(rows),
    }


def run_trl(settings: dict[str, Any]) -> dict[str, Any]:
    """Train with TRL's RewardTrainer, without shuffling."""
    import trl
    from datasets import Dataset
    from torch.utils.data import SequentialSampler

    rows = json.loads(Path(settings["rows"]).read_text())
    seconds: list[float] = []

    class InOrder(trl.RewardTrainer):
        def _get_train_sampler(self, *args: Any) -> Any:
            dataset: Any = self.train_dataset
            return SequentialSampler(dataset)

    with tempfile.TemporaryDirectory() as scratch:
        config = trl.RewardConfig(
            output_dir=scratch,
            max_steps=settings["steps"],
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            lr_scheduler_type="constant",
            bf16=settings["precision"] == "bf16",
            gradient_checkpointing=False,
            disable_dropout=True,
            max_length=None,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1,
        )
        # With a space between prompt and response, as on our side.
        columns = {key: [row["prompt"] if key == "prompt" else f" {row[key]}" for row in rows] for key in rows[0]}
        trainer = InOrder(
            model=load_model(settings["start"], "score", torch.float32, torch.device("cpu"), num_labels=1),
            args=config,
            train_dataset=Dataset.from_dict(columns),
            processing_class=load_tokenizer(settings["start"]),
        )
        trainer.add_callback(make_clock(seconds))
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"seconds": seconds, "losses": losses}


if __name__ == "__main__":
    main()
