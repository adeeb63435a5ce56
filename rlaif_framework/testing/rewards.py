"""Tests that every reward must pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Reward, TermedReward
from rlaif_framework.plugins.component import Slot
from rlaif_framework.plugins.configs import RewardConfig
from rlaif_framework.records.preferences import Comparison, LabelledComparison, Prompt
from rlaif_framework.testing.component import ComponentConformance
from rlaif_framework.testing.world import list_responses, make_stage

FITTED = pytest.StashKey[dict[str, Path]]()
"""Folders of fitted rewards by their settings."""


class RewardConformance(ComponentConformance):
    """Tests of a reward."""

    slot: ClassVar[Slot] = "reward"
    tolerance: ClassVar[float] = 1e-5
    """Largest difference between scores that should be equal. A model's scores differ by rounding if batches do."""

    @pytest.fixture
    def labels(self, context: Context) -> Sequence[LabelledComparison]:
        """Labelled comparisons to train on: those of the task, with their gold preferences."""
        return [label_comparison(c) for c in context.task.comparisons("train")]

    @pytest.fixture
    def fitted(
        self,
        context: Context,
        parsed: RewardConfig,
        labels: Sequence[LabelledComparison],
        tiny_model: Path,
        tmp_path_factory: pytest.TempPathFactory,
        request: pytest.FixtureRequest,
    ) -> Path:
        """The folder of the fitted reward, which the tests of a class share: they only read it."""
        node = request.node.getparent(pytest.Class)
        folders: dict[str, Path] = node.stash.setdefault(FITTED, {})
        key = parsed.model_dump_json()
        if key not in folders:
            folders[key] = fit_reward(context, parsed, labels, tiny_model, tmp_path_factory.mktemp("reward"))
        return folders[key]

    @pytest.fixture
    def reward(self, context: Context, parsed: RewardConfig, fitted: Path) -> Reward:
        """The reward, fitted and loaded as in a run."""
        return context.build_reward(parsed).load(fitted)

    @pytest.fixture
    def responses(self, context: Context) -> tuple[list[Prompt], list[str]]:
        """Prompts and one response to each: those of the task, a reference, and an empty, a long and a JSON one."""
        return list_responses(context.task.comparisons("test"))

    def test_every_response_gets_a_finite_score(
        self, reward: Reward, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check the number of scores and their values, also of an empty response."""
        scores = reward.score(*responses)
        assert len(scores) == len(responses[0])
        bad = [text[:40] for text, score in zip(responses[1], scores, strict=True) if not math.isfinite(score)]
        assert not bad, f"the score is not finite for {bad}"
        assert len(set(scores)) > 1, "all responses have the same score"
        assert list(reward.score([], [])) == []

    def test_a_response_gets_the_same_score_alone_and_among_others(
        self, reward: Reward, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check that scores do not depend on the batch or its order."""
        together = reward.score(*responses)
        backwards = reward.score(responses[0][::-1], responses[1][::-1])[::-1]
        assert list(backwards) == pytest.approx(list(together), abs=self.tolerance), "scores depend on the order"
        for prompt, text, score in zip(*responses, together, strict=True):
            assert reward.score([prompt], [text]) == pytest.approx([score], abs=self.tolerance), (
                f"{text[:40]!r} alone and in a batch"
            )

    def test_loaded_again_it_gives_the_same_scores(
        self, context: Context, parsed: RewardConfig, fitted: Path, responses: tuple[list[Prompt], list[str]]
    ) -> None:
        """Check that the folder has everything that scores depend on, and that loading changes nothing in it."""
        one, other = (context.build_reward(parsed).load(fitted).score(*responses) for _ in range(2))
        assert list(one) == list(other)

    def test_the_same_labels_give_the_same_reward(
        self,
        context: Context,
        parsed: RewardConfig,
        labels: Sequence[LabelledComparison],
        reward: Reward,
        responses: tuple[list[Prompt], list[str]],
        tiny_model: Path,
        tmp_path: Path,
    ) -> None:
        """Check that a run can be repeated."""
        if not parsed.needs_preferences:
            pytest.skip("its config has `needs_preferences` False: nothing is trained")
        again = context.build_reward(parsed).load(fit_reward(context, parsed, labels, tiny_model, tmp_path / "again"))
        assert list(again.score(*responses)) == list(reward.score(*responses))

    def test_it_learns_its_labels(
        self, reward: Reward, parsed: RewardConfig, labels: Sequence[LabelledComparison]
    ) -> None:
        """Check that a trained reward prefers the better responses of its training data."""
        if not parsed.needs_preferences:
            pytest.skip("its config has `needs_preferences` False: nothing is trained")
        prompts = [label.comparison.prompt for label in labels for _ in range(2)]
        scores = reward.score(prompts, [text for label in labels for text in label.comparison.responses])
        right = sum(
            (a > b) == (label.probabilities[0] > 0.5)
            for label, a, b in zip(labels, scores[::2], scores[1::2], strict=True)
        )
        assert right > 0.75 * len(labels), (
            f"it is right about {right} of {len(labels)} training comparisons; set a larger learning rate or more "
            "epochs in `config`, as the tests train a tiny model on little data"
        )

    def test_its_terms_add_up(self, reward: Reward, responses: tuple[list[Prompt], list[str]]) -> None:
        """Check that a reward which logs terms logs the ones that it adds."""
        if not isinstance(reward, TermedReward):
            pytest.skip("it has no `score_terms`")
        terms = reward.score_terms(*responses)
        sums = [sum(values) for values in zip(*terms.values(), strict=True)]
        assert sums == pytest.approx(list(reward.score(*responses)), abs=self.tolerance)

    def test_what_it_saves_can_start_a_value_model(self, parsed: RewardConfig, fitted: Path) -> None:
        """Check the folder of a reward that says it saves a score model."""
        if not parsed.saves_model:
            pytest.skip("its config has `saves_model = False`")
        from rlaif_framework.models.saved import check_finite, check_saved_model  # imports torch

        check_finite(fitted)
        check_saved_model(fitted, "score")


def label_comparison(comparison: Comparison) -> LabelledComparison:
    """Label a comparison with its gold preference; one without is a tie."""
    first = 0.5 if comparison.preference is None else comparison.preference
    return LabelledComparison(comparison, (first, 1 - first))


def fit_reward(
    context: Context, config: RewardConfig, labels: Sequence[LabelledComparison], model: Path, folder: Path
) -> Path:
    """Fit a reward as a run does, with labels and a baseline only if its config asks for them; return its folder."""
    context.build_reward(config).fit(
        labels if config.needs_preferences else [],
        model if config.needs_baseline else Path(),
        make_stage(context, folder, "reward"),
    )
    return folder
