"""Dataset cards say what was labelled, how, and how good the labels are; `datasets` loads the rows beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from rlaif_framework.metrics.agreement import QUALITY
from rlaif_framework.metrics.evaluation import Evaluation
from rlaif_framework.records.preference_set import PREFERENCE_SET, PreferenceRow
from rlaif_framework.report.card_file import CARD
from rlaif_framework.report.run_report import RunReport, StepReport
from support.evaluations import EVALUATION, SPEC
from support.runs import run_rows

HOSTILE = "name\n---\n# not a heading <script>x</script>"
FACTS: dict[str, float | int | str] = {"comparisons": 1500, "preferences": 1400, "unparsed": 90, "refused": 0}


def write_report(
    folder: Path, name: str = "demo", data: str = "mini", step: str = "rlaif/labels", kind: str = "similarity"
) -> None:
    labeler = {"kind": kind, "model": "package:mini"}
    feedback = {"kind": "ai", "labeler": labeler, "pairs": {"source": "both"}}
    spec = {**SPEC, "name": name, "task": {"kind": "tldr", "data": data}, "arms": {"rlaif": {"feedback": feedback}}}
    steps = [StepReport(name=step, reused=False, seconds=1.0, peak_memory_bytes=1, facts=FACTS)]
    evaluation = Evaluation.model_validate(EVALUATION)
    RunReport.build(spec, evaluation, steps, {"rlaif_framework": "1.2"}).write(folder)


def make_labels(folder: Path, step: str = "rlaif/labels") -> Path:
    """The folder of labels, with files that are only looked for."""
    place = folder / step
    place.mkdir(parents=True)
    for name in ("artefact.json", PREFERENCE_SET):
        (place / name).write_text("{}")
    return place


def test_the_labels_of_a_run_are_loaded_with_their_texts(run_folder: Path, tmp_path: Path) -> None:
    folder = run_folder / "rlaif/labels"
    dataset = load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    labels = {row["comparison"]: row["probabilities"] for row in run_rows(folder / "preferences.jsonl")}
    pairs = {row["id"]: row for row in run_rows(run_folder / "rlaif/pairs/comparisons.jsonl")}
    assert {row["id"] for row in dataset} == {name for name, p in labels.items() if p and p[0] != p[1]}
    assert dataset.column_names == list(PreferenceRow.__annotations__)
    for row in dataset:
        pair, label = pairs[row["id"]], labels[row["id"]]
        best = label.index(max(label))
        assert row["prompt"] == pair["prompt"]["text"]
        assert [row["chosen"], row["rejected"]] == [pair["responses"][best], pair["responses"][1 - best]]
        assert row["probability"] == label[best]
        gold = pair["preference"]
        assert row["gold"] == (None if gold is None else [gold, 1 - gold][best])
    assert {row["gold"] for row in dataset} == {None, 0.0, 1.0}, "sampled pairs have no gold preference, others do"


def test_the_card_of_a_run_states_what_was_measured_on_its_labels(run_folder: Path) -> None:
    folder = run_folder / "rlaif/labels"
    card = DatasetCard.load(folder / CARD)
    facts = json.loads((folder / "artefact.json").read_text())["facts"]
    assert card.data.pretty_name == "tiny: labels of rlaif"
    assert card.data.size_categories == ["n<1K"]
    assert "| task | tldr |" in card.text
    assert "| labeler | test/taste |" in card.text
    assert "| seed | 3 |" in card.text
    assert f"| comparisons labelled | {facts['comparisons']} |" in card.text
    assert f"| rows: those with a preference | {pq.read_metadata(folder / PREFERENCE_SET).num_rows} |" in card.text
    agreement = json.loads((folder / QUALITY).read_text())["agreement"]
    row = next(line for line in card.text.splitlines() if line.startswith("| agreement with gold preferences"))
    assert f"| {100 * agreement['value']:.1f} % " in row
    assert f"n={agreement['count']} on " in row
    assert [name for name in PreferenceRow.__annotations__ if f"| {name} |" not in card.text] == []


@pytest.mark.parametrize("step", ["rlaif/labels", "rlaif/round-1/labels"])
def test_a_card_has_provenance_and_held_out_quality(tmp_path: Path, step: str) -> None:
    place = make_labels(tmp_path, step)
    write_report(tmp_path, data="owner/posts", step=step)
    card = DatasetCard.load(place / CARD)
    assert card.data.size_categories == ["1K<n<10K"]
    assert "| models of the labeler | package:mini |" in card.text
    assert "| prompts | owner/posts |" in card.text
    assert "| policy | m |" in card.text
    assert "| answers that could not be read | 90 |" in card.text
    assert "refused by the backend" not in card.text
    assert "| metric | 50 held-out comparisons |" in card.text, "without quality.json, only these were measured"
    assert "| agreement with gold preferences | 72.0 % \\[67, 77\\] n=50 |" in card.text


def test_copied_labels_are_not_said_to_agree_with_themselves(tmp_path: Path) -> None:
    place = make_labels(tmp_path)
    write_report(tmp_path, kind="human")
    card = DatasetCard.load(place / CARD)
    assert "| copied | from the gold preferences of the data |" in card.text
    assert "agreement with gold preferences" not in card.text


def test_texts_of_the_spec_stay_texts_in_a_dataset_card(tmp_path: Path) -> None:
    place = make_labels(tmp_path)
    write_report(tmp_path, name=HOSTILE, data="| a | <b>\n## c")
    card = DatasetCard.load(place / CARD)
    assert card.data.pretty_name == "name --- # not a heading <script>x</script>: labels of rlaif"
    headings = [line for line in card.text.splitlines() if line.startswith("# ")]
    assert headings == ["# name --- \\# not a heading \\<script\\>x\\</script\\>: labels of rlaif"]
    assert "| prompts | \\| a \\| \\<b\\> \\#\\# c |" in card.text


def test_a_linked_folder_of_labels_has_no_card(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = make_labels(tmp_path_factory.mktemp("outside"))
    (tmp_path / "rlaif").mkdir()
    (tmp_path / "rlaif/labels").symlink_to(outside)
    write_report(tmp_path)
    assert not (outside / CARD).exists()


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_damaged_measurements_are_left_out(tmp_path: Path, text: str | None) -> None:
    place = make_labels(tmp_path)
    if text is None:
        (place / QUALITY).mkdir()
    else:
        (place / QUALITY).write_text(text)
    write_report(tmp_path)
    assert "these labels" not in DatasetCard.load(place / CARD).text
