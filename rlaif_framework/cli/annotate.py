"""The command `rlaif annotate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlaif_framework.cli.options import AnnotatorTask, AsJson, Fields, PluginFiles, SkipInvalid, TrustLocal
from rlaif_framework.cli.printing import print_json
from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.files import user_path
from rlaif_framework.terminal import escape_controls


def annotate(
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS|RUN",
            help="Pairs, in any form that `rlaif label` reads, or the folder of a run, whose matchups are compared.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=user_path,
            metavar="PATH",
            help="File for the answers, an SQLite database. An existing one is continued.",
        ),
    ],
    name: Annotated[str, typer.Option(help="Your name. [default: the page asks for it]", show_default=False)] = "",
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Labels of the pairs that `rlaif label` wrote, to measure their agreement; repeatable."
        ),
    ] = None,
    order: Annotated[
        Literal["random", "uncertain"],
        typer.Option(help="Order of the pairs: random, or those first of which the labeler of --labels is least sure."),
    ] = "random",
    overlap: Annotated[int, typer.Option(min=1, help="Number of people that compare each pair.")] = 1,
    repeat: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pairs that a person compares again in the other order.")
    ] = 0.0,
    gold: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Pairs with known preferences; one in ten pairs is one of them."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of pairs.")] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instructions in Markdown. [default: from --task or the run]"),
    ] = None,
    strength: Annotated[
        bool, typer.Option("--strength", help="Ask how much better a response is, for soft labels.")
    ] = False,
    min_seconds: Annotated[float, typer.Option(min=0, help="Time before a pair can be answered.")] = 0.0,
    show_judge: Annotated[
        bool, typer.Option("--show-judge", help="Show the labeler's opinion after each answer, which is then final.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            parser=user_path, metavar="FILE", help="Write the labels to this file, .jsonl, and serve no page."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files that no earlier --export wrote.")
    ] = False,
    as_json: AsJson = False,
    host: Annotated[str, typer.Option(help="Address to listen on. Others than this machine's own need --token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 for that of the last start, or any free one.")
    ] = 0,
    token: Annotated[
        str | None,
        typer.Option(help="Token of the URL. [default: that of the last start, or random]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random orders.")] = 0,
    task: AnnotatorTask = None,
    fields: Fields = None,
    skip_invalid: SkipInvalid = False,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
) -> None:
    """Compare pairs of responses on a local web page, and measure how well people and labelers agree.

    Ctrl-C ends the command. Every answer is on the disk at once; rerun the same command to go on.
    """
    from rich.console import Console

    from rlaif_framework.annotation.command import AnnotationJob, export_annotation, serve_annotation
    from rlaif_framework.annotation.wording import describe_summary
    from rlaif_framework.data.fields import parse_fields
    from rlaif_framework.progress import Progress
    from rlaif_framework.spec.loading import load_task

    mapping = parse_fields(fields or [])
    progress = Progress(Console(stderr=as_json))
    with stdout_to_stderr():
        manager = load_plugins(plugin, trust_local)
        settings = load_task(task, (), manager) if task else None
    job = AnnotationJob(
        pairs=pairs,
        out=out,
        labels=labels or [],
        gold=gold,
        order=order,
        overlap=overlap,
        repeat=repeat,
        limit=limit,
        seed=seed,
        fields=mapping,
        skip_invalid=skip_invalid,
        name=name,
        instructions=instructions,
        task=settings,
        strength=strength,
        min_seconds=min_seconds,
        show_judge=show_judge,
        host=host,
        port=port,
        token=token,
    )

    def announce(compare: str, follow: str) -> None:
        print(f"compare responses at {escape_controls(compare)}", file=stream)
        print(f"progress, which names the models, at {escape_controls(follow)}", file=stream)
        print("Ctrl-C ends", file=stream, flush=True)

    stream = sys.stderr if as_json else sys.stdout
    if export is not None:
        summary = export_annotation(job, export, overwrite, progress)
    else:
        summary = serve_annotation(job, manager, progress, announce)
    if as_json:
        print_json(asdict(summary))
    else:
        for line in describe_summary(summary):
            print(escape_controls(line))
