"""The command `rlaif label`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.options import (
    AnnotatorTask,
    BatchTokens,
    Fields,
    LabelerOverrides,
    LabelSeed,
    PluginFiles,
    Quiet,
    SkipInvalid,
    TrustLocal,
    Verbose,
    check_verbosity,
)
from rlaif_framework.cli.printing import print_comparison
from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.errors import SpecError
from rlaif_framework.files import user_path
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.plugins.configs import LabelerConfig
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.spec.model import PublishedConfig


def label(
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="Pairs: a file (.jsonl, .json, .csv, .parquet; text may be .gz), a folder, or a hub data set "
            "OWNER/NAME or OWNER/NAME:SPLIT. A row has prompt + responses, prompt + chosen + rejected, "
            "prompt + response_a + response_b (+ label), chosen + rejected as whole dialogues, or another form of "
            "published data.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=user_path, metavar="PATH", help="File for the labels, .jsonl; a .parquet copy is written beside it."
        ),
    ],
    labeler: Annotated[
        str | None, typer.Option(metavar="KIND|FILE", help="Name of a labeler, or a file with its settings.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare several labelers: a file that maps names to labelers."),
    ] = None,
    task: AnnotatorTask = None,
    report: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            metavar="PATH",
            help="File for a report, .html; its numbers are written beside it as .json.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            metavar="PATH",
            help="File for prompt, chosen, rejected and margin, .jsonl or .parquet; or a folder for a Parquet file "
            "and its dataset card.",
        ),
    ] = None,
    fields: Fields = None,
    skip_invalid: SkipInvalid = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files that no earlier run of this command wrote.")
    ] = False,
    seed: LabelSeed = 0,
    batch_tokens: BatchTokens = None,
    set_: LabelerOverrides = None,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Label your own pairs of responses, without training.

    Rerun the same command to resume an interrupted run. It starts over if the pairs, the labeler or the task changed.
    """
    # Imported here, like all larger modules in `cli`, so that `rlaif --help` is fast.
    from rlaif_framework.data.fields import parse_fields
    from rlaif_framework.labelling.command import label_file
    from rlaif_framework.labelling.job import Job
    from rlaif_framework.progress import Progress
    from rlaif_framework.spec.loading import load_task

    check_verbosity(quiet, verbose)
    if (labeler is None) == (compare is None):
        raise SpecError("give either --labeler, for one labeler, or --compare, for several")
    manager = load_plugins(plugin, trust_local)
    labelers, published = _load_labelers(labeler, compare, set_ or [], manager)
    settings = load_task(task, (), manager) if task else None  # `--set` applies to the labelers only
    mapping = parse_fields(fields or [])
    job = Job(
        pairs=pairs,
        labelers=labelers,
        published=published,
        task=settings,
        out=out,
        report=report,
        export=export,
        skip_invalid=skip_invalid,
        overwrite=overwrite,
        seed=seed,
        fields=mapping,
        batch_tokens=batch_tokens,
    )
    found = label_file(job, manager, Progress.create(quiet, verbose))
    if quiet:
        for path in job.outputs.values():
            print(escape_controls(str(path)))
    elif compare is not None:
        print_comparison(found)


def _load_labelers(
    labeler: str | None, compare: Path | None, overrides: list[str], manager: PluginManager
) -> tuple[Mapping[str, LabelerConfig], Sequence[PublishedConfig]]:
    """Load the labelers by name, of which a single one has the empty name, and published results of them."""
    from rlaif_framework.spec.loading import load_labeler, load_labelers

    if compare is not None:
        found = load_labelers(compare, overrides, manager)
        return found.labelers, found.published
    return {"": load_labeler(labeler or "", overrides, manager)}, ()
