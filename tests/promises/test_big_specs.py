"""The specs that need a GPU: their data is loaded and every setting of theirs is used, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif_framework import PluginManager, Store, load_spec, run_spec
from rlaif_framework.contracts import read_metrics
from rlaif_framework.progress import Progress

ROOT = Path(__file__).parents[2]
MINI = ROOT / "plugins" / "rlaif_plugins" / "tasks" / "tldr" / "tldr_mini.jsonl"
PROMPT = "SUBREDDIT: r/AskReddit\n\nTITLE: a question\n\nPOST: {}\n\nTL;DR:"
SMALL = {
    "tldr-full.yaml": [
        "arms.direct.reward.labeler.backend.model={model}",
        "policy.lora.rank=2",
        "evaluate.prompts=4",
        "arms.rlhf.feedback.pairs.limit=16",
    ],
    "paper/n-details.yaml": ["arms.dpo.algorithm.batch_size=8", "evaluate.prompts=4"],
}
LEARNED = [
    "reward.batch_size=8",
    "algorithm.steps=2",
    "algorithm.prompts_per_step=4",
    "algorithm.checkpoint_selection={every: 1, prompts: 2}",
]


def as_trl(folder: Path) -> tuple[Path, Path]:
    """The forms of trl-lib/tldr and trl-lib/tldr-preference."""
    rows = [r for r in map(json.loads, MINI.read_text(encoding="utf-8").splitlines()) if "candidate" in r][::4]
    posts, pairs = folder / "posts", folder / "pairs.jsonl"
    posts.mkdir()
    for split, part in {"train": rows[:30], "validation": rows[30:38], "test": rows[38:]}.items():
        lines = [{"prompt": PROMPT.format(r["post"]), "completion": f" {r['summary']}"} for r in part]
        (posts / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    lines = [
        {"prompt": PROMPT.format(r["post"]), "chosen": f" {r['candidate']}", "rejected": f" {f['text']}"}
        for r in rows
        for f in r["flawed"]
    ]
    pairs.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return posts, pairs


def as_openai(folder: Path) -> tuple[Path, Path]:
    """The files that OpenAI published, with the confidence of raters."""
    rows = [r for r in map(json.loads, MINI.read_text(encoding="utf-8").splitlines()) if "candidate" in r][::4]
    posts, pairs = folder / "posts", folder / "comparisons"
    posts.mkdir()
    pairs.mkdir()
    for split, part in {"train": rows[:30], "valid": rows[30:38], "test": rows[38:]}.items():
        lines = [{k: r[k] for k in ("id", "subreddit", "title", "post", "summary")} for r in part]
        (posts / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    for split, part in {"train": rows[:30], "valid1": rows[30:]}.items():
        lines = [
            {
                "info": {k: r[k] for k in ("id", "subreddit", "title", "post")} | {"article": None},
                "summaries": [
                    {"text": f" {f['text']}", "policy": "a", "note": ""},
                    {"text": f" {r['candidate']}", "policy": "b", "note": ""},
                ],
                "choice": 1,
                "worker": "w",
                "batch": "batch3",
                "split": split,
                "extra": {"confidence": 8},
            }
            for r in part
            for f in r["flawed"]
        ]
        (pairs / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return posts, pairs


@pytest.mark.parametrize(
    ("name", "write"), [("tldr-full.yaml", as_openai), ("paper/n-details.yaml", as_trl)], ids=["full", "n-details"]
)
def test_a_big_spec_runs_in_small(
    name: str,
    write: Callable[[Path], tuple[Path, Path]],
    tmp_path: Path,
    tiny_model: Path,
    manager: PluginManager,
) -> None:
    posts, pairs = write(tmp_path)
    own: list[str] = [line.format(model=tiny_model) for line in SMALL[name]]
    overrides = [
        f"task.data={posts}",
        f"task.comparisons={pairs}",
        f"policy.model={tiny_model}",
        "policy.dtype=fp32",
        "policy.max_prompt_tokens=128",
        "policy.max_new_tokens=8",
        "sft.batch_size=8",
        "arms.rlaif.feedback.labeler={kind: length, prefer: shorter}",
        "arms.rlaif.feedback.allow_weak_labels=true",
        "arms.rlaif.feedback.pairs.limit=16",
        *(f"arms.rlaif.{line}" for line in LEARNED),
        *(f"arms.rlhf.{line}" for line in LEARNED),
        *(["arms.direct." + line for line in LEARNED if line.startswith("algorithm")] if "full" in name else []),
        *(["arms.direct.reward.allow_weak_labels=true"] if "full" in name else []),  # random weights write no scores
        "evaluate.judge={kind: length}",
        "evaluate.comparisons=8",
        *own,
    ]
    spec = load_spec(ROOT / "specs" / name, overrides, manager)
    run_spec(spec, tmp_path / "run", Store(tmp_path / "store"), manager, Progress())
    report: dict[str, Any] = json.loads((tmp_path / "run/report.json").read_text())
    assert report["evaluation"]["arms"].keys() == spec.arms.keys()
    assert report["evaluation"]["labelers"]["rlhf"]["quality"]["gold_source"] == "human"
    for arm in spec.arms:
        assert read_metrics(tmp_path / "run" / arm / "policy"), arm
    level = json.loads((tmp_path / "run/rlaif/reward/reward_level.json").read_text())
    assert level["references"] == 30
    assert (tmp_path / "run/rlaif/policy/checkpoint_selection.jsonl").exists()


PREFERENCE = {"lr": 3e-6, "batch_size": 64, "epochs": 1, "adam_eps": 1e-5}
REWARD = {
    **PREFERENCE, "kind": "bradley-terry", "model": "sft", "head": "normal", "schedule": "cosine", "warmup": 0,
    "centre": True, "margin": 0, "label_temperature": 1, "label_clamp": None, "weights": "equal",
}  # fmt: skip
PPO = {
    "kind": "ppo", "prompts_per_step": 512, "responses_per_prompt": 1, "epochs": 4, "minibatches": 1, "gamma": 1,
    "lam": 0.95, "clip": 0.2, "value_clip": 0.2, "value_weight": 0.1 / 2, "beta": 0.05, "objective": "penalised",
    "kl": "reward", "kl_estimator": "k1", "kl_correction": False, "kl_target": None, "lr": 3e-6, "value_lr": None,
    "schedule": "linear", "warmup": 0, "adam_eps": 1e-5, "temperature": 0.7, "missing_eos_reward": -1,
    "missing_eos_penalty": 0, "scale_rewards": False, "whiten_rewards": False, "whiten_advantages": True,
    "average": "tokens", "value_from": "reward", "entropy": 0,
}  # fmt: skip
N_DETAILS: dict[str, dict[str, Any]] = {
    "policy": {"lora": None, "dtype": "bf16", "max_prompt_tokens": 512, "max_new_tokens": 53},
    "sft": {
        "epochs": 1, "lr": 3e-6, "batch_size": 128, "schedule": "cosine", "warmup": 0, "adam_eps": 1e-5, "loss": "all",
        "limit": None,
    },
    "arms.rlaif.reward": REWARD,
    "arms.rlhf.reward": REWARD,
    "arms.rlaif.algorithm": PPO,
    "arms.rlhf.algorithm": PPO,
    "arms.dpo.algorithm": {
        **PREFERENCE, "kind": "dpo", "beta": 0.05, "labels": "hard", "label_smoothing": 0, "schedule": "cosine",
        "warmup": 0,
    },
    "evaluate": {"temperature": 0.01},
}  # fmt: skip
"""The values of Huang et al. 2024. The value loss there is 0.1 of half the squared error."""


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [(where, key, value) for where, values in N_DETAILS.items() for key, value in values.items()],
)
def test_n_details_has_the_papers_values(where: str, key: str, value: object, n_details: dict[str, Any]) -> None:
    """As the spec resolves, defaults included: a default that changes must not change the recipe."""
    part = n_details
    for name in where.split("."):
        part = part[name]
    assert part[key] == value


def test_n_details_has_a_million_episodes_four_seeds_and_models_of_the_same_start(n_details: dict[str, Any]) -> None:
    text = (ROOT / "specs/paper/n-details.yaml").read_text(encoding="utf-8")
    assert n_details["seed"] == 44413
    assert all(seed in text for seed in ("55513", "66613", "77713"))
    assert n_details["policy"]["model"] == "EleutherAI/pythia-1b-deduped"
    for arm in ("rlaif", "rlhf"):
        algorithm = n_details["arms"][arm]["algorithm"]
        episodes = algorithm["steps"] * algorithm["prompts_per_step"]
        assert abs(episodes - 1_000_000) < algorithm["prompts_per_step"]


@pytest.fixture(scope="module")
def n_details() -> dict[str, Any]:
    return load_spec(ROOT / "specs/paper/n-details.yaml", [], PluginManager.load()).model_dump(mode="json")
