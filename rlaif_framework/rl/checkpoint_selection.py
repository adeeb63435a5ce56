"""Look at a policy on fixed validation prompts while it trains, and choose the checkpoint to keep (RLAIF G)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file

from rlaif_framework.contracts.protocols import Reward
from rlaif_framework.contracts.validation import check_preferences, score_responses
from rlaif_framework.errors import SpecError
from rlaif_framework.metrics.estimates import estimate_mean
from rlaif_framework.metrics.wins import measure_wins
from rlaif_framework.models.sampling import truncate_prompts
from rlaif_framework.records.jsonl import read_rows, write_rows
from rlaif_framework.records.preferences import Comparison, Evidence, Preference
from rlaif_framework.rl.config import OnlineConfig
from rlaif_framework.rl.learner import Learner
from rlaif_framework.seeds import sample_subset
from rlaif_framework.store import write_atomic
from rlaif_framework.training.checkpoints import trainable

LOOKS = "checkpoint_selection.jsonl"


class CheckpointSelector:
    """Looks at a learner's policy every so often: greedy responses, their reward, and who wins by the judge."""

    def __init__(self, config: OnlineConfig, learner: Learner, reward: Reward | None) -> None:
        """Prepare the prompts, and the initial policy's responses to them; without settings, never look.

        Raises:
            SpecError: The task has no validation prompts, or there is neither a reward nor a judge.
        """
        self.learner, self.reward, self.stage, self.steps = learner, reward, learner.stage, config.steps
        if config.checkpoint_selection is None:
            self.config = None
            return
        self.config, stage = config.checkpoint_selection, learner.stage
        if reward is None and self.config.judge is None:
            raise SpecError("checkpoint_selection: without a reward it needs a judge")
        prompts = sample_subset(
            learner.context.task.prompts("validation"), self.config.prompts, stage.seed("checkpoint_selection prompts")
        )
        if not prompts:
            raise SpecError("checkpoint_selection: the task has no validation prompts; leave 'watch' out")
        most = learner.context.policy.max_prompt_tokens
        self.prompts, _ = truncate_prompts(prompts, learner.context.task, learner.tokenizer, most)
        judge = self.config.judge
        self.judge = learner.context.build_labeler(judge) if judge is not None else None
        self.judge_kind = judge.kind if judge is not None else ""
        self.folder = stage.checkpoint / "candidates"
        self.folder.mkdir(exist_ok=True)
        first = self.folder / "initial.json"
        if stage.is_main and not first.exists():
            write_atomic(first, json.dumps(self._respond()))
        learner.accelerator.wait_for_everyone()
        self.initial: list[str] = json.loads(first.read_text(encoding="utf-8"))

    def evaluate(self, number: int) -> bool:
        """Look after `number` steps if it is time; True if training should stop."""
        if self.config is None or (number % self.config.every and number < self.steps):
            return False
        stop = False
        if self.stage.is_main:
            looks = [*(row for row in self._read() if row["step"] < number), self._measure(number)]
            # Looks that an interrupted try made after its last checkpoint are made again.
            self.stage.report_step(number, _curves(looks[-1]))
            write_rows(self.folder / LOOKS, looks)
            (self.folder / LOOKS).replace(self.stage.folder / LOOKS)
            tensors = {k: p.detach().contiguous() for k, p in trainable(self._policy()).items()}
            save_file(tensors, self._candidate(number))
            self._keep_best(looks)
            stop = self._is_stuck(looks)
        flag = torch.tensor(float(stop), device=self.learner.context.device)
        return bool(self.learner.accelerator.reduce(flag, reduction="sum") > 0)

    def choose(self) -> None:
        """Put the best checkpoint's weights into the policy, and note which one it was."""
        if self.config is None or not self.stage.is_main:
            return
        best = max(self._likeliest(self._read()), key=lambda look: (_judged(look), _rewarded(look)))
        tensors = load_file(self._candidate(best["step"]))
        with torch.no_grad():
            for name, parameter in trainable(self._policy()).items():
                parameter.copy_(tensors[name])
        self.stage.facts["chosen_step"] = best["step"]

    def _policy(self) -> torch.nn.Module:
        return cast(torch.nn.Module, self.learner.accelerator.unwrap_model(self.learner.policy))

    def _respond(self) -> list[str]:
        samples = self.learner.respond([p.text for p in self.prompts], 0.0, self.stage.seed("checkpoint_selection"))
        return [self.learner.context.task.clean(s.text) for s in samples]

    def _measure(self, number: int) -> dict[str, Any]:
        """One look: mean reward, and the win rate against the initial policy if there is a judge."""
        texts = self._respond()
        reward = estimate_mean(score_responses(self.reward, self.prompts, texts)) if self.reward is not None else None
        look: dict[str, Any] = {"step": number, "reward": reward and asdict(reward), "wins": None}
        if self.judge is not None:
            pairs = zip(self.prompts, texts, self.initial, strict=True)
            comparisons = [Comparison(p.id, p, (new, old)) for p, new, old in pairs]
            different = [c for c in comparisons if c.responses[0] != c.responses[1]]
            judged = {
                p.comparison: p for p in check_preferences(self.judge.label(different), different, self.judge_kind)
            }
            tie = Evidence(source="tie")
            rows = [judged.get(c.id) or Preference(c.id, (0.5, 0.5), tie) for c in comparisons]
            look["wins"] = asdict(measure_wins("policy", "initial", comparisons, rows))
        return look

    def _read(self) -> list[dict[str, Any]]:
        path = self.stage.folder / LOOKS
        return [row for _, row in read_rows(path)] if path.exists() else []

    def _candidate(self, number: int) -> Path:
        return self.folder / f"step-{number}.safetensors"

    def _likeliest(self, looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The looks with the highest validation reward; by the judge where there is no reward."""
        assert self.config is not None
        first = _rewarded if self.reward is not None else _judged
        return sorted(looks, key=lambda look: -first(look))[: self.config.candidates]

    def _keep_best(self, looks: list[dict[str, Any]]) -> None:
        """Delete the weights of checkpoints that are no candidates any more."""
        kept = {self._candidate(look["step"]) for look in self._likeliest(looks)}
        for path in self.folder.glob("step-*.safetensors"):
            if path not in kept:
                path.unlink()

    def _is_stuck(self, looks: list[dict[str, Any]]) -> bool:
        """Whether the last `patience` looks were no better than one before them."""
        assert self.config is not None
        patience = self.config.patience
        if patience is None or len(looks) <= patience:
            return False
        of = _judged if self.judge is not None else _rewarded
        return max(map(of, looks[-patience:])) <= max(map(of, looks[:-patience]))


def _curves(look: dict[str, Any]) -> dict[str, float]:
    """A look as metrics of a step."""
    curves = {"validation/reward": _rewarded(look)} if look["reward"] else {}
    return curves | ({"validation/win_rate": _judged(look)} if look["wins"] else {})


def _judged(look: dict[str, Any]) -> float:
    """Win rate of a look; 0 where nothing was judged."""
    rate = (look["wins"] or {}).get("rate")
    return float(rate["value"]) if rate else 0.0


def _rewarded(look: dict[str, Any]) -> float:
    """Mean validation reward of a look; 0 without a reward."""
    return float(look["reward"]["value"]) if look["reward"] else 0.0
