"""`rlaif annotate --export` writes labels that everything else reads, and mistakes are answered with one line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from rlaif_framework import PluginManager, Spec
from rlaif_framework.annotation.access import Access
from rlaif_framework.annotation.answers import AnswerFile, Drawn
from rlaif_framework.annotation.instructions import GENERAL, find_instructions
from rlaif_framework.annotation.items import read_items
from rlaif_framework.annotation.serving import make_urls, open_socket
from rlaif_framework.data.human_labels import HumanLabels, read_human_labels
from rlaif_framework.files import locked
from rlaif_framework.progress import Progress
from rlaif_framework.spec.loading import load_task
from support.annotation import answer_next, open_desk, pair_rows, write_pairs
from support.fake_plugins import write_rows
from support.runs import execute, run_rows

Rlaif = Callable[..., tuple[int, str, str]]


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """Answers to four of six pairs: Ann and Bob have compared each of them."""
    return _answer(tmp_path, write_pairs(tmp_path, 6), 4)


def _answer(folder: Path, pairs: Path, count: int, drawn: Drawn = "random") -> Path:
    path = folder / "answers.sqlite"
    with AnswerFile.create(path) as file:
        desk = open_desk(file, read_items(pairs), overlap=2, drawn=drawn)
        for _ in range(count):
            shown = answer_next(desk, "Ann", "first")
            assert shown is not None
            answer_next(desk, "Bob", "first" if desk.open_items("Bob")[0].first == shown.first else "second")
    return path


def test_labels_have_the_mean_of_people_and_are_found_by_their_texts(
    rlaif: Rlaif, answered: Path, tmp_path: Path
) -> None:
    export = tmp_path / "human.jsonl"
    code, out, messages = rlaif("annotate", tmp_path / "pairs.jsonl", "--out", answered, "--export", export)
    assert (code, messages) == (0, "")
    assert f"labels: {export}, 4 rows" in out
    assert "agreement of people: Krippendorff's alpha" in out
    rows = run_rows(export)
    assert all(row["annotators"] == 2 and row["human"] in (0.0, 1.0) and row["drawn"] == "random" for row in rows)
    labels = HumanLabels(read_human_labels(export))
    with AnswerFile.read(answered) as file:
        preferred = {answer.assignment.item: answer.preference for answer in file.read_answers()}
    items = read_items(tmp_path / "pairs.jsonl").items
    assert {key: labels.find(items[key].comparison) for key in preferred} == preferred
    assert labels.count_unused(item.comparison for item in items.values()) == 0


def test_exported_labels_are_those_that_rlaif_label_copies(rlaif: Rlaif, answered: Path, tmp_path: Path) -> None:
    export = tmp_path / "human.jsonl"
    rlaif("annotate", tmp_path / "pairs.jsonl", "--out", answered, "--export", export)
    code, out, messages = rlaif("label", export, "--labeler", "human", "--out", tmp_path / "labels.jsonl")
    assert code == 0, messages
    assert "warning" not in out
    copied = {row["id"]: row["probabilities"][0] for row in run_rows(tmp_path / "labels.jsonl")}
    assert copied == {row["id"]: row["human"] for row in run_rows(export)}


def test_the_labels_of_a_labeler_are_compared_with_people_in_json(rlaif: Rlaif, answered: Path, tmp_path: Path) -> None:
    pairs, labels = tmp_path / "pairs.jsonl", tmp_path / "labels.jsonl"
    assert rlaif("label", pairs, "--labeler", "length", "--out", labels)[0] == 0
    arguments = ("--out", answered, "--export", tmp_path / "human.jsonl", "--labels", labels, "--json")
    code, out, _ = rlaif("annotate", pairs, *arguments)
    assert code == 0
    found = json.loads(out)["draws"]["random"]
    assert [(x["name"], x["agreement"]["count"]) for x in found["labelers"]] == [("labels", 4)]
    assert found["kappas"][0]["kappa"]["value"] == 1


def test_labels_that_were_not_drawn_at_random_go_to_a_file_of_their_own(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 12)
    _answer(tmp_path, pairs, 3)
    answers = _answer(tmp_path, pairs, 5, "uncertain")
    code, out, _ = rlaif("annotate", pairs, "--out", answers, "--export", tmp_path / "human.jsonl")
    assert code == 0
    assert "not for evaluate.human_labels" in out
    drawn = {path.name: {row["drawn"] for row in run_rows(path)} for path in sorted(tmp_path.glob("human*.jsonl"))}
    assert drawn == {"human.jsonl": {"random"}, "human.uncertain.jsonl": {"uncertain"}}


def test_an_export_replaces_only_what_an_export_wrote(rlaif: Rlaif, answered: Path, tmp_path: Path) -> None:
    command = ("annotate", tmp_path / "pairs.jsonl", "--out", answered, "--export")
    assert rlaif(*command, tmp_path / "human.jsonl")[0] == 0
    assert rlaif(*command, tmp_path / "human.jsonl")[0] == 0
    other = write_rows(tmp_path / "other.jsonl", [{"precious": True}])
    code, _, message = rlaif(*command, other)
    assert (code, run_rows(other)) == (2, [{"precious": True}])
    assert "was not made by an earlier export" in message
    assert rlaif(*command, other, "--overwrite")[0] == 0
    assert len(run_rows(other)) == 4
    code, _, message = rlaif(*command, tmp_path / "pairs.jsonl", "--overwrite")
    assert (code, "the command reads this file" in message) == (2, True)
    assert len(run_rows(tmp_path / "pairs.jsonl")) == 6


def test_arms_learn_from_exported_labels(
    rlaif: Rlaif, tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    pairs, export = write_pairs(tmp_path, 24), tmp_path / "human.jsonl"
    assert rlaif("annotate", pairs, "--out", _answer(tmp_path, pairs, 24), "--export", export)[0] == 0
    reward = {"kind": "bradley-terry", "lr": 1e-3, "batch_size": 8}
    mix = {"kind": "mix", "labeler": "length", "proportion": 0.5}
    arms = {
        "rlhf": {"feedback": "human", "reward": reward},
        "mix": {"feedback": {"kind": "ai", "labeler": mix, "allow_weak_labels": True}, "reward": reward},
    }
    spec = tiny_spec(task={"kind": "text", "comparisons": str(export)}, arms=arms, sft=None, evaluate=None)
    execute(spec, tmp_path / "run", manager)
    stated = {(row["id"], row["human"]) for row in run_rows(export)}
    labels = {}
    for arm in arms:
        rows = run_rows(tmp_path / "run" / arm / "labels/preferences.jsonl")
        labels[arm] = {(row["comparison"], row["probabilities"][0]) for row in rows}
        assert (tmp_path / "run" / arm / "reward/model.safetensors").exists()
    assert labels["rlhf"] < stated  # without the comparisons that are kept for testing
    assert 0 < len(labels["mix"] & stated) < len(labels["mix"]) == len(labels["rlhf"])


def test_labels_of_a_run_correct_its_win_rates(
    rlaif: Rlaif, run_folder: Path, tiny_spec: Callable[..., Spec], manager: PluginManager, tmp_path: Path
) -> None:
    answers, export = _answer(tmp_path, run_folder, 2), tmp_path / "human.jsonl"
    code, out, _ = rlaif("annotate", run_folder, "--out", answers, "--export", export)
    assert code == 0
    assert "rlaif wins against sft" in out
    labels = HumanLabels(read_human_labels(export))
    pairs = run_rows(run_folder / "evaluation/summary/pairs/rlaif-vs-sft.jsonl")
    write_rows(tmp_path / "pairs.jsonl", pairs)
    compared = [item.comparison for item in read_items(tmp_path / "pairs.jsonl").items.values()]
    assert sum(labels.find(pair) is not None for pair in compared) == len(labels) == 2
    spec = tiny_spec(evaluate={"judge": "length", "prompts": 6, "comparisons": 12, "human_labels": str(export)})
    execute(spec, tmp_path / "run", manager, run_folder.parent / f"{run_folder.name}-store")
    (win,) = json.loads((tmp_path / "run/evaluation/summary/evaluation.json").read_text(encoding="utf-8"))["wins"]
    own = {row["response"].strip() for row in run_rows(run_folder / "evaluation/responses/rlaif/responses.jsonl")}
    preferred = [abs((row["responses"][0] not in own) - row["human"]) for row in run_rows(export)]
    equal = 6 - len(pairs)  # which are ties, and need no label
    human = win["corrected"]["human"]
    assert human["count"] == 2
    assert human["value"] == pytest.approx((len(pairs) * fmean(preferred) + equal / 2) / 6)
    assert win["corrected"]["rate"]["count"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export", "labels.csv"], "--export labels.csv: its name must end in .jsonl"),
        (["--export", "held.jsonl"], "the test writes it; wait until it has finished"),
        (["--order", "uncertain"], "--order uncertain needs the labels of a labeler: --labels FILE"),
        (["--show-judge"], "--show-judge needs the labels of a labeler"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0: others can reach this address, so it needs --token"),
        (["--token", "short"], "--token: it must have at least 16 characters"),
        (["--instructions", "missing.md"], "--instructions missing.md: cannot be read"),
        (["--gold", "pairs.jsonl"], "--gold pairs.jsonl: none of the rows has a preference"),
        (["--labels", "missing.jsonl"], "missing.jsonl"),
        (["--task", "sumary"], "sumary"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_mistakes_are_answered_with_one_line(
    arguments: list[str],
    message: str,
    rlaif: Rlaif,
    answered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with locked(tmp_path / "held.jsonl", "the test writes it"):
        code, out, messages = rlaif("annotate", "pairs.jsonl", "--out", answered, *arguments)
    assert (code, out) == (2, "")
    assert message in messages


def test_answers_about_other_pairs_are_not_continued(rlaif: Rlaif, answered: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", [{"prompt": "p", "responses": ["x", "y"]}])
    code, _, message = rlaif("annotate", other, "--out", answered)
    assert code == 2
    assert "has 8 answers, none of them about the pairs of" in message


def test_an_export_without_answers_is_an_error(rlaif: Rlaif, tmp_path: Path) -> None:
    pairs, out = write_pairs(tmp_path, 2), tmp_path / "answers.sqlite"
    code, _, message = rlaif("annotate", pairs, "--out", out, "--export", tmp_path / "human.jsonl")
    assert code == 2
    assert "there is no file of answers" in message
    with AnswerFile.create(out):
        pass
    code, _, message = rlaif("annotate", pairs, "--out", out, "--export", tmp_path / "human.jsonl")
    assert code == 2
    assert "has no answers that state a preference" in message


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_the_extra_one_line_says_what_to_install(
    module: str, rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == module or name.startswith("rlaif_framework.annot")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, message = rlaif("annotate", write_pairs(tmp_path, 2), "--out", tmp_path / "answers.sqlite")
    assert (code, out) == (2, "")
    assert message == (
        f"rlaif: the package '{module}' is not installed; install it: pip install 'rlaif-framework[annotate]'\n"
    )
    assert not (tmp_path / "answers.sqlite").exists()


def test_the_task_of_the_pairs_gives_the_instructions(tmp_path: Path) -> None:
    manager, output = PluginManager.load(), io.StringIO()
    progress = Progress(Console(file=output, width=200))
    assert find_instructions(tmp_path / "pairs.jsonl", None, manager, progress) == GENERAL
    text = find_instructions(tmp_path / "pairs.jsonl", load_task("tldr", (), manager), manager, progress)
    assert "summary" in text
    assert text.endswith(GENERAL)
    harmless = load_task(str(Path(__file__).parents[2] / "specs/paper/task-harmless.yaml"), (), manager)
    assert find_instructions(tmp_path / "pairs.jsonl", harmless, manager, progress) == GENERAL
    assert "ask for the worse response" in output.getvalue()


def test_pairs_may_be_those_that_rlaif_label_reads(tmp_path: Path) -> None:
    rows = [
        {"instruction": row["prompt"], "output1": row["responses"][0], "output2": row["responses"][1]}
        for row in pair_rows(3)
    ]
    fields = {"prompt": "instruction", "response_a": "output1", "response_b": "output2"}
    assert len(read_items(write_rows(tmp_path / "rows.jsonl", rows), fields=fields).items) == 3


def test_what_is_left_by_another_order_is_not_drawn_at_random(tmp_path: Path, rlaif: Rlaif) -> None:
    pairs = write_pairs(tmp_path, 6)
    out = _answer(tmp_path, pairs, 2, "uncertain")
    code, _, message = rlaif("annotate", pairs, "--out", out)
    assert code == 2
    assert "pairs drawn by the uncertainty of a labeler" in message
    assert "go on with --order uncertain, or choose another --out" in message


def test_any_token_arrives_as_it_was_given() -> None:
    token = "a+b&c%41=0123456789"
    with open_socket("127.0.0.1", 0) as listening:
        url, _ = make_urls(listening, Access.create("127.0.0.1", token))
    assert parse_qs(urlsplit(url).fragment, strict_parsing=True) == {"token": [token]}
