"""Choose the judge of a spec that names none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from rlaif_framework.assembly.context import Context
from rlaif_framework.errors import MissingPackageError, ModelError, PluginError
from rlaif_framework.plugins.component import ComponentConfig, walk_configs
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.spec.model import DEFAULT_COMPARISONS, DEFAULT_PROMPTS, Spec

DEFAULT_SIZE = (
    f"the evaluation has at most {DEFAULT_PROMPTS} test prompts and {DEFAULT_COMPARISONS} validation comparisons, "
    "because the spec has no 'evaluate'; write 'evaluate: null' for none"
)


def choose_judge(spec: Spec, context: Context) -> tuple[Spec, list[str]]:
    """Choose the judge of a spec that compares policies and names no judge.

    It is the first of the task's `suggested_judges` that no arm learns from, and that has all it needs. A spec that
    does not mention `evaluate` is not evaluated if there are no test prompts.

    Returns:
        The spec with the judge, and sentences about the choice.
    """
    config = spec.evaluate
    if config is None:
        return spec, []
    notes = [] if "evaluate" in spec.model_fields_set else [DEFAULT_SIZE]
    if config.judge is not None or not spec.matchups():
        return spec, notes
    prompts = context.task.prompts("test")
    if not prompts and "evaluate" not in spec.model_fields_set:
        return spec.model_copy(update={"evaluate": None}), ["no evaluation, because the task has no test prompts"]
    reasons: list[str] = []
    for judge, reason in _try_suggested(spec, context, prompts):
        if reason is None:
            evaluate = config.model_copy(update={"judge": judge})
            chosen = f"the judge is {judge.title}, because the spec names none"
            return spec.model_copy(update={"evaluate": evaluate}), [*notes, "; ".join([chosen, *reasons])]
        reasons.append(f"{judge.title} {reason}")
    why = "; ".join(reasons) or "the task suggests none"
    if config.judges:
        found = f"win rates are only by {', '.join(config.judges)}, because no main judge was found: {why}"
        return spec, [*notes, f"{found}; set evaluate.judge"]
    lacking = f"no win rates, because the spec names no judge and none was found: {why}; set evaluate.judge"
    return spec, [*notes, lacking]


def _try_suggested(
    spec: Spec, context: Context, prompts: Sequence[Prompt]
) -> Iterator[tuple[LabelerConfig, str | None]]:
    """Yield the judges that the task suggests, and why they cannot be used; None if they can."""
    learned = {labeler.kind for labeler in _find_labelers(spec)}
    others = spec.evaluate.judges if spec.evaluate is not None else {}
    for suggested in context.task_config.suggested_judges:
        kind = suggested.get("kind")
        if isinstance(kind, str) and kind not in context.manager.names("labeler"):  # of a plugin that is not installed
            continue
        try:
            judge = narrow("labeler", suggested, context.manager)
        except ValueError as error:
            problem = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            raise PluginError(
                f"task '{context.task_config.kind}' suggests a judge that is not valid: {problem}"
            ) from error
        named = next((name for name, other in others.items() if other == judge), None)
        if named is not None:
            yield judge, f"is the judge '{named}'"
        elif judge.kind in learned:
            yield judge, "is the labeler of an arm"
        else:
            yield judge, _describe_lack(judge, context, prompts)


def _find_labelers(spec: Spec) -> Iterator[LabelerConfig]:
    """Yield the labelers that a policy learns from, those inside rewards and algorithms too."""
    parts: list[ComponentConfig] = []
    for arm in spec.arms.values():
        parts += [part for part in (arm.reward, arm.algorithm) if part is not None]
        parts += [arm.feedback.labeler] if arm.feedback is not None else []
    yield from (part for part in walk_configs(parts) if isinstance(part, LabelerConfig))


def _describe_lack(judge: LabelerConfig, context: Context, prompts: Sequence[Prompt]) -> str | None:
    for prompt in prompts:
        if reason := judge.missing_field(Comparison(prompt.id, prompt, ("", ""))):
            return f"cannot judge, because test prompt '{prompt.id}' {reason}"
    try:
        context.manager.resolve("labeler", judge)
        for load in judge.loads(context.policy_model):
            context.find_loaded(load)
    except (MissingPackageError, ModelError) as error:
        return f"cannot judge: {error}"
    return None
