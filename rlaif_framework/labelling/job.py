"""The settings of labelling, the arguments of `rlaif label`, and checks of the files that it reads and writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.data.row_files import is_read_with
from rlaif_framework.errors import SpecError
from rlaif_framework.files import check_name
from rlaif_framework.labelling.exports import is_folder, list_files
from rlaif_framework.labelling.loop import read_record, record_path
from rlaif_framework.labelling.wording import GENERAL
from rlaif_framework.plugins.configs import LabelerConfig, TaskConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.report.card_file import CARD, is_edited
from rlaif_framework.spec.model import PublishedConfig


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How pairs are read and labelled."""

    labelers: Mapping[str, LabelerConfig]
    """By name. The name is empty if there is only one labeler."""
    published: Sequence[PublishedConfig] = ()
    """Published results of the labelers, which the report sets beside theirs."""
    task: TaskConfig | None
    """The task whose annotator prompts are used; None to choose it by the form of the pairs."""
    skip_invalid: bool = False
    seed: int = 0
    """Seed of all random choices: orders, exemplars, principles, sampled text, and the choices of a mix."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The column of the pairs for each field whose column has another name."""
    batch_tokens: int | None = None
    """Maximum number of tokens per batch of a local model. Default: the default of a spec's `policy.batch_tokens`."""

    def create_context(self, manager: PluginManager) -> Context:
        """Create the context of one labeler. It has no policy, since nothing is trained."""
        task = self.task or narrow("task", GENERAL, manager)
        return Context(task, None, self.seed, manager, self.batch_tokens)


@dataclass(frozen=True, kw_only=True)
class Job(LabelSettings):
    """The arguments of `rlaif label`."""

    pairs: Path
    """A file, a folder, or a hub data set `owner/name` or `owner/name:split`."""
    out: Path
    report: Path | None = None
    export: Path | None = None
    """A file for a preference data set, or a folder for one with its dataset card."""
    overwrite: bool = False
    """If True, replace files that no earlier run of the same job wrote."""

    @property
    def outputs(self) -> dict[str, Path]:
        """The file of each labeler's labels: `labels.jsonl`, or `labels.NAME.jsonl` if there are several."""
        return {name: self.out.with_stem(f"{self.out.stem}.{name}") if name else self.out for name in self.labelers}

    @property
    def exports_folder(self) -> bool:
        """True if `export` is a folder: its name has no ending."""
        return self.export is not None and is_folder(self.export)

    @property
    def products(self) -> list[tuple[str, Path]]:
        """The files of the report and the preference data set, each with its option."""
        files = [("--report", self.report)] if self.report is not None else []
        if self.export is None:
            return files
        return [*files, *(("--export", path) for path in list_files(self.export))]


def check_paths(job: Job) -> None:
    """Check that no file is written twice, over the pairs, or with the wrong suffix.

    Raises:
        SpecError: An option must be changed.
    """
    if job.export is not None and len(job.labelers) > 1:
        raise SpecError("--export needs a single labeler; find the best one with --compare, then export with --labeler")
    options = [("--out", job.out), *job.products]
    suffixes = {"--out": (".jsonl",), "--report": (".html",), "--export": (".jsonl", ".parquet")}
    for option, path in options:
        if path.suffix not in suffixes[option] and not (option == "--export" and job.exports_folder):
            more = ", or have no ending for a folder" if option == "--export" else ""
            raise SpecError(f"{option} {path}: its name must end in {' or '.join(suffixes[option])}{more}")
    for labels in job.outputs.values():
        options += [("--out", labels.with_suffix(end)) for end in (".parquet", ".meta.json")]
    if job.report is not None:
        options.append(("--report", job.report.with_suffix(".json")))
    # Resolved, since two paths may be links to the same file.
    taken = {os.path.realpath(job.pairs): "the pairs"}
    for option, path in options:
        if path.is_dir():
            raise SpecError(f"{option} {path} is a folder")
        check_name(path)
        target = os.path.realpath(path)
        if target in taken:
            raise SpecError(f"{option} would write {path}, which is {taken[target]}; choose another name")
        if is_read_with(path, job.pairs):
            raise SpecError(
                f"{option} would write {path} into the folder of the pairs, where the next run would read it; choose "
                "another folder"
            )
        taken[target] = f"also written by {option}"


def check_existing(job: Job) -> None:
    """Check that no file would be replaced, except those that an earlier run of the same job wrote.

    Raises:
        SpecError: There is such a file.
    """
    made: set[str] = set()
    for labels in job.outputs.values():
        record = read_record(labels)
        made.update(record.made if record else ())
        for path in (labels, labels.with_suffix(".parquet"), record_path(labels)):
            # Without a record, the file may not be an output of this command.
            if path.exists() and record is None:
                raise _refuse("--out", path, f"and {record_path(labels).name} is not the record of an earlier run")
        # Edited labels: another run would silently discard the changes.
        if labels.exists() and record and record.complete and labels.stat().st_size != record.counts.file_size:
            raise _refuse("--out", labels, "and has been changed since it was written")
    for option, path in job.products:
        if path.exists() and os.path.realpath(path) not in made:
            raise _refuse(option, path, "and was not made by an earlier run with this --out")
        if path.name == CARD and is_edited(path):
            raise _refuse(option, path, "and has been changed since it was written")


def _refuse(option: str, path: Path, why: str) -> SpecError:
    return SpecError(f"{option} {path}: the file already exists, {why}; choose another name, or use --overwrite")
