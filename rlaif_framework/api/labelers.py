"""Load a labeler, of a run or by its settings, and ask it which of two responses is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif_framework.api.finished import FinishedRun, find_run
from rlaif_framework.api.inputs import CompletionLike, PromptLike, check_lengths, read_completions, read_prompts
from rlaif_framework.api.session import load_plugins, quiet_libraries
from rlaif_framework.api.settings import LabelerLike, TaskLike, read_labeler, read_task
from rlaif_framework.assembly.context import Context
from rlaif_framework.data.pair_forms import hash_texts
from rlaif_framework.errors import DataError, SpecError, suggest
from rlaif_framework.labelling.loop import read_record
from rlaif_framework.labelling.wording import GENERAL
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.records.preferences import Comparison, Evidence, Preference, Prompt
from rlaif_framework.spec.loading import build_labeler, build_task


class LoadedLabeler:
    """A labeler in memory.

    Attributes:
        config: Its settings.
    """

    def __init__(self, config: LabelerConfig, context: Context) -> None:
        self.config = config
        config.check_prompts(context.task.annotator_prompts())
        with quiet_libraries():
            self._labeler = context.build_labeler(config)

    def prefer(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        responses_a: Sequence[CompletionLike],
        responses_b: Sequence[CompletionLike],
        references: Sequence[str | None] | None = None,
    ) -> list[float]:
        """Return the probability that the first of two responses is the better one, for each prompt.

        It is 0.5 for equal responses, which are not labelled, and NaN if there is no label, e.g. because no answer of a
        language model could be read.

        Args:
            prompts: Texts, lists of messages, or prompts of a task; or one of them, for all responses.
            responses_a: The first responses, as texts or as lists of messages.
            responses_b: The second responses.
            references: A reference response to each prompt, for labelers that compare with it.

        Raises:
            RlaifError: The numbers of prompts and responses differ, or the labeler fails.
        """
        preferences = self.label(prompts, responses_a, responses_b, references)
        found = [p.probabilities for p in preferences]
        return [math.nan if probabilities is None else probabilities[0] for probabilities in found]

    def label(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        responses_a: Sequence[CompletionLike],
        responses_b: Sequence[CompletionLike],
        references: Sequence[str | None] | None = None,
    ) -> list[Preference]:
        """Return the preferences of `prefer` with their evidence, such as the rationales of a language model."""
        first, second = read_completions(responses_a, "response"), read_completions(responses_b, "response")
        given = read_prompts(prompts, references)
        check_lengths(first_responses=first, second_responses=second)
        if len(given) == 1:
            given *= len(first)
        check_lengths(prompts=given, responses=first)
        pairs = [_make_comparison(*texts) for texts in zip(given, first, second, strict=True)]
        for number, pair in enumerate(pairs, 1):
            if (missing := self.config.missing_field(pair)) is not None:
                raise DataError(f"pair {number} {missing}, which labeler '{self.config.kind}' needs")
        # As in the evaluation of a run, equal responses are a tie.
        different = [pair for pair in pairs if pair.responses[0] != pair.responses[1]]
        with quiet_libraries():
            labels = {p.comparison: p for p in (self._labeler.label(different) if different else ())}
        tie = Evidence(self.config.kind)
        return [labels.get(pair.id) or Preference(pair.id, (0.5, 0.5), tie) for pair in pairs]

    def __repr__(self) -> str:
        return f"<labeler {self.config.title}>"


def load_labeler(
    where: LabelerLike,
    arm: str | None = None,
    *,
    task: TaskLike = GENERAL,
    seed: int = 0,
    batch_tokens: int | None = None,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    trust_remote_code: bool = False,
) -> LoadedLabeler:
    """Load a labeler: that of a run, that of labels, or one by its settings.

    Args:
        where: The folder of a run; a `labels.jsonl` of `rlaif label`, whose labeler, task and seed are used; or a
            labeler: its name, a mapping or a file with its settings, or a config.
        arm: Name of the arm, `judge`, or a name in `evaluate.judges` or `evaluate.labelers` [default: the only arm].
            Only for the folder of a run.
        task: The task whose annotator prompts are used: its name, a mapping or file with its settings, or a config.
            Only for a labeler by its settings.
        seed: Seed of random orders, exemplars, principles and sampling. Only for a labeler by its settings.
        batch_tokens: Maximum number of tokens per batch of a local model.
        plugins: Python files to load as plugins, and to allow the settings to use, and modules to allow.
        trust_local: Allow all Python code that the settings name to run. Read it first.
        trust_remote_code: Accept a spec of a run that lets models run their own code.

    Raises:
        RlaifError: There is no such labeler, or its settings are not valid.
    """
    manager = load_plugins(plugins, trust_local)
    if isinstance(where, str | Path):
        if (found := find_run(where, "labels")) is not None:
            run = FinishedRun.read(found[0], manager, trust_remote_code)
            return load_run_labeler(run, found[1] if arm is None else arm)
        if str(where).endswith(".jsonl"):
            return _load_recorded(Path(where), manager, batch_tokens)
    if arm is not None:
        raise SpecError(f"{where} is not the folder of a run, so it has no arm '{arm}'")
    config = read_labeler(where, {}, manager)
    return LoadedLabeler(config, Context(read_task(task, manager), None, seed, manager, batch_tokens))


def load_run_labeler(run: FinishedRun, name: str | None) -> LoadedLabeler:
    """Load the labeler of an arm, a judge, or another measured labeler."""
    labelers: dict[str, LabelerConfig] = {
        arm: settings.feedback.labeler for arm, settings in run.spec.arms.items() if settings.feedback is not None
    }
    if name is None:
        name = run.choose_arm(None)
    if (evaluate := run.spec.evaluate) is not None:
        labelers |= {**evaluate.named_judges(), **evaluate.labelers}
    if name not in labelers:
        raise SpecError(f"{run.folder} has no labeler named '{name}'; {suggest(name, labelers)}")
    return LoadedLabeler(labelers[name], run.create_context())


def _load_recorded(labels: Path, manager: PluginManager, batch_tokens: int | None) -> LoadedLabeler:
    """Load the labeler that the record beside labels names."""
    record = read_record(labels)
    if record is None:
        raise SpecError(f"{labels} has no record beside it, as labels of `rlaif label` have")
    config = build_labeler(_read_config(record.labeler), f"the labeler of {labels}", manager)
    task = build_task(_read_config(record.task), f"the task of {labels}", manager)
    return LoadedLabeler(config, Context(task, None, record.seed, manager, batch_tokens))


def _read_config(described: Mapping[str, Any]) -> Mapping[str, Any]:
    found = described.get("config")
    return found if isinstance(found, Mapping) else {}


def _make_comparison(prompt: Prompt, first: str, second: str) -> Comparison:
    raw, responses = (first, second), (first.strip(), second.strip())
    pair_id = hash_texts(prompt.text, *responses)
    return Comparison(pair_id, prompt, responses, raw_responses=None if raw == responses else raw)
