"""The command `rlaif try`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.cli.interrupts import end_quietly
from rlaif_framework.cli.options import AsJson, PluginFiles, TrustLocal
from rlaif_framework.cli.printing import print_json
from rlaif_framework.cli.setup import load_plugins
from rlaif_framework.cli.streams import stdout_to_stderr
from rlaif_framework.errors import DataError, RlaifError, SpecError
from rlaif_framework.terminal import escape_controls

if TYPE_CHECKING:
    from rlaif_framework.api.side_by_side import SideBySide, TriedResponse

LARGEST_PROMPT = 2**20
"""Maximum size of a prompt in bytes."""
MIN_WIDTH = 32
"""Minimum width of the column of a policy on a terminal, in characters."""


def try_policies(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    arms: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARM...", help="Arms, and sft for the baseline. [default: sft and all arms]"),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt.")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Text file with the prompt.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send the prompt as it is, without the template of the task.")
    ] = False,
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="Number of responses of each policy.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Sampling temperature; 0 is greedy decoding. [default: 0, or 1 for several samples]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed for sampling. [default: that of the run]", show_default=False)
    ] = None,
    as_json: AsJson = False,
    plugin: PluginFiles = None,
    trust_local: TrustLocal = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run the Python code of models that the spec trusts. Read it first."),
    ] = False,
) -> None:
    """Ask several policies of a run the same prompt, and show their responses with their rewards.

    The prompt is what the task makes one of, such as a post: its template is added as in training.

    Without --prompt and --file, prompts are read from the terminal, one per line, or a single one of several lines from
    a pipe. Ctrl-D ends.
    """
    if prompt is not None and file is not None:
        raise SpecError("give either --prompt or --file")
    heat = temperature if temperature is not None else float(samples > 1)
    with end_quietly():
        texts = _type_prompts() if _is_typed(prompt, file) else iter([_read_prompt(prompt, file)])
        with stdout_to_stderr():
            policies = _load(run, arms or [], plugin, trust_local, trust_remote_code)
        for text in texts:
            try:
                with stdout_to_stderr():
                    found = policies.ask(text, raw=raw, samples=samples, temperature=heat, seed=seed)
            except RlaifError as error:
                if not _is_typed(prompt, file):
                    raise
                print(escape_controls(f"rlaif: {error}"), file=sys.stderr)  # the next prompt may be a better one
                continue
            print_json([asdict(response) for response in found]) if as_json else _print(found)
            for arm, reason in policies.unscored.items():
                print(escape_controls(f"rlaif: the reward of {arm} could not score: {reason}"), file=sys.stderr)


def _load(
    run: Path, arms: list[str], plugin: list[str] | None, trust_local: bool, trust_remote_code: bool
) -> SideBySide:
    from rlaif_framework.api.finished import FinishedRun
    from rlaif_framework.api.side_by_side import SideBySide

    return SideBySide.load(FinishedRun.read(run, load_plugins(plugin, trust_local), trust_remote_code), arms)


def _is_typed(prompt: str | None, file: Path | None) -> bool:
    return prompt is None and file is None and sys.stdin.isatty()


def _type_prompts() -> Iterator[str]:
    """Yield the lines that are typed at the terminal until Ctrl-D."""
    with suppress(ImportError):
        import readline  # noqa: F401  # input() then has a history and line editing

    print("Type a prompt. Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            text = input("prompt> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text.strip():
            yield text


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    from rlaif_framework.files import read_regular

    if prompt is None and file is not None:
        try:
            prompt = read_regular(file, LARGEST_PROMPT).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the prompt in {file}: {error}") from error
    text = sys.stdin.read() if prompt is None else prompt
    if not text.strip():
        raise DataError("the prompt is empty; give one with --prompt, --file or a pipe")
    return text.rstrip("\n")


def _print(found: list[TriedResponse]) -> None:
    """Print responses in a column for each policy on a terminal that is wide enough, else one after another."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    policies: dict[str, list[TriedResponse]] = {}
    for response in found:
        policies.setdefault(response.policy, []).append(response)
    if not console.is_terminal or len(policies) < 2 or console.width < len(policies) * MIN_WIDTH:
        for response in found:
            print(escape_controls(f"--- {_describe(response)}\n{response.text or '(empty)'}\n"))
        return
    table = Table(box=None, padding=(0, 3, 1, 0), show_header=False, expand=True)
    for _ in policies:
        table.add_column(ratio=1)
    for row in zip(*policies.values(), strict=True):
        texts = (f"{_describe(response)}\n\n{response.text or '(empty)'}" for response in row)
        table.add_row(*(Text(escape_controls(text)) for text in texts))
    console.print(table)


def _describe(response: TriedResponse) -> str:
    end = "EOS" if response.finished else "no EOS"
    rewards = [f"reward of {arm} {score:.4g}" for arm, score in response.rewards.items()]
    return f"{response.policy}: {', '.join([f'{response.tokens} tokens', end, *rewards])}"
