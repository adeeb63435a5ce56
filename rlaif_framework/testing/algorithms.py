"""Tests that every algorithm must pass."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Guidance, Responder
from rlaif_framework.contracts.stage import Stage, read_metrics, resume_step
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import AlgorithmConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.testing.component import ComponentConformance
from rlaif_framework.testing.oracle import OracleReward, label_letters, measure_liking
from rlaif_framework.testing.rewards import fit_reward
from rlaif_framework.testing.world import Interrupted, interrupt_after, make_stage

SETTINGS: Mapping[str, Any] = {
    "steps": 20,
    "prompts_per_step": 4,
    "responses_per_prompt": 8,
    "batch_size": 8,
    "lr": 0.02,
    "temperature": 1.0,
}
"""Settings for the tiny problem, of which a config gets those that it has."""


class AlgorithmConformance(ComponentConformance):
    """Tests of an algorithm. A reward likes some letters, and a response has two characters."""

    slot: ClassVar[Slot] = "algorithm"
    policy: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 2}
    gain: ClassVar[float] = 0.1
    """Smallest increase of the probability of a rewarded response, from about 0.2."""

    @pytest.fixture
    def parsed(self, manager: PluginManager, settings: Mapping[str, Any]) -> AlgorithmConfig:
        """The settings as the config of the component, with those of the tiny problem that are not set."""
        known = manager.find(self.slot, self.component).config.model_fields
        added = {name: value for name, value in SETTINGS.items() if name in known}
        return narrow("algorithm", {**added, **settings}, manager)

    @pytest.fixture
    def short(self, manager: PluginManager, parsed: AlgorithmConfig) -> AlgorithmConfig:
        """The same settings with few steps."""
        values = parsed.model_dump(mode="json")
        return narrow("algorithm", {**values, **({"steps": 4} if "steps" in values else {})}, manager)

    @pytest.fixture
    def prompts(self, context: Context) -> Sequence[Prompt]:
        """The prompts to train on."""
        return context.task.prompts("train")[:4]

    @pytest.fixture
    def guidance(
        self, context: Context, parsed: AlgorithmConfig, prompts: Sequence[Prompt], tiny_model: Path, tmp_path: Path
    ) -> Guidance:
        """The reward, the labels or both, as the config says that it needs them."""
        labels = label_letters(prompts)
        folder = None
        if parsed.needs_reward_model:
            reward = narrow("reward", {"kind": "bradley-terry", "lr": 1e-3}, context.manager)
            folder = fit_reward(context, reward, labels, tiny_model, tmp_path / "reward")
        return Guidance(
            OracleReward() if parsed.needs_reward else None, folder, labels if parsed.needs_preferences else ()
        )

    def test_it_improves_the_policy(
        self,
        context: Context,
        parsed: AlgorithmConfig,
        guidance: Guidance,
        prompts: Sequence[Prompt],
        tiny_model: Path,
        tmp_path: Path,
    ) -> None:
        """Check that rewarded responses become more probable, and that what is saved can be used."""
        before = measure_liking(context, tiny_model, prompts)
        stage = make_stage(context, tmp_path / "policy", "improve")
        improve_policy(context, parsed, guidance, prompts, tiny_model, stage)
        if parsed.responds:
            responder = cast(Responder, context.build_algorithm(parsed))  # checked when its class was imported
            repeated = list(prompts) * 16
            samples = responder.respond(stage.folder, guidance, repeated, stage, 1.0)
            scores = OracleReward().score(repeated, [context.task.clean(sample.text) for sample in samples])
            after = sum(score > 0 for score in scores) / len(scores)
        else:
            from rlaif_framework.models.saved import check_finite, check_saved_model  # imports torch

            check_finite(stage.folder)
            check_saved_model(stage.folder, "causal")
            after = measure_liking(context, stage.folder, prompts)
        assert after > before + self.gain, (
            f"the probability of rewarded responses is {before:.3f} before and {after:.3f} after; set a larger "
            "learning rate or more steps in `config`"
        )

    def test_its_metrics_are_logged_in_order(
        self,
        context: Context,
        short: AlgorithmConfig,
        guidance: Guidance,
        prompts: Sequence[Prompt],
        tiny_model: Path,
        tmp_path: Path,
    ) -> None:
        """Check that each step is logged once, with finite numbers."""
        if short.responds:
            pytest.skip("its config has `responds = True`: it trains nothing")
        stage = make_stage(context, tmp_path / "policy", "improve")
        improve_policy(context, short, guidance, prompts, tiny_model, stage)
        rows = read_metrics(stage.folder)
        assert rows, "it logs no metrics; call `stage.log` or train with `rlaif_framework.training.train_steps`"
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(math.isfinite(value) for row in rows for value in row.values())
        assert not stage.not_finite, f"metrics that are not finite: {', '.join(stage.not_finite)}"

    def test_the_same_seed_gives_the_same_policy(
        self,
        context: Context,
        short: AlgorithmConfig,
        guidance: Guidance,
        prompts: Sequence[Prompt],
        tiny_model: Path,
        tmp_path: Path,
    ) -> None:
        """Check that a run can be repeated, bit for bit."""
        found = []
        for name in ("one", "other"):
            stage = make_stage(context, tmp_path / name, "improve")
            improve_policy(context, short, guidance, prompts, tiny_model, stage)
            found.append(hash_results(stage.folder))
        assert found[0] == found[1]

    def test_it_resumes_to_the_same_policy(
        self,
        context: Context,
        short: AlgorithmConfig,
        guidance: Guidance,
        prompts: Sequence[Prompt],
        tiny_model: Path,
        tmp_path: Path,
    ) -> None:
        """Check that a run which is killed after its second step goes on from a checkpoint, to the same bits."""
        if short.responds:
            pytest.skip("its config has `responds = True`: it trains nothing")
        whole = make_stage(context, tmp_path / "whole", "improve")
        improve_policy(context, short, guidance, prompts, tiny_model, whole)
        killed = interrupt_after(make_stage(context, tmp_path / "killed", "improve", checkpoint_seconds=0), 2)
        with pytest.raises(Interrupted):
            improve_policy(context, short, guidance, prompts, tiny_model, killed)
        assert resume_step(killed.checkpoint), (
            "it wrote no checkpoint, so an interrupted run starts over; train with "
            "`rlaif_framework.training.train_steps`"
        )
        again = make_stage(context, tmp_path / "killed", "improve", checkpoint_seconds=0)
        improve_policy(context, short, guidance, prompts, tiny_model, again)
        assert hash_results(again.folder) == hash_results(whole.folder), "the resumed run has another result"
        assert read_metrics(again.folder) == read_metrics(whole.folder), "the resumed run has other metrics"


def improve_policy(
    context: Context,
    config: AlgorithmConfig,
    guidance: Guidance,
    prompts: Sequence[Prompt],
    initial: Path,
    stage: Stage,
) -> None:
    """Run an algorithm as a run does."""
    from accelerate.utils import set_seed  # imports torch

    set_seed(stage.seed("start") % 2**32)  # new adapters and heads are drawn from the global stream
    context.build_algorithm(config).improve(initial, guidance, prompts, stage)


def hash_results(folder: Path) -> dict[str, str]:
    """Return the hashes of the weights in a folder, by file."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
