"""Dataset cards of labels: `README.md` beside `preferences.parquet`, in the form that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from rlaif_framework.metrics.agreement import LabelerQuality, read_quality
from rlaif_framework.records.preference_set import PREFERENCE_SET
from rlaif_framework.records.preferences import PreferenceSource
from rlaif_framework.report.cards import CardFacts, show_settings, write_card
from rlaif_framework.report.findings import list_models
from rlaif_framework.report.markdown import escape, make_table
from rlaif_framework.report.page import percent

SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}
"""The Hub's names of sizes, by the number of rows below which they apply."""

COLUMNS = {
    "prompt": "the prompt as text",
    "chosen": "the response that the label prefers",
    "rejected": "the other response",
    "margin": "log-odds of the chosen response, at most 13.8",
    "probability": "soft label: probability that the chosen response is the better one, by the labeler",
    "gold": "the same by the gold preference of the data; null if it has none",
    "confidence": "confidence of the gold preference, from 0 to 1; may be null",
    "slice": "group of the comparison; may be null",
    "id": "id of the comparison",
}

COUNTS = {
    "comparisons": "comparisons labelled",
    "preferences": "rows: those with a preference",
    "unparsed": "answers that could not be read",
    "inconsistent": "withheld, because the two orders disagree",
    "refused": "refused by the backend",
    "source_truncated": "truncated source",
    "responses_truncated": "truncated response",
}

DOUBTS = frozenset({"chance labels", "not measured", "unreadable", "gold"})
"""The kinds of cautions that concern labels."""

SOURCES = {
    "task": "comparisons of the task",
    "policy": "responses sampled from the policy",
    "both": "comparisons of the task, and responses sampled from the policy",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFacts:
    """What the card of a preference data set states."""

    title: str
    provenance: Sequence[tuple[str, object]]
    """How the labels were made, by part; parts that are None are left out."""
    counts: Mapping[str, object]
    """Counts by the keys of `COUNTS`."""
    measured: Mapping[str, LabelerQuality]
    """Measurements of the labels, by the comparisons that they were made on."""
    limitations: Sequence[str] = ()
    versions: str
    settings: tuple[str, Mapping[str, Any]]
    """A title, and the settings that the labels were made with."""


def write_dataset_cards(folder: Path, facts: CardFacts) -> Iterator[Path]:
    """Write a card beside the labels of each arm, and of its earlier rounds.

    Args:
        folder: The run folder. Links in it are not followed.
        facts: What is known about the run.

    Yields:
        Cards that people have edited, which stay as they are.
    """
    for name in facts.steps:
        arm = name.partition("/")[0]
        if arm in facts.spec["arms"] and name.endswith("/labels"):
            card = describe_dataset(_collect_facts(folder, name, arm, facts))
            yield from write_card(folder, name, PREFERENCE_SET, card)


def _collect_facts(folder: Path, name: str, arm: str, facts: CardFacts) -> DatasetFacts:
    spec, evaluation = facts.spec, facts.evaluation
    feedback, task = spec["arms"][arm]["feedback"], spec["task"]
    labeler, source = evaluation.arms[arm].labeler, feedback["pairs"]["source"]
    held_out = evaluation.labelers[labeler] if labeler is not None else None
    # A copied label agrees with the gold preference by definition.
    copied = feedback["labeler"]["kind"] in get_args(PreferenceSource)
    own = read_quality(folder / name)
    return DatasetFacts(
        title=f"{spec['name']}: labels of {name.removesuffix('/labels')}",
        provenance=[
            ("feedback", feedback["kind"]),
            ("labeler", held_out.title if held_out else feedback["labeler"]["kind"]),
            ("copied", "from the gold preferences of the data" if copied else None),
            ("models of the labeler", ", ".join(sorted(list_models(feedback["labeler"]))) or None),
            ("task", task["kind"]),
            ("prompts", task.get("data")),
            ("comparisons", task.get("comparisons")),
            ("pairs", SOURCES[source]),
            ("policy", None if source == "task" else spec["policy"]["model"]),
            ("seed", spec["seed"]),
            ("made by", f"rlaif-framework {facts.environment.get('rlaif_framework', '')}"),
        ],
        counts=facts.steps[name],
        measured={
            **({"these labels": own} if own else {}),
            **({f"{evaluation.comparisons} held-out comparisons": held_out.quality} if held_out and not copied else {}),
        },
        limitations=[c.text for c in facts.cautions if c.kind in DOUBTS and c.about in (arm, labeler, "")],
        versions=facts.versions,
        settings=("Spec", spec),
    )


def describe_dataset(facts: DatasetFacts) -> Iterator[str]:
    """Yield the lines of a dataset card, in which all texts stay texts."""
    rows = facts.counts.get("preferences")
    sizes = [name for limit, name in SIZES.items() if isinstance(rows, int) and rows < limit]
    metadata = {
        "pretty_name": " ".join(facts.title.split()),
        "size_categories": sizes[:1],
        "tags": ["rlaif", "preferences"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": PREFERENCE_SET}]}],
    }
    yield f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---"
    yield f"\n# {escape(facts.title)}\n"
    yield "Preferences between two responses to a prompt, in the columns that TRL's trainers read.\n"
    yield "## Provenance\n"
    yield from make_table(["part", "value"], [[part, str(x)] for part, x in facts.provenance if x is not None])
    yield "\n## Columns\n"
    yield from make_table(["column", "content"], list(COLUMNS.items()))
    yield "\n## Counts\n\nLabels without a preference, and exact ties, are left out.\n"
    counts = [(text, facts.counts.get(name)) for name, text in COUNTS.items()]
    yield from make_table(["count", "value"], [[text, str(count)] for text, count in counts if count])
    yield from _describe_measurements(facts.measured)
    if facts.limitations:
        yield "\n## Limitations\n"
        yield from (f"- {escape(text)}" for text in facts.limitations)
    yield f"\n## Use\n\nPATH is this folder.\n\n```python\n{USE}\n```\n"
    yield "TRL's reward trainer adds `margin` to its loss; remove the column for the loss without it."
    yield f"\n## Versions\n\n{escape(facts.versions)}\n"
    yield from show_settings(*facts.settings)


USE = """from datasets import load_dataset

dataset = load_dataset("PATH", split="train")"""


def _describe_measurements(measured: Mapping[str, LabelerQuality]) -> Iterator[str]:
    found = list(measured.values())
    slices = sorted({name for quality in found for name in quality.slices})
    estimates = {
        "agreement with gold preferences": [x.agreement for x in found],
        **{f"agreement, {name}": [x.slices.get(name) for x in found] for name in slices},
        "same position preferred in both orders": [x.same_position for x in found],
        "of those, the first position": [x.first_when_same for x in found],
        "probability mass on the label tokens": [x.label_token_mass for x in found],
        "unparsed": [x.unparsed for x in found],
        "refused": [x.refused for x in found],
        "longer response preferred": [x.longer_wins for x in found],
    }
    cells = {name: values for name, values in estimates.items() if any(values)}
    if cells:
        rows = [[name, *map(percent, values)] for name, values in cells.items()]
        sources = ["gold preferences by", *(x.gold_source or "-" for x in found)]
        yield "\n## Measurements\n\nBrackets are 95 % intervals.\n"
        yield from make_table(["metric", *measured], [*rows, *([sources] if any(x.gold_source for x in found) else [])])
