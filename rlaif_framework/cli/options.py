"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="Spec file: .yaml, .toml or .json.")]

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one value of the spec; repeatable.")
]

StorePath = Annotated[
    Path | None, typer.Option("--store", help="Folder of the artefact store [default: $RLAIF_STORE or runs/.store].")
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
