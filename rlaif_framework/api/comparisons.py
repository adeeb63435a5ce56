"""Compare finished runs from Python, by the code of `rlaif compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.files import user_path
from rlaif_framework.pipeline.arm_verdicts import list_arms, read_arm
from rlaif_framework.pipeline.run_folder import RECORD
from rlaif_framework.pipeline.run_record import RunRecord
from rlaif_framework.report.run_comparison import RunComparison, compare_arms


def compare(*runs: str | Path, against: str = "sft", judge: str = "judge") -> RunComparison:
    """Compare finished runs with the first of them, on the test prompts that they share: see docs/runs.md.

    Only the artefacts of the runs are read: neither their data nor their models and plugins are needed.

    Args:
        runs: Two or more run folders, or `FOLDER:ARM` for one arm of a run with several. Folders alone are compared arm
            by arm, by name, if one of the runs has several arms.
        against: The policy that the arms were compared with: `sft`, `reference` or an arm.
        judge: The judge: `judge`, or a name in `evaluate.judges`.

    Raises:
        RlaifError: A folder is not that of a finished run, or the runs cannot be compared.
    """
    if len(runs) < 2:
        raise SpecError("name two runs or more, such as runs/a and runs/b, or runs/a:ARM and runs/a:OTHER")
    named = [_find_arm(str(run)) for run in runs]
    records = {folder: RunRecord.read(folder) for folder, _ in named}
    groups = _match_arms([(records[folder], arm) for folder, arm in named], against)
    return compare_arms([[read_arm(record, arm, against, judge) for record, arm in group] for group in groups], against)


def _find_arm(text: str) -> tuple[Path, str | None]:
    """Split FOLDER:ARM; a folder whose name has a colon is one as well."""
    folder = user_path(text)
    place, colon, arm = text.rpartition(":")
    if colon and not (folder / RECORD).exists():
        return user_path(place), arm
    return folder, None


def _match_arms(runs: Sequence[tuple[RunRecord, str | None]], against: str) -> list[list[tuple[RunRecord, str]]]:
    """Return the arms to compare, one of each run: those that are named, the only ones, or those with equal names."""
    names = [[arm] if arm is not None else [n for n in list_arms(record) if n != against] for record, arm in runs]
    if all(len(own) == 1 for own in names):
        return [[(record, own[0]) for (record, _), own in zip(runs, names, strict=True)]]
    shared = [name for name in names[0] if all(name in own for own in names[1:])]
    if not shared:
        listed = "; ".join(f"{record.folder}: {', '.join(own)}" for (record, _), own in zip(runs, names, strict=True))
        raise DataError(f"the runs have no arm of the same name; name one of each as FOLDER:ARM ({listed})")
    return [[(record, name) for record, _ in runs] for name in shared]
