"""A run changes in its folder only what runs wrote there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlaif_framework import Spec, SpecError
from rlaif_framework.pipeline.run_folder import check_folder, open_folder, place_artefact
from rlaif_framework.report.card_file import CARD, save_card
from rlaif_framework.store import MANIFEST

Open = Callable[..., None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder beside the run folder that looks like an artefact."""
    folder = tmp_path / "victim"
    (folder / "policy").mkdir(parents=True)
    for place in (folder, folder / "policy"):
        (place / MANIFEST).write_text("{}")
        (place / "thesis.tex").write_text("x")
    return folder


@pytest.fixture
def open_run(out: Path, tiny_spec: Callable[..., Spec]) -> Open:
    def open_it(*names: str) -> None:
        check_folder(out)
        open_folder(out, tiny_spec(), cast(Any, [SimpleNamespace(name=name, key="k") for name in names]))

    return open_it


def record(out: Path, steps: Any) -> None:
    (out / "run.json").write_text(json.dumps({"steps": steps}))


def whole(victim: Path) -> bool:
    return (victim / "thesis.tex").exists() and (victim / "policy" / "thesis.tex").exists()


@pytest.mark.parametrize(
    "name",
    ["../victim", "{victim}", "sft/../../victim", "", ".", "..", "/", "sft/", "sft//x", ".hidden", "a\x00b", "a\nb"],
)
def test_a_record_that_names_other_places_is_refused(open_run: Open, out: Path, victim: Path, name: str) -> None:
    record(out, {name.format(victim=victim): "x"})
    with pytest.raises(SpecError, match=r"run\.json was not written by a run.*choose another --out"):
        open_run("sft")
    assert whole(victim)


@pytest.mark.parametrize("content", ["[]", '"x"', "{}", '{"steps": []}', '{"steps": null}', "7"])
def test_a_record_of_another_form_is_refused(open_run: Open, out: Path, content: str) -> None:
    (out / "run.json").write_text(content)
    with pytest.raises(SpecError, match="was not written by a run"):
        open_run("sft")


@pytest.mark.parametrize("link", ["rlaif", "rlaif/policy"])
@pytest.mark.parametrize("stale", [True, False])
def test_no_link_is_followed(open_run: Open, out: Path, victim: Path, link: str, stale: bool) -> None:
    place = out / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(victim)
    record(out, {"rlaif/policy": "x"} if stale else {})
    with pytest.raises(SpecError, match="is a link"):
        open_run(*([] if stale else ["rlaif/policy"]))
    with pytest.raises(SpecError, match="is a link"):
        place_artefact(victim, out, "rlaif/policy")
    assert whole(victim)


@pytest.mark.parametrize(
    "link", ["tensorboard", "tensorboard/sft", "spec.yaml", "report.html", ".spec.yaml.1", "x/y/z"]
)
def test_a_folder_with_a_link_is_refused(open_run: Open, out: Path, victim: Path, link: str) -> None:
    place = out / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim / "thesis.tex")
    record(out, {})
    with pytest.raises(SpecError, match="is a link"):
        open_run("sft")
    assert (victim / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("stale", [True, False])
def test_what_no_run_wrote_stays(open_run: Open, out: Path, victim: Path, stale: bool) -> None:
    (out / "rlaif" / "policy").mkdir(parents=True)
    mine = out / "rlaif" / "policy" / "mine.txt"
    mine.write_text("x")
    record(out, {"rlaif/policy": "x"} if stale else {})
    with pytest.raises(SpecError, match="was not written by a run; move it away"):
        open_run(*([] if stale else ["rlaif/policy"]))
    with pytest.raises(SpecError, match="was not written by a run; move it away"):
        place_artefact(victim, out, "rlaif/policy")
    assert mine.exists()


def test_artefacts_of_earlier_specs_are_removed_and_replaced(open_run: Open, out: Path, victim: Path) -> None:
    for name in ("sft", "rlaif/policy", "rlaif/reward"):
        place_artefact(victim, out, name)
    record(out, {"sft": "k", "rlaif/policy": "x", "rlaif/reward": "x"})
    (out / "rlaif" / "notes.txt").write_text("mine")
    (out / "report.html").write_text("old")
    open_run("sft", "rlaif/reward")
    assert (out / "sft" / "thesis.tex").exists()
    assert not (out / "rlaif" / "policy").exists()
    assert (out / "rlaif" / "notes.txt").exists()
    assert not (out / "report.html").exists()
    (victim / "new").write_text("x")
    place_artefact(victim, out, "rlaif/reward")
    assert (out / "rlaif" / "reward" / "new").exists()
    assert json.loads((out / "run.json").read_text())["steps"] == {"sft": "k", "rlaif/reward": "k"}


def test_an_edited_card_stays_when_its_artefact_is_placed_again(out: Path, victim: Path) -> None:
    place_artefact(victim, out, "sft")
    card = out / "sft" / CARD
    save_card(card, ["measured"])
    place_artefact(victim, out, "sft")
    assert not card.exists(), "a card of an earlier artefact was left"
    save_card(card, ["measured"])
    card.write_text(card.read_text() + "License: MIT\n")
    (victim / "thesis.tex").write_text("new")
    place_artefact(victim, out, "sft")
    assert card.read_text().endswith("License: MIT\n")
    assert (out / "sft" / "thesis.tex").read_text() == "new"
    assert not (victim / CARD).exists()


def test_a_truncated_record_is_one_without_steps(open_run: Open, out: Path) -> None:
    (out / "run.json").write_text('{"steps": {"sf')
    open_run("sft")
    assert json.loads((out / "run.json").read_text())["steps"] == {"sft": "k"}
