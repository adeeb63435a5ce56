"""Label pairs from Python, by the code of `rlaif label`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload

from rlaif_framework.api.session import create_progress, load_plugins, quiet_libraries
from rlaif_framework.api.settings import LabelerLike, TaskLike, read_labeler, read_task
from rlaif_framework.api.tables import Column, Table, open_table
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs_file import Inspect, PairsFile, scan_rows
from rlaif_framework.data.row_files import Row
from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.files import cache_folder, locked, user_path
from rlaif_framework.labelling.command import Labels, label_with_each, open_pairs, report_labels
from rlaif_framework.labelling.exports import export_labels
from rlaif_framework.labelling.job import LabelSettings
from rlaif_framework.labelling.loop import LabelRecord, read_record, record_path
from rlaif_framework.labelling.report import write_report
from rlaif_framework.labelling.report_model import LabelReport
from rlaif_framework.labelling.rows import read_labels
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.plugins.manager import PluginManager
from rlaif_framework.progress import Progress
from rlaif_framework.records.jsonl import read_rows
from rlaif_framework.records.preferences import Comparison
from rlaif_framework.spec.loading import load_labelers
from rlaif_framework.spec.model import PublishedConfig

PREFIX = "ai"
"""Beginning of the names of the new columns if there is one labeler, which has no name."""

PAIR = f"{PREFIX}_pair"

Data = TypeVar("Data")


@dataclass(frozen=True)
class Labelled(Generic[Data]):
    """Labelled pairs, and how good their labels are. A notebook shows the report."""

    data: Data
    """The pairs, in the type in which they were given, with new columns: see `label`."""
    report: LabelReport
    """The labeler report."""
    labels: Mapping[str, Path]
    """For each labeler, a file with its labels and their evidence, as `rlaif label` writes it. They are kept in the
    cache folder, so that the same call returns at once or resumes where it was interrupted."""
    _labelers: Mapping[str, LabelerConfig] = field(repr=False)

    def rows(self, labeler: str | None = None) -> list[dict[str, Any]]:
        """Return the labels of a labeler with their evidence, in the order of `data`.

        Args:
            labeler: Its name [default: the only one].
        """
        return [row for _, row in read_rows(self.labels[self._find(labeler)])]

    def export(self, path: str | Path, labeler: str | None = None) -> Path:
        """Write `prompt`, `chosen`, `rejected` and `margin`, as TRL and `datasets` read them.

        Missing labels and ties are left out. Parquet also has the labels' `probability`, and what the pairs have:
        `gold` (the human preference for `chosen`), `confidence`, `slice` and `id`.

        Args:
            path: A file whose name ends in .jsonl or .parquet, or a folder, whose name has no ending, for
                `preferences.parquet` and a dataset card. Files that exist are replaced.
            labeler: Name of the labeler [default: the only one].
        """
        name = self._find(labeler)
        report = dict(zip(self.labels, self.report.labelers.values(), strict=True))[name]
        write = partial(export_labels, labels=self.labels[name], report=report, config=self._labelers[name])
        return _write(path, (".jsonl", ".parquet", ""), write)

    def save_report(self, path: str | Path) -> Path:
        """Write the whole report as an HTML page, and its content as JSON beside it.

        Args:
            path: A file whose name ends in .html; replaced if it exists.
        """
        return _write(path, (".html",), lambda target: write_report(self.report, self.labels, target))

    def _find(self, labeler: str | None) -> str:
        if labeler is None and len(self.labels) == 1:
            return next(iter(self.labels))
        if labeler is None or labeler not in self.labels:
            raise SpecError(f"name one of the labelers: {', '.join(self.labels)}")
        return labeler

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def __repr__(self) -> str:
        return "\n".join(self.report.describe())


@dataclass
class _Places:
    """Where each pair is in the data."""

    table: Table
    indices: list[int] = field(default_factory=list)
    """Index of the row of each pair."""
    pairs: list[PairRow] = field(default_factory=list)
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)
    """Index of each row by its file and number."""

    def note(self, row: Row, pair: PairRow) -> None:
        self.indices.append(self.numbers[row.file, row.number])
        self.pairs.append(pair)

    def rows(self) -> Iterator[Row]:
        for index, row in enumerate(self.table.rows()):
            self.numbers[row.file, row.number] = index
            yield row


class LabelOptions(TypedDict, total=False):
    """The keyword arguments of `label`."""

    compare: Mapping[str, LabelerLike] | str | Path | None
    task: TaskLike | None
    set: Mapping[str, Any] | None
    fields: Mapping[str, str] | None
    skip_invalid: bool
    seed: int
    batch_tokens: int | None
    plugins: Iterable[str | Path]
    trust_local: bool
    verbose: bool


@overload
def label(
    pairs: str | Path | Sequence[Mapping[str, Any]], labeler: LabelerLike | None = None, **options: Unpack[LabelOptions]
) -> Labelled[list[dict[str, Any]]]: ...
@overload
def label(pairs: Data, labeler: LabelerLike | None = None, **options: Unpack[LabelOptions]) -> Labelled[Data]: ...
def label(
    pairs: Any,
    labeler: LabelerLike | None = None,
    *,
    compare: Mapping[str, LabelerLike] | str | Path | None = None,
    task: TaskLike | None = None,
    set: Mapping[str, Any] | None = None,
    fields: Mapping[str, str] | None = None,
    skip_invalid: bool = False,
    seed: int = 0,
    batch_tokens: int | None = None,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    verbose: bool = True,
) -> Labelled[Any]:
    """Label pairs of responses with AI feedback, without training.

    The new columns are `ai_probability`, the probability that the first response of the row is the better one (`chosen`
    in rows with `chosen` and `rejected`), or None without a label, and `ai_preferred`, the text of the preferred
    response, or None if there is none. A row with several responses is repeated for each pair of them, and has
    `ai_pair`, such as `1-3`. With `compare`, the names begin with that of the labeler instead of `ai`.

    Labels are kept in the cache folder: the same call again returns at once, and resumes if it was interrupted.

    Args:
        pairs: A list of mappings, a `datasets.Dataset`, a pandas DataFrame, or the path or hub id of a file that
            `rlaif label` reads. The columns are those that `rlaif label` reads.
        labeler: The labeler: its name, a mapping or a file with its settings, or a config.
        compare: Several labelers to compare instead: by name, or a file that maps names to labelers.
        task: The task whose annotator prompts are used: its name, a mapping or file with its settings, or a config
            [default: by the form of the pairs, `tldr` for summaries, `dialogue`, or `text`].
        set: Values of the labeler's settings to override, by their paths, such as `{"backend.model": "..."}`.
        fields: The column of the pairs for each field whose column has another name.
        skip_invalid: If True, leave invalid rows out instead of refusing them.
        seed: Seed of random orders, exemplars, principles and sampling.
        batch_tokens: Maximum number of tokens per batch of a local model; bounds memory.
        plugins: Python files to load as plugins, and to allow the settings to use, and modules to allow.
        trust_local: Allow all Python code that the settings name to run. Read it first.
        verbose: If False, print nothing.

    Raises:
        RlaifError: Something that the caller can fix. Everything is checked before the first pair is labelled.
    """
    if (labeler is None) == (compare is None):
        raise SpecError("give either labeler, for one labeler, or compare, for several")
    if not isinstance(seed, int) or seed < 0:
        raise SpecError(f"seed is {seed!r}; it must be a whole number from 0")
    manager, progress = load_plugins(plugins, trust_local), create_progress(verbose)
    table = open_table(pairs)
    labelers, published = _read_labelers(labeler, compare, set or {}, manager)
    settings = LabelSettings(
        labelers=labelers,
        published=published,
        task=None if task is None else read_task(task, manager),
        skip_invalid=skip_invalid,
        seed=seed,
        fields=fields or {},
        batch_tokens=batch_tokens,
    )
    _check_columns(table, settings.labelers)
    # Not for labelers without a model: importing transformers takes seconds.
    loads_models = any(config.loads("") for config in settings.labelers.values())
    with quiet_libraries() if loads_models else nullcontext():
        places = _Places(table)
        report, labels = _label_table(settings, places, manager, progress)
    named = dict(zip(labels, settings.labelers.values(), strict=True))  # a single one has its kind as its name
    return Labelled(_add_columns(places, settings.labelers, labels), report, labels, named)


def _read_labelers(
    labeler: LabelerLike | None,
    compare: Mapping[str, LabelerLike] | str | Path | None,
    overrides: Mapping[str, Any],
    manager: PluginManager,
) -> tuple[Mapping[str, LabelerConfig], Sequence[PublishedConfig]]:
    """Read the labelers by name, of which a single one has the empty name, and published results of them."""
    if compare is None:
        return {"": read_labeler(labeler or "", overrides, manager)}, ()
    if overrides:
        raise SpecError("set: give the settings of each labeler in compare")
    if isinstance(compare, str | Path):
        found = load_labelers(Path(compare), (), manager)
        return found.labelers, found.published
    if not isinstance(compare, Mapping) or not compare:
        raise SpecError("compare: give each labeler a name, such as {'mine': 'similarity', 'longer': 'length'}")
    return {name: read_labeler(given, {}, manager) for name, given in compare.items()}, ()


def _label_table(
    settings: LabelSettings, places: _Places, manager: PluginManager, progress: Progress
) -> tuple[LabelReport, dict[str, Path]]:
    """Label the pairs of a table into files of the cache folder, and measure the labels."""

    def scan(inspect: Inspect) -> PairsFile:
        def note(row: Row, pair: PairRow, comparison: Comparison) -> None:
            inspect(row, pair, comparison)
            places.note(row, pair)

        return scan_rows(places.rows(), places.table.name, note, settings.fields, "fields")

    with open_pairs(settings, scan, manager, progress, "skip_invalid=True") as (settings, pairs):
        outputs = {
            name: _place_labels(LabelRecord.create(pairs, config, settings.create_context(manager)).key)
            for name, config in settings.labelers.items()
        }
        titles = {name: name or config.kind for name, config in settings.labelers.items()}
        labels: Labels = {}
        with _lock(outputs.values(), progress):
            for name, record, path in label_with_each(settings, pairs, outputs, manager, progress, titles):
                labels[name] = record, path
            report = report_labels(settings, pairs, labels, progress)
    return report, {name: path for name, (_, path) in labels.items()}


def _place_labels(key: str) -> Path:
    """Return the file for labels with a key, and make room for it if refused comparisons are to be sent again."""
    path = cache_folder() / "labels" / f"{key}.jsonl"
    record = read_record(path)
    if record is not None and record.complete and record.counts.refused:
        record_path(path).unlink()
    return path


@contextmanager
def _lock(outputs: Any, progress: Progress) -> Iterator[None]:
    """Wait for other processes that label the same pairs."""
    with ExitStack() as stack:
        for path in sorted({*outputs}):  # sorted, so that two processes do not wait for each other
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path, "labels the same pairs", progress.print))
        yield


def _check_columns(table: Table, labelers: Mapping[str, LabelerConfig]) -> None:
    taken = sorted({PAIR, *(column for name in labelers for column in _name_columns(name))} & {*table.columns()})
    if taken:
        raise DataError(f"{table.name} has a column '{taken[0]}' already; remove or rename it")


def _name_columns(labeler: str) -> tuple[str, str]:
    return f"{labeler or PREFIX}_probability", f"{labeler or PREFIX}_preferred"


def _add_columns(places: _Places, labelers: Mapping[str, LabelerConfig], labels: Mapping[str, Path]) -> Any:
    columns: dict[str, Column] = {}
    if any(pair.part for pair in places.pairs):
        columns[PAIR] = Column("string", [pair.part or None for pair in places.pairs])
    for name, path in zip(labelers, labels.values(), strict=True):
        found = zip(places.pairs, (preference.probabilities for _, preference in read_labels(path)), strict=True)
        values = [_describe(pair, probabilities) for pair, probabilities in found]
        chance, preferred = _name_columns(name)
        columns[chance] = Column("float64", [probability for probability, _ in values])
        columns[preferred] = Column("string", [text for _, text in values])
    return places.table.select(places.indices, columns)


def _describe(pair: PairRow, probabilities: tuple[float, float] | None) -> tuple[float | None, str | None]:
    """Return the probability of the first response in the order of the row, and the preferred response."""
    if probabilities is None:
        return None, None
    first, second = probabilities
    preferred = None if first == second else pair.raw_responses[0 if first > second else 1]
    return second if pair.reversed else first, preferred


def _write(path: str | Path, suffixes: Sequence[str], write: Any) -> Path:
    target = user_path(str(path))
    if target.suffix not in suffixes:
        more = ", or have no ending for a folder" if "" in suffixes else ""
        raise SpecError(f"{path}: its name must end in {' or '.join(filter(None, suffixes))}{more}")
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target)
    return target
