"""Check components and data before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import DescribedData
from rlaif_framework.errors import DataError, ModelError
from rlaif_framework.models.source import ModelSource
from rlaif_framework.plugins.component import ComponentConfig, ModelLoad, outermost_configs, walk_configs
from rlaif_framework.plugins.configs import LabelerConfig, RewardConfig, slot_of
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.spec.model import Spec


def check_components(spec: Spec, context: Context) -> None:
    """Import every component of a spec, and check that the task has the annotator prompts they refer to.

    Raises:
        MissingPackageError: A package that a component needs is not installed.
        PluginError: A component cannot be imported.
        DataError: The annotator prompts lack something.
    """
    # The components in the slots of these are checked with them.
    used: list[ComponentConfig] = [spec.task]
    for arm in spec.arms.values():
        used += [part for part in (arm.reward, arm.algorithm) if part is not None]
        used += [arm.feedback.labeler] if arm.feedback else []
    if spec.evaluate is not None:
        used += [spec.evaluate.judge, *spec.evaluate.judges.values(), *spec.evaluate.labelers.values()]
        used += spec.evaluate.metrics
    for tracker in spec.trackers:
        check_component(tracker, context)
    for config in used:
        check_component(config, context)
        check_prompts(config, context)


def describe_data(context: Context) -> list[str]:
    """Return sentences about rows of the task's data that were left out; empty if the task does not describe them."""
    task = context.task
    return [f"data: {note}" for note in task.data_notes()] if isinstance(task, DescribedData) else []


def check_component(config: ComponentConfig, context: Context) -> None:
    """Import a component and those in its slots, and create those that call functions of the user's own."""
    for part in walk_configs([config]):
        target = context.manager.resolve(slot_of(part), part)
        if part.own_code:  # they look for their functions
            target(part, context)


def check_prompts(config: ComponentConfig, context: Context) -> None:
    """Check that the task has the annotator prompts that a component's labelers refer to.

    Raises:
        DataError: Something is missing.
    """
    for labeler in outermost_configs([config], LabelerConfig):
        labeler.check_prompts(context.task.annotator_prompts())


def check_labeler(where: str, config: ComponentConfig, comparisons: Sequence[Comparison]) -> None:
    """Check that a labeler, or the labelers and rewards inside another component, can be used on comparisons.

    Raises:
        DataError: A comparison lacks something that one of them needs.
    """
    parts: list[LabelerConfig | RewardConfig] = [*outermost_configs([config], LabelerConfig)]
    parts += [part for part in walk_configs([config]) if isinstance(part, RewardConfig)]
    for comparison in comparisons:
        for part in parts:
            reason = part.missing_field(comparison)
            if reason is not None:
                raise DataError(f"{where} '{config.kind}': comparison '{comparison.id}' {reason}")


def check_models(context: Context, loads: Iterable[ModelLoad]) -> None:
    """Check that every model can be found and has a tokenizer, before anything is written.

    Raises:
        ModelError: A model or its tokenizer is missing.
        HubError: A model is not in the local cache, and the hub cannot be reached or has no such model.
    """
    from rlaif_framework.models.gguf import converted_folder
    from rlaif_framework.models.loading import load_tokenizer

    for source in dict.fromkeys(context.find_loaded(load) for load in loads):  # each once, in order
        if not source.is_gguf or converted_folder(source).exists():  # otherwise the first stage converts it
            if source.name == context.policy.model:
                context.load_policy_tokenizer(source)
            else:
                load_tokenizer(source, needs_end=False)


SCORE_ROLES = ("reward", "reward model", "value model")
GENERATING_ROLES = ("policy",)
CAUSAL_ROLES = ("policy", "KL reference", "backend", "likelihood")


def check_architectures(context: Context, loads: Iterable[ModelLoad]) -> None:
    """Check that models can do what they are used for, before anything is computed.

    A small random copy of each architecture is tried, and the policy's lengths are compared with its positions.

    Raises:
        ModelError: An architecture cannot be used in a role, or has too few positions.
    """
    from rlaif_framework.models.positions import check_length
    from rlaif_framework.models.probe import check_head, check_trainable, find_layout

    policy = context.policy
    parts = [(load.model, load.role, load.trained, context.find_loaded(load)) for load in loads]
    for model, role, trained, source in dict.fromkeys(parts):
        config = _load_config(source)
        if config is None:
            continue
        if trained:
            check_trainable(config, model)
        if role in CAUSAL_ROLES:
            layout = find_layout(config, "causal", model)
            if role in GENERATING_ROLES and layout.generation == "none":
                raise ModelError(f"'{model}': models of type '{config.model_type}' cannot generate; use another policy")
        elif role in SCORE_ROLES and trained:
            check_head(config, model)
            find_layout(config, "score", model)
        if model == policy.model and role != "backend":
            length = policy.max_prompt_tokens + policy.max_new_tokens
            what = "policy: a prompt of max_prompt_tokens with max_new_tokens"
            check_length(config, length, what, "lower max_prompt_tokens or max_new_tokens")


def _load_config(source: ModelSource) -> Any:
    """Load a model's config; None if it is a GGUF file that has not been converted."""
    from rlaif_framework.models.gguf import converted_folder
    from rlaif_framework.models.loading import load_config

    if source.is_gguf and not converted_folder(source).exists():
        return None
    return load_config(source)
