"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlaif_framework.errors import SpecError
from rlaif_framework.files import user_path

SpecFile = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC", help="Spec file: .yaml, .toml or .json, or package:NAME/PATH for one in an installed package."
    ),
]

MoreFiles = Annotated[
    list[str] | None,
    typer.Option("-f", "--file", metavar="FILE", help="Spec file to merge on top of SPEC; repeatable, in order."),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one value of the spec, or all that a path with * matches; repeatable.",
    ),
]

Unset = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="PATH", help="Remove a key of the spec, such as arms.rlaif; repeatable."),
]

MemberName = Annotated[
    str | None,
    typer.Option("--member", metavar="NAME", help="Only this member of a spec with seeds or matrix."),
]

StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        parser=user_path,
        metavar="PATH",
        help="Folder of the artefact store [default: $RLAIF_STORE or runs/.store].",
    ),
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the final path and errors.")]

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print also where results are stored, and what was counted and used.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

PluginFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file to load as a plugin, and to allow a spec to use; or a module to allow; repeatable.",
    ),
]

TrustLocal = Annotated[
    bool, typer.Option("--trust-local", help="Allow all Python code that the spec names to run. Read it first.")
]

AnnotatorTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="KIND|FILE",
        help="Task whose annotator prompts are used: text for responses of any kind, tldr for summaries, dialogue "
        "for helpful answers, or a file such as specs/paper/task-harmless.yaml for harmless answers. [default: by "
        "the form of the pairs]",
        show_default=False,
    ),
]

Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--fields",
        metavar="NAME=COLUMN,...",
        help="Columns with other names, such as prompt=instruction,response_a=output1.",
    ),
]

SkipInvalid = Annotated[bool, typer.Option("--skip-invalid", help="Skip invalid rows.")]

LabelSeed = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of random orders, exemplars, principles and sampling.")
]

BatchTokens = Annotated[
    int | None,
    typer.Option("--batch-tokens", min=64, help="Maximum number of tokens per batch of a local model; bounds memory."),
]

LabelerOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override one value of the labeler's settings; repeatable."),
]


def check_verbosity(quiet: bool, verbose: bool) -> None:
    """Refuse two options that contradict each other.

    Raises:
        SpecError: Both are given.
    """
    if quiet and verbose:
        raise SpecError("give either --quiet or --verbose")
