"""The dataset card of labels that `rlaif label` exports into a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rlaif_framework.files import write_atomic
from rlaif_framework.labelling.report_model import LabelerReport
from rlaif_framework.plugins.configs import LabelerConfig
from rlaif_framework.plugins.versions import framework_version
from rlaif_framework.report.cards import CARD
from rlaif_framework.report.dataset_cards import DatasetFacts, describe_dataset
from rlaif_framework.report.findings import list_models


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
    write_atomic(folder / CARD, "\n".join(describe_dataset(facts)) + "\n")
