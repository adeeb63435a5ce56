"""The `rlaif` command."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_framework.errors import RlaifError, SpecError, describe_missing
from rlaif_framework.memory import keep_freed_memory

if TYPE_CHECKING:
    from rlaif_framework.plugins.manager import PluginManager
    from rlaif_framework.spec.model import Spec

from rlaif_framework.cli.printing import _bytes, _print_comparison, _print_json, _print_table, _size

app = typer.Typer(
    name="rlaif",
    help="Reinforcement learning from AI feedback: label, train a reward model, improve a policy, measure each step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="Spec file: .yaml, .toml or .json.")]


Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one value of the spec; repeatable.")
]


StorePath = Annotated[
    Path | None,
    typer.Option("--store", help="Where artefacts are kept and found [default: $RLAIF_STORE or runs/.store]."),
]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line; what a user can mend is one clear message and exit code 2."""
    try:
        app()
    except RlaifError as error:
        _fail(str(error), 2)
    except SystemExit as stop:
        if stop.code == 130:  # what typer makes of Ctrl-C
            _fail("interrupted; the same command goes on where it stopped", 130)
        raise
    except ModuleNotFoundError as error:
        _fail(describe_missing(error.name or str(error)), 2)
    except OSError as error:
        from rlaif_framework.pipeline.environment import is_disk_full

        place = error.filename or "while writing"
        if is_disk_full(error):
            _fail(f"the disk is full ({place}); free some space and run the same command", 2)
        _fail(f"cannot use {place}: {error.strerror or error}" if error.filename else str(error), 2)


def _fail(message: str, code: int) -> None:
    print(f"rlaif: {message}", file=sys.stderr)
    sys.stderr.flush()
    if os.environ.get("RLAIF_DEBUG") and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    sys.exit(code)


def _load_plugins() -> PluginManager:
    """The components, and a warning for each plugin that offers none because it failed."""
    from rlaif_framework.plugins.manager import PluginManager

    manager = PluginManager.load()
    for plugin in manager.plugins:
        if plugin.error and os.environ.get("LOCAL_RANK", "0") == "0":
            reason = " ".join(plugin.error.split())
            print(f"rlaif: warning: {plugin.title} failed to load: {reason}", file=sys.stderr)
    return manager


def _load(path: Path, overrides: list[str] | None) -> tuple[Spec, PluginManager]:
    from rlaif_framework.spec.loading import load_spec

    manager = _load_plugins()
    return load_spec(path, overrides or (), manager), manager


@app.command()
def run(
    spec: SpecPath,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/<name>-<time>].")] = None,
    store: StorePath = None,
    set_: Overrides = None,
) -> None:
    """Run a spec: labels, reward model, improved policy, and a report."""
    from rich.console import Console

    loaded, manager = _load(spec, set_)
    _prepare_libraries()
    from rlaif_framework.pipeline.engine import run_spec
    from rlaif_framework.pipeline.run_folder import default_folder, default_store
    from rlaif_framework.progress import Progress
    from rlaif_framework.store import Store

    progress = Progress(Console(stderr=False, quiet=os.environ.get("LOCAL_RANK", "0") != "0"))
    folder = out or default_folder(loaded)
    run_spec(loaded, folder, Store(store or default_store()), manager, progress)
    if loaded.evaluate is not None:
        from rlaif_framework.report.run_report import RunReport

        for line in RunReport.read(folder).describe():
            progress.print(line)
        progress.print(f"report: {(folder / 'report.html').resolve()}")


@app.command()
def label(
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="Rows with a prompt and two responses, .jsonl or .jsonl.gz: prompt + responses, prompt + chosen + "
            "rejected, prompt + response_a + response_b (+ label), or chosen + rejected as whole transcripts.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the labels go, .jsonl; a .parquet of the same is put beside it.")],
    labeler: Annotated[
        str | None, typer.Option(metavar="KIND|FILE", help="The labeler: its kind, or a file as a spec's slot has it.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of --labeler: several on the same pairs, name: labeler."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="KIND|FILE",
            help="The task whose words an LLM is asked in: tldr for summaries, dialogue for helpful answers, or a file "
            "such as specs/paper/task-harmless.yaml for harmless ones.",
        ),
    ] = "tldr",
    report: Annotated[
        Path | None, typer.Option(help="Write a report, .html; its numbers are put beside it as .json.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write prompt, chosen, rejected and margin, .jsonl or .parquet.")
    ] = None,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Go on without rows that hold no pair.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of these names that no earlier run of this made.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that is drawn: random orders and exemplars, principles, sampled text.")
    ] = 0,
    batch_tokens: Annotated[
        int | None, typer.Option(min=64, help="Tokens a local model reads in one pass: what bounds memory.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Override one value of the labeler's file; repeatable."),
    ] = None,
) -> None:
    """Label your own pairs of responses; nothing is trained.

    An interrupted run goes on where it stopped if the pairs, the labeler and the task are the same.
    """
    from rich.console import Console

    from rlaif_framework.labelling.job import Job, label_file
    from rlaif_framework.progress import Progress
    from rlaif_framework.spec.loading import load_component, load_labelers

    if (labeler is None) == (compare is None):
        raise SpecError("give either --labeler, for one, or --compare, for several")
    manager = _load_plugins()
    if compare is not None:
        labelers = load_labelers(compare, set_ or (), manager)
    else:
        labelers = {"": load_component("labeler", labeler or "", set_ or (), manager)}
    words = load_component("task", task, (), manager)
    _prepare_libraries()
    job = Job(pairs, labelers, words, out, report, export, skip_invalid, overwrite, seed, batch_tokens)
    found = label_file(job, manager, Progress(Console()))
    if compare is not None:
        _print_comparison(found)


@app.command()
def plan(spec: SpecPath, store: StorePath = None, set_: Overrides = None, as_json: AsJson = False) -> None:
    """List what a run would do: each stage, reused or to do, and the models it will load. Loads none."""
    loaded, manager = _load(spec, set_)
    _prepare_libraries()
    from rlaif_framework.pipeline.planning import missing_steps, plan_spec
    from rlaif_framework.pipeline.run_folder import default_store
    from rlaif_framework.store import Store

    steps = plan_spec(loaded, Store(store or default_store()), manager)
    if as_json:
        _print_json([asdict(step) for step in steps])
        return
    rows = []
    for step in steps:
        loads = [
            f"{x.role}: {x.model} ({_size(x.parameters)} parameters, {_bytes(x.memory_bytes)})" for x in step.loads
        ]
        most = _bytes(step.peak_bytes) if step.loads else "-"
        rows.append((step.name, "cached" if step.cached else "to do", most, loads[0] if loads else "-"))
        rows += [("", "", "", more) for more in loads[1:]]
    _print_table(("stage", "state", "in use, about", "loads"), rows)
    peaks = [step.peak_bytes for step in steps if not step.cached]
    peak = max((size for size in peaks if size is not None), default=0)
    print(f"\n{missing_steps(steps)} of {len(steps)} stages to do", end="")
    among = " of known size" if None in peaks else ""
    print(f"; memory in use by the largest one{among}: about {_bytes(peak)}" if peak else "")


@app.command()
def check(spec: SpecPath, set_: Overrides = None, as_json: AsJson = False) -> None:
    """Validate a spec and print it with every default filled in."""
    loaded, _ = _load(spec, set_)
    if as_json:
        _print_json(loaded.model_dump(mode="json"))
        return
    import yaml

    print(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120), end="")
    print(f"# {spec} is valid", file=sys.stderr)


def _prepare_libraries() -> None:
    keep_freed_memory()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # of a GGUF file's conversion
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers about itself; no user can mend them
