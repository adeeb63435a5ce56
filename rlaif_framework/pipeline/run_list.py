"""List the runs and families in a folder, with their states and headline numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.pipeline.run_folder import RECORD
from rlaif_framework.pipeline.run_record import RunRecord, read_family_keys
from rlaif_framework.report.family_report import FAMILY, FamilyMember, FamilyReport


class ListedRun(BaseModel):
    """One run, as `rlaif runs` lists it."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Name of its folder; `FAMILY/MEMBER` for a member of a family."""
    path: Path
    started: datetime | None
    """When it was last started; None for a member that was not."""
    state: str
    """`finished`, `running`, `failed`, `interrupted`, or `not started` for a member of a family."""
    stage: str | None = None
    """The stage where it is or was stopped; None if it is finished."""
    error: str | None = None
    """Why it failed."""
    seconds: float = 0.0
    """The time that its finished stages took, also those that were computed by an earlier run."""
    win_rates: dict[str, Estimate | None] = {}
    """The win rate of each arm's policy against `sft` by the judge, or else the first of `evaluate.judges`; None if no
    verdict could be read."""


class ListedFamily(BaseModel):
    """A family of runs."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    members: list[ListedRun]


class Problem(BaseModel):
    """A folder that cannot be listed, or not completely."""

    model_config = ConfigDict(frozen=True)

    path: Path
    reason: str


class RunList(BaseModel):
    """What is in a folder of runs, oldest first."""

    model_config = ConfigDict(frozen=True)

    runs: list[ListedRun] = []
    families: list[ListedFamily] = []
    problems: list[Problem] = []

    @property
    def rows(self) -> list[ListedRun]:
        """All runs and all members of families, in the order of their start."""
        rows = [*self.runs, *(member for family in self.families for member in family.members)]
        return sorted(rows, key=lambda run: run.started or datetime.max.replace(tzinfo=UTC))


def list_runs(folder: Path) -> RunList:
    """List the runs and families in a folder, or the single one whose folder it is. Hidden folders are left out.

    Raises:
        SpecError: There is no such folder.
    """
    if not folder.is_dir():
        raise SpecError(f"no folder of runs at {folder}; name the folder that has the run folders")
    own = (folder / RECORD).exists() or (folder / FAMILY).exists()
    runs, families, problems = list[ListedRun](), list[ListedFamily](), list[Problem]()
    for path in [folder] if own else sorted(folder.iterdir()):
        if not path.is_dir() or (path.name.startswith(".") and not own):
            continue
        with _collected(problems, path):
            if (path / FAMILY).exists():
                families.append(_list_family(path, problems))
            else:
                runs.append(_list_run(RunRecord.read(path), path.absolute().name, problems))
    return RunList(runs=runs, families=families, problems=problems)


@contextmanager
def _collected(problems: list[Problem], path: Path) -> Iterator[None]:
    """Add the error of this block to the problems."""
    try:
        yield
    except (DataError, OSError) as error:
        problems.append(Problem(path=path, reason=str(error)))


def _list_run(record: RunRecord, name: str, problems: list[Problem]) -> ListedRun:
    path, evaluation = record.folder, None
    with _collected(problems, path):  # all else can be listed
        evaluation = record.read_evaluation()
    state = record.state
    changed = datetime.fromtimestamp((path / RECORD).stat().st_mtime, UTC)
    return ListedRun(
        name=name,
        path=path,
        started=changed if record.status is None else record.status.started,
        state=state,
        stage=record.stage,
        error=record.status.error if record.status is not None and state == "failed" else None,
        seconds=record.seconds,
        win_rates={} if evaluation is None else _find_win_rates(evaluation),
    )


def _find_win_rates(evaluation: Evaluation) -> dict[str, Estimate | None]:
    judge = evaluation.main_judge
    if judge is None:
        return {}
    wins = {name: evaluation.find_win(judge, name, "sft") for name in [*evaluation.arms, "reference"]}
    return {name: win.rate for name, win in wins.items() if win is not None}


def _list_family(path: Path, problems: list[Problem]) -> ListedFamily:
    report = FamilyReport.read(path)
    name = path.absolute().name
    members = list[ListedRun]()
    for member in report.members:
        place = path / member.name
        with _collected(problems, place):
            members.append(_list_member(place, f"{name}/{member.name}", member, read_family_keys(path), problems))
    return ListedFamily(name=name, path=path, members=members)


def _list_member(
    path: Path, name: str, member: FamilyMember, keys: frozenset[str], problems: list[Problem]
) -> ListedRun:
    record = RunRecord.read_member(path, keys)
    if record is not None:
        return _list_run(record, name, problems)
    state = "failed" if member.error is not None else "not started"
    return ListedRun(name=name, path=path, started=None, state=state, error=member.error)
