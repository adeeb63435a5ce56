"""Export labels as a preference data set: a file, or a folder with a dataset card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rlaif_framework.labelling.report_model import LabelerReport
from rlaif_framework.labelling.rows import read_labels
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.plugins.versions import framework_version
from rlaif_framework.records.preference_set import PREFERENCE_SET, write_preference_set
from rlaif_framework.report.card_file import CARD, save_card
from rlaif_framework.report.dataset_cards import DatasetFacts, describe_dataset
from rlaif_framework.report.findings import list_models


def is_folder(path: Path) -> bool:
    """Return True if an export is a folder: its name has no ending."""
    return path.suffix == ""


def list_files(path: Path) -> list[Path]:
    """Return the files of an export."""
    return [path / name for name in (PREFERENCE_SET, CARD)] if is_folder(path) else [path]


def export_labels(path: Path, labels: Path, report: LabelerReport, config: LabelerConfig) -> tuple[int, int]:
    """Write the labels of one labeler as a preference data set.

    Args:
        path: A file whose name ends in .jsonl or .parquet, or a folder for one with a dataset card; created if missing.
        labels: The file of labels.
        report: The measurements of the labels, and their record.
        config: The labeler.

    Returns:
        The numbers of rows written, and of missing and tied labels left out.
    """
    file = path / PREFERENCE_SET if is_folder(path) else path
    file.parent.mkdir(parents=True, exist_ok=True)
    written, left_out = write_preference_set(file, read_labels(labels))
    if is_folder(path):
        write_label_card(path, report, config, written)
    return written, left_out


def write_label_card(folder: Path, report: LabelerReport, config: LabelerConfig, rows: int) -> None:
    """Write `README.md` beside the preference data set.

    Args:
        folder: The folder of the data set.
        report: The measurements of its labels, and their record.
        config: The labeler.
        rows: The number of rows.
    """
    record, settings = report.record, config.model_dump(mode="json")
    task, copied = record.task["config"], report.copied
    facts = DatasetFacts(
        title=f"Labels of {Path(record.pairs).stem} by {config.kind}",
        provenance=[
            ("labeler", config.title),
            ("models of the labeler", ", ".join(sorted(list_models(settings))) or None),
            ("pairs", record.pairs),
            ("annotator prompts", f"those of task {task['kind']}"),
            ("labels copied from human annotations, which are not measured", copied or None),
            ("seed", record.seed),
            ("made by", f"rlaif-framework {framework_version()}"),
        ],
        counts={**asdict(record.counts), "preferences": rows},
        measured={"these labels": report.quality},
        versions=f"{', '.join(record.labeler['from'])}.",
        settings=("Settings", {"labeler": settings, "task": task, "seed": record.seed}),
    )
    save_card(folder / CARD, describe_dataset(facts))
