"""Check a judge from Python, by the code of `rlaif check-judge`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rlaif_framework.api.session import create_progress, load_plugins, quiet_libraries
from rlaif_framework.api.settings import LabelerLike, TaskLike, read_labeler, read_task
from rlaif_framework.api.tables import open_table
from rlaif_framework.data.pairs_file import Inspect, PairsFile, scan_rows
from rlaif_framework.labelling import check_judge as checking
from rlaif_framework.labelling.judge_report import JudgeCheck


def check_judge(
    labeler: LabelerLike,
    pairs: Any,
    *,
    probes: Sequence[str] = (),
    own: str = "",
    tolerance: float = 5.0,
    limit: int = 200,
    slice_column: str | None = None,
    task: TaskLike | None = None,
    set: Mapping[str, Any] | None = None,
    fields: Mapping[str, str] | None = None,
    skip_invalid: bool = False,
    seed: int = 0,
    batch_tokens: int | None = None,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    verbose: bool = True,
) -> JudgeCheck:
    """Check whether a labeler can be trusted as a judge: see docs/check-judge.md.

    Args:
        labeler: The labeler: its name, a mapping or a file with its settings, or a config.
        pairs: A list of mappings, a `datasets.Dataset`, a pandas DataFrame, or the path or hub id of a file that
            `rlaif label` reads, with or without human preferences.
        probes: Names of the probes [default: all].
        own: Name of the labeler's model, for the probes `self` and `own`.
        tolerance: Largest change of the win rate that is accepted, in points.
        limit: Maximum number of prompts, sampled with the seed.
        slice_column: Column by which results are sliced [default: `slice`].
        task: The task whose annotator prompts are used: its name, a mapping or file with its settings, or a config
            [default: by the form of the pairs].
        set: Values of the labeler's settings to override, by their paths, such as `{"backend.model": "..."}`.
        fields: The column of the pairs for each field whose column has another name.
        skip_invalid: If True, leave invalid rows out instead of refusing them.
        seed: Seed of the sample of prompts, random orders, exemplars, principles and sampling.
        batch_tokens: Maximum number of tokens per batch of a local model; bounds memory.
        plugins: Python files to load as plugins, and to allow the settings to use, and modules to allow.
        trust_local: Allow all Python code that the settings name to run. Read it first.
        verbose: If False, print nothing.

    Raises:
        RlaifError: Something that the caller can fix. Everything is checked before the first pair is labelled.
    """
    manager, table = load_plugins(plugins, trust_local), open_table(pairs)
    settings = checking.CheckSettings(
        labelers={"": read_labeler(labeler, set or {}, manager)},
        task=None if task is None else read_task(task, manager),
        skip_invalid=skip_invalid,
        seed=seed,
        fields=fields or {},
        batch_tokens=batch_tokens,
        probes=probes,
        slice_column=slice_column,
        own=own,
        limit=limit,
        tolerance=tolerance,
    )

    def scan(inspect: Inspect) -> PairsFile:
        return scan_rows(table.rows(), table.name, inspect, settings.fields, "fields")

    # Not for a labeler without a model: importing transformers takes seconds.
    with quiet_libraries() if settings.labelers[""].loads("") else nullcontext():
        return checking.check_judge(settings, scan, manager, create_progress(verbose), "skip_invalid=True")
