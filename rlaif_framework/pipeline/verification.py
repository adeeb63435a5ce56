"""Check the artefacts of rewards and algorithms before they are committed, since complete artefacts are reused."""

from __future__ import annotations

from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.errors import PluginError, RlaifError
from rlaif_framework.memory import release_memory
from rlaif_framework.models.saved import check_finite, check_saved_model
from rlaif_framework.pipeline.recipes import ImproveRecipe, RewardRecipe
from rlaif_framework.pipeline.steps import Recipe
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.plugins.configs import AlgorithmConfig, RewardConfig, slot_of


def check_artefact(recipe: Recipe, folder: Path, context: Context) -> None:
    """Open what a reward or an algorithm has saved; do nothing for other stages.

    Raises:
        PluginError: It cannot be used, or has weights that are not finite. The message names the component.
    """
    match recipe:
        case ImproveRecipe(algorithm=config) | RewardRecipe(reward=config):
            _check(config, folder, context)


def _check(config: ComponentConfig, folder: Path, context: Context) -> None:
    owner = context.manager.title(slot_of(config), config.kind)
    try:
        check_finite(folder)
        if isinstance(config, AlgorithmConfig) and not config.responds:
            check_saved_model(folder, "causal")
            context.load_policy_tokenizer(folder)
        elif isinstance(config, RewardConfig):
            _check_reward(config, folder, context)
    except RlaifError as error:
        raise PluginError(f"{owner}: what it saved cannot be used: {error}") from error


def _check_reward(config: RewardConfig, folder: Path, context: Context) -> None:
    if config.saves_model:
        check_saved_model(folder, "score")
        context.load_policy_tokenizer(folder)
    elif config.needs_baseline or config.needs_preferences:
        # Its format is its own. A reward that trains nothing saves nothing that could be damaged.
        try:
            context.build_reward(config).load(folder)
        except RlaifError:
            raise
        except Exception as error:  # plugin code may raise anything
            raise PluginError(f"load() failed: {type(error).__name__}: {error}") from error
        finally:
            release_memory()
