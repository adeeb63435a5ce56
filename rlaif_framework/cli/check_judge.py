"""The command `rlaif check-judge`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from rlaif_framework.cli.options import (
    AnnotatorTask,
    AsJson,
    BatchTokens,
    Fields,
    LabelerOverrides,
    LabelSeed,
    PluginFiles,
    SkipInvalid,
    TrustLocal,
)
from rlaif_framework.cli.printing import print_json, print_table
from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.files import locked, user_path
from rlaif_framework.terminal import escape_controls


def check_judge(
    labeler: Annotated[str, typer.Argument(metavar="LABELER", help="Name of a labeler, or a file with its settings.")],
    pairs: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Pairs, in any form that `rlaif label` reads, with or without human preferences.",
            show_default=False,
        ),
    ],
    probes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Probes: position, length, verbosity, format, authority, verdict, self, own. [default: all]",
            show_default=False,
        ),
    ] = None,
    own: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name of the labeler's model, for the probes `self` and `own`. The latter looks for it in the columns "
            "model_a and model_b, or chosen_model and rejected_model.",
            show_default=False,
        ),
    ] = "",
    tolerance: Annotated[
        float, typer.Option(metavar="POINTS", help="Largest change of the win rate that is accepted, in points.")
    ] = 5.0,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of prompts, sampled with the seed.")] = 200,
    slice_: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="COLUMN",
            help="Column by which results are sliced. [default: slice]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=user_path, metavar="FILE", help="File for all results, .json.")
    ] = None,
    as_json: AsJson = False,
    task: AnnotatorTask = None,
    fields: Fields = None,
    skip_invalid: SkipInvalid = False,
    seed: LabelSeed = 0,
    batch_tokens: BatchTokens = None,
    set_: LabelerOverrides = None,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """Check whether a labeler can be trusted as a judge.

    Responses are changed in ways that make them no better, such as padding, and the change of their win rate is
    measured. The exit code is 0 if no bias beyond the tolerance was found, 1 if one was, and 2 after an error.
    """
    from rlaif_framework.data.fields import parse_fields
    from rlaif_framework.data.pairs_file import scan_pairs
    from rlaif_framework.labelling import check_judge as checking
    from rlaif_framework.labelling.judge_report import check_out, write_check
    from rlaif_framework.progress import Progress
    from rlaif_framework.spec.loading import load_labeler, load_task

    if out is not None:
        check_out(out, pairs)
    mapping = parse_fields(fields or [])
    with stdout_to_stderr():
        manager = load_plugins(plugin, trust_local)
        settings = checking.CheckSettings(
            labelers={"": load_labeler(labeler, set_ or [], manager)},
            task=load_task(task, (), manager) if task else None,
            skip_invalid=skip_invalid,
            seed=seed,
            fields=mapping,
            batch_tokens=batch_tokens,
            probes=[name.strip() for name in (probes or "").split(",") if name.strip()],
            slice_column=slice_,
            own=own,
            limit=limit,
            tolerance=tolerance,
        )
        progress = Progress.create(stderr=True)
        with locked(out, f"writes {out}") if out is not None else nullcontext():
            found = checking.check_judge(
                settings, lambda inspect: scan_pairs(pairs, inspect, mapping), manager, progress
            )
            if out is not None:
                write_check(found, out)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        for head, rows in found.tables():
            print_table(head, rows)
            print()
        for line in found.describe():
            print(escape_controls(line))
    raise typer.Exit(1 if found.biases else 0)
