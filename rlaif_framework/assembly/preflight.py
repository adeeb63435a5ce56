"""Check components and data before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.identity import _walk
from rlaif_framework.errors import DataError
from rlaif_framework.models.source import find_model
from rlaif_framework.plugins.component import SLOTS, ComponentConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.spec.model import Spec


def check_components(spec: Spec, context: Context) -> None:
    """Import every component a spec names, so that a missing package is met before anything is computed.

    What they name in the task's annotator prompts must be there, too.
    """
    used: list[ComponentConfig] = [spec.task]
    for arm in spec.arms.values():
        used += [part for part in (arm.reward, arm.algorithm) if part is not None]
        used += [arm.feedback.labeler] if arm.feedback else []
    if spec.evaluate is not None:
        used += [spec.evaluate.judge, *spec.evaluate.labelers.values()]
    for config in used:
        check_component(config, context.manager)
        config.check_prompts(context.task.annotator_prompts())


def check_labeler(where: str, config: ComponentConfig, comparisons: Sequence[Comparison]) -> None:
    """Meet a comparison that a labeler will not be able to label before anything is computed.

    Raises:
        DataError: What it missing_field.
    """
    for comparison in comparisons:
        lack = config.missing_field(comparison)
        if lack is not None:
            raise DataError(f"{where} '{config.kind}': comparison '{comparison.id}' {lack}")


def check_component(config: ComponentConfig, manager: PluginManager) -> None:
    """Import a component and those in its slots."""
    for part in _walk(config):
        for slot in SLOTS:
            if any(component.config is type(part) for component, _ in manager.components(slot)):
                manager.resolve(slot, part)


def check_models(context: Context, names: Iterable[str]) -> None:
    """Check that every model can be found and has a tokenizer, before anything is written.

    Raises:
        ModelError: A model is missing, or its tokenizer is.
    """
    from rlaif_framework.models.gguf import converted_folder
    from rlaif_framework.models.loading import load_tokenizer

    policy = context.policy
    for name in dict.fromkeys(names):
        source = find_model(name, policy.revision if name == policy.model else None)
        if not source.is_gguf or converted_folder(source).exists():  # the first stage converts it
            load_tokenizer(source, needs_end=name == policy.model)
