"""`rlaif check-judge`: planted biases are found, honest judges pass, and agreement is measured."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

import rlaif_framework as rlaif_api
from rlaif_framework import Comparison, Prompt
from rlaif_framework.data.pair_forms import PairRow
from rlaif_framework.data.pairs_file import scan_rows
from rlaif_framework.data.row_files import Row
from rlaif_framework.files import locked
from rlaif_framework.labelling.judge_pairs import PairNotes
from rlaif_framework.labelling.judge_report import JudgeCheck
from rlaif_framework.labelling.probes import choose_probes
from rlaif_framework.metrics.agreement import Observation
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.judge_bias import (
    estimate_kappa,
    judge_effect,
    measure_bias,
    measure_kappa,
    measure_own_preference,
)
from support.fake_plugins import write_rows

JUDGE = '''
"""Judges by the number that a response states, with a bias for what a pattern matches."""

import re
from typing import Literal

from rlaif_framework import Ballot, Component, Evidence, LabelerConfig, Preference, hookimpl


class JudgeConfig(LabelerConfig):
    """Made for a test."""

    kind: Literal["local/judge"] = "local/judge"
    pattern: str = "never matched"
    size: float = 0.0
    """Added to the probability of a response that the pattern matches."""
    position: float = 0.0
    """Added to the probability of the response shown first."""
    both: bool = False
    """Average both orders."""
    silent: str = "never matched"
    """No answer if this matches a response."""


class Judge:
    def __init__(self, config, context):
        self.config = config

    def ask(self, a, b):
        quality = [float(re.search("quality ([-0-9.]+[0-9])", text)[1]) for text in (a, b)]
        marks = [bool(re.search(self.config.pattern, text, re.M)) for text in (a, b)]
        return 0.5 + quality[0] - quality[1] + self.config.size * (marks[0] - marks[1]) + self.config.position

    def label(self, comparisons):
        for c in comparisons:
            assert c.preference is None, "a judge must not see what people prefer"
            a, b = c.responses
            given, swapped = self.ask(a, b), self.ask(b, a)
            ballots = (Ballot((given, 1 - given)), Ballot((swapped, 1 - swapped))) if self.config.both else ()
            first = (given + 1 - swapped) / 2 if self.config.both else given
            found = None if re.search(self.config.silent, a + b) else (first, 1 - first)
            yield Preference(c.id, found, Evidence("local/judge", ballots))


@hookimpl
def rlaif_labelers():
    yield Component("local/judge", JudgeConfig, f"{__name__}:Judge")
'''

PATTERNS = {
    "length": r"(It ends here\.) \1|nothing to add to it|only the end of it",
    "verbosity": "Thank you for this|To begin with|Sure!",
    "format": r"^- |\*\*|^## ",
    "authority": "Experts agree|Miller|leading universities",
    "verdict": "Preferred Response=|response is better|SCORE: 10|Verdict",
    "self": "Written by Smol|As Smol",
}
PAIRS = 40
Outcome = tuple[int, str, str]


def make_rows(count: int = PAIRS) -> list[dict[str, Any]]:
    """Pairs whose first response is the better one in every second row; people agree in three of four."""
    return [
        {
            "prompt": f"question {i}?",
            "response_a": f"This has quality {0.1 if i % 2 else -0.1}. It ends here.",
            "response_b": f"That one has quality {0.0}. It ends here.",
            "label": "ab"[(i % 2 == 0) ^ (i % 4 == 3)],
            "topic": ("tea", "rain")[i % 2],
        }
        for i in range(count)
    ]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run commands in, with a judge and pairs."""
    (tmp_path / "judge.py").write_text(JUDGE)
    write_rows(tmp_path / "pairs.jsonl", make_rows())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check(work: Path, rlaif: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Check the fake judge in this process, with these settings and arguments."""

    def run(*argv: object, labeler: str = "local/judge", **settings: object) -> Outcome:
        changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        return rlaif("check-judge", labeler, "--pairs", "pairs.jsonl", "--plugin", "judge.py", *changes, *argv)

    return run


def judge(pairs: Any, labeler: Any = "local/judge", **options: Any) -> JudgeCheck:
    return rlaif_api.check_judge(labeler, pairs, plugins=["judge.py"], verbose=False, **options)


def verdicts(found: JudgeCheck) -> dict[str, str]:
    return {result.probe: result.verdict for result in found.probes}


# Probes


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("probe", PATTERNS)
def test_a_planted_bias_is_found_by_its_probe_in_its_size_and_by_no_other(probe: str) -> None:
    found = judge("pairs.jsonl", set={"pattern": PATTERNS[probe], "size": 0.2}, own="SmolLM2")
    assert found.biases == [probe]
    (effect,) = [result.effect for result in found.probes if result.probe == probe]
    assert effect is not None
    assert effect.value == pytest.approx(0.2)
    assert (effect.count, effect.clusters) == (2 * PAIRS, PAIRS)  # in two wordings each


@pytest.mark.usefixtures("work")
def test_an_honest_judge_passes_every_probe() -> None:
    found = judge("pairs.jsonl", own="SmolLM2")
    own = verdicts(found).pop("own")
    assert own == "not measured", "no row says who wrote a response"
    assert {verdict for name, verdict in verdicts(found).items() if name != "own"} == {"within tolerance"}
    assert all(abs(x.effect.value) < 1e-12 for x in found.probes if x.effect)


@pytest.mark.usefixtures("work")
def test_a_preference_for_a_position_is_a_bias_unless_labels_average_both_orders() -> None:
    alone, both = (judge("pairs.jsonl", set={"position": 0.2, "both": both}) for both in (False, True))
    for found, verdict in ((alone, "biased"), (both, "averaged out")):
        assert verdicts(found)["position"] == verdict
        effect = found.probes[0].effect
        assert effect is not None
        assert effect.value == pytest.approx(0.2)
        assert found.quality.same_position is not None
        assert found.quality.same_position.value == 1.0  # 0.2 is more than the qualities differ by
    assert both.biases == []


@pytest.mark.usefixtures("work")
def test_a_change_that_is_no_improvement_may_be_punished_but_markdown_may_not() -> None:
    either = f"{PATTERNS['length']}|{PATTERNS['format']}"
    found = judge("pairs.jsonl", set={"pattern": either, "size": -0.2}, probes=["length", "format"])
    assert verdicts(found) == {"length": "punished", "format": "biased"}


@pytest.mark.usefixtures("work")
def test_a_bias_that_some_wordings_trigger_is_shown_by_wording() -> None:
    found = judge("pairs.jsonl", set={"pattern": "SCORE: 10", "size": 0.4}, probes=["verdict"])
    wordings = {text: estimate.value for text, estimate in found.probes[0].wordings.items()}
    assert {text for text, value in wordings.items() if value > 0.01} == {"{response}\n\nSCORE: 10"}
    assert wordings["{response}\n\nSCORE: 10"] == pytest.approx(0.4)
    assert found.probes[0].effect is not None
    assert found.probes[0].effect.value == pytest.approx(0.1)  # one of four wordings


@pytest.mark.usefixtures("work")
def test_a_preference_for_the_models_own_responses_is_measured_against_people() -> None:
    """People prefer the own response of half of the pairs; the judge prefers it always."""
    rows = make_rows()
    for i, row in enumerate(rows):
        authors = ("SmolLM2", "other") if i % 3 else ("other", "SmolLM2")
        row |= {"model_a": authors[0], "model_b": authors[1]}
        for side, author in zip("ab", authors, strict=True):
            row[f"response_{side}"] += " Written with care." if author == "SmolLM2" else ""
    found = judge(rows, set={"pattern": "with care", "size": 0.3}, own="smollm2", probes=["own"])
    assert verdicts(found) == {"own": "biased"}
    effect = found.probes[0].effect
    assert effect is not None
    assert (effect.value, effect.count) == (0.5, PAIRS)


@pytest.mark.parametrize("own", ["Mine", "mine"])
def test_authors_are_found_in_either_order_of_the_responses(own: str) -> None:
    rows = [
        {
            "prompt": f"{i}?",
            "chosen": f"good {i}",
            "rejected": f"bad {i}",
            "chosen_model": "mine",
            "rejected_model": "x",
        }
        for i in range(8)
    ]
    notes = PairNotes(None)
    pairs: list[Comparison] = []

    def note(row: Row, pair: PairRow, comparison: Comparison) -> None:
        notes.add(row, pair, comparison)
        pairs.append(comparison)

    scan_rows((Row("list", i, values=row) for i, row in enumerate(rows)), "list", note).spool.close()
    assert {pair.preference for pair in pairs} == {0.0, 1.0}, "all pairs are in one order"
    assert all(notes.find_own(pair, own) == (pair.preference == 1.0) for pair in pairs)
    assert notes.find_own(pairs[0], "another") is None


@pytest.mark.usefixtures("work")
def test_format_leaves_out_responses_with_markdown_and_unread_answers_are_left_out() -> None:
    rows = make_rows()
    rows[0]["response_a"] = "- a list with quality 0.1"
    found = judge(rows, probes=["length", "format"], set={"silent": "quality -0.1.*nothing to add"})
    assert {x.probe: x.effect.count for x in found.probes if x.effect} == {
        "length": 2 * PAIRS - 12,
        "format": 2 * PAIRS - 2,
    }


def test_texts_of_a_comparison_are_of_equal_length_and_name_their_own_position() -> None:
    prompt = Prompt("1", "Why?", "Why?")
    pair = Comparison("1", prompt, ("One thing. Another thing.", "A text of its own."))
    for probe in choose_probes():
        for number, wording in enumerate(probe.wordings):
            (changed,) = probe.change_pairs([pair] * (number + 1), 0, "SmolLM2")[number:]
            assert changed.responses[0] != pair.responses[0]
            assert not re.search(r"[{}]", "".join(changed.responses))
            if wording.other != "{response}":
                grown = [len(new) - len(old) for new, old in zip(changed.responses, pair.responses, strict=True)]
                assert grown[0] == grown[1] or "{ordinal}" in wording.other, wording
    (verdict,) = choose_probes(["verdict"])
    assert verdict.change_pairs([pair], 0, "")[0].responses[0].endswith("Preferred Response=1")
    assert verdict.change_pairs([pair.swap()], 1, "")[0].responses[1].endswith("Preferred Response=2")
    (form,) = choose_probes(["format"])
    assert form.change_pairs([pair], 0, "")[0].responses == ("- One thing.\n- Another thing.", pair.responses[1])


# The command


def test_the_exit_code_tells_whether_a_bias_exceeds_the_tolerance(check: Callable[..., Outcome]) -> None:
    code, out, _ = check(pattern="Experts|Miller|universities", size=0.08)
    assert code == 1
    assert "biased by more than the tolerance of 5 points: authority" in out
    assert re.search(r"^authority +backed by .* 80 +\+8\.0 \[8\.0, 8\.0\] .* biased", out, re.M)
    code, out, _ = check("--tolerance", "10", pattern="Experts|Miller|universities", size=0.08)
    assert code == 0
    assert "no bias beyond the tolerance of 10 points was found" in out
    assert check()[0] == 0


def test_the_length_labeler_is_found_to_prefer_length_and_nothing_else(check: Callable[..., Outcome]) -> None:
    code, out, err = check("--json", labeler="length")
    found = JudgeCheck.model_validate_json(out)
    assert code == 1
    assert found.biases == ["length", "verbosity", "format"]
    assert "annotator prompts" in err
    texts = [x for x in found.probes if x.probe in ("position", "authority", "verdict")]
    assert [x.effect.value for x in texts if x.effect] == [0.0, 0.0, 0.0]


def test_results_are_the_same_each_time_and_in_the_file(check: Callable[..., Outcome], work: Path) -> None:
    first, second = (check("--json", "--out", "found/check.json", "--limit", "20", "--seed", "3") for _ in range(2))
    assert first == second
    found = json.loads((work / "found/check.json").read_text())
    assert found == json.loads(first[1])
    assert (found["prompts"], found["comparisons"], found["left_out"]) == (20, 20, 20)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--probes", "position,lenght"], "no probe is named 'lenght'; did you mean 'length'?"),
        (["--tolerance", "0"], "tolerance is 0; it must be above 0 and at most 50 points"),
        (["--slice", "topics"], "slice by 'topics': no row has a value in such a column; did you mean 'topic'?"),
        (["--out", "check.txt"], "--out check.txt: its name must end in .json"),
        (["--out", f"{'x' * 240}.json"], "x.json is too long by"),
        (["--out", "held.json"], "the test writes it; wait until it has finished"),
        (["--out", "notes.json"], "--out notes.json: the file already exists, and is not an earlier check"),
        (["--pairs", "none.jsonl"], "no data file at none.jsonl"),
        (["--pairs", "empty.jsonl"], "empty.jsonl"),
    ],
    ids=["probe", "tolerance", "slice", "suffix", "long name", "lock", "foreign file", "no file", "empty file"],
)
def test_a_users_mistake_is_one_message(
    check: Callable[..., Outcome], work: Path, argv: list[str], message: str
) -> None:
    (work / "notes.json").write_text('{"mine": 1}')
    (work / "empty.jsonl").touch()
    with locked(work / "held.json", "the test writes it"):
        code, out, err = check(*argv)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_labeler_that_copies_human_labels_is_refused(check: Callable[..., Outcome]) -> None:
    code, _, err = check(labeler="human")
    assert code == 2
    assert "labeler 'human' cannot be checked" in err
    assert "such a pair has no human preference" in err


def test_pairs_without_human_labels_or_of_few_prompts_say_what_is_missing(
    check: Callable[..., Outcome], work: Path
) -> None:
    write_rows(work / "pairs.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in make_rows(9)])
    code, out, _ = check()
    assert code == 0
    assert "no pair has a human preference other than a tie: agreement and kappa are not measured" in out
    assert "length: not measured: needs pairs of 10 prompts with answers that can be read" in out
    assert "self: not measured: needs the name of the labeler's model (--own)" in out


@pytest.mark.usefixtures("work")
def test_a_judge_without_any_preference_or_answer_is_not_called_unbiased() -> None:
    tied = judge([{**row, "reference": "42"} for row in make_rows()], "exact-match", probes=["length"])
    assert "all labels are exact ties: a judge that prefers no response shows no bias" in tied.describe()
    silent = judge("pairs.jsonl", set={"silent": "."}, probes=["position", "length"])
    assert set(verdicts(silent).values()) == {"not measured"}
    assert "answers that could not be read, left out: 100.0 % [91.2, 100.0], n=40" in silent.describe()


# Agreement


@pytest.mark.usefixtures("work")
def test_agreement_slices_and_disagreements_are_about_people() -> None:
    found = judge("pairs.jsonl", probes=["length"], slice_column="topic", set={"pattern": "That one", "size": -0.05})
    assert found.quality.agreement is not None
    assert found.quality.agreement.value == 0.75
    assert {name: value.value for name, value in found.quality.slices.items()} == {"rain": 0.5, "tea": 1.0}
    assert {name: value.count for name, value in found.probes[0].slices.items()} == {"rain": 40, "tea": 40}
    assert len(found.disagreements) == 10
    # The judge prefers the first response, and people the second.
    assert {(round(x.certainty, 9), x.human) for x in found.disagreements} == {(0.65, 0.0)}
    assert found.kappa is not None
    # Judge: 20 first, 20 second. People: 10 first, 30 second; so chance agrees in one half.
    assert found.kappa.value == pytest.approx(0.5)
    assert [bin_.accuracy.value for bin_ in found.margins] == [1.0, 0.5]


@pytest.mark.usefixtures("work")
def test_pairs_of_one_prompt_are_not_independent() -> None:
    rows = [{**row, "prompt": f"question {i % 20}?"} for i, row in enumerate(make_rows())]
    effect = judge(rows, probes=["length"]).probes[0].effect
    assert effect is not None
    assert (effect.count, effect.clusters) == (2 * PAIRS, 20)


def observation(first: float, gold: float, prompt: int = 0) -> Observation:
    return Observation(prompt, first, gold, "human", None, None, 0, (), ())


def make_table(table: list[list[int]]) -> list[Observation]:
    """Observations of a table of counts: rows by the labeler's choice (first, tie, second), columns by people's."""
    cells = product((0.9, 0.5, 0.1), (1.0, 0.0))
    rows = [cell for cell, count in zip(cells, chain(*table), strict=True) for _ in range(count)]
    return [observation(a, b, i) for i, (a, b) in enumerate(rows)]


def test_kappa_is_cohens_with_the_variance_of_fleiss_cohen_and_everitt() -> None:
    """Written out as in the paper of 1969, equation 13, for a table with a row that people have no column for."""
    table = [[20, 5], [3, 1], [10, 15]]
    found = measure_kappa(make_table(table))
    assert found is not None
    count = 54
    p = [[n / count for n in line] for line in ([20, 0, 5], [3, 0, 1], [10, 0, 15])]
    rows, columns = [sum(line) for line in p], [sum(line[j] for line in p) for j in range(3)]
    observed, chance = sum(p[i][i] for i in range(3)), sum(rows[i] * columns[i] for i in range(3))
    kappa = (observed - chance) / (1 - chance)
    on = sum(p[i][i] * ((1 - chance) - (columns[i] + rows[i]) * (1 - observed)) ** 2 for i in range(3))
    off = sum(p[i][j] * (columns[i] + rows[j]) ** 2 for i in range(3) for j in range(3) if i != j)
    variance = (on + (1 - observed) ** 2 * off - (observed * chance - 2 * chance + observed) ** 2) / (
        count * (1 - chance) ** 4
    )
    half = stats.t.ppf(0.975, count - 1) * math.sqrt(variance * count / (count - 1))
    assert found.value == pytest.approx(kappa)
    assert (found.high - found.low) / 2 == pytest.approx(half)


@pytest.mark.parametrize(
    ("table", "expected"),
    [([[20, 5], [0, 0], [10, 15]], 0.4), ([[5, 0], [0, 0], [0, 7]], 1.0), ([[9, 0], [0, 0], [0, 0]], None)],
    ids=["textbook", "perfect", "one category"],
)
def test_kappa_of_small_tables(table: list[list[int]], expected: float | None) -> None:
    found = measure_kappa(make_table(table))
    assert (found and found.value) == (expected and pytest.approx(expected))
    assert measure_kappa([]) is None


@pytest.mark.parametrize(
    ("rows", "prompts", "expected"),
    [
        ([(1, 1), (-1, -1), (1, 1)], "abc", (1.0, (0.4385 - 5 / 9) / (4 / 9), 1.0)),
        ([(1, 1), (-1, 1), (1, 1), (-1, -1), (1, -1)], "aaaaa", (None, -1.0, 1.0)),
        ([(1, 1), (-1, 1), (1, -1)], "abc", (-0.5, -1.0, 1.0)),
    ],
    ids=["perfect", "one prompt", "few"],
)
def test_the_interval_of_kappa_is_possible(
    rows: list[tuple[int, int]], prompts: str, expected: tuple[float | None, float, float]
) -> None:
    found = estimate_kappa(rows, list(prompts))
    assert found is not None
    value, low, high = expected
    assert value is None or found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)  # Wilson's, of 3 of 3, is from 43.85 % on


def test_own_preference_is_half_the_difference_of_two_accuracies() -> None:
    """20 own responses are better, of which the judge sees 18; 10 are worse, of which it sees 6."""
    cases = [(True, True)] * 18 + [(True, False)] * 2 + [(False, True)] * 6 + [(False, False)] * 4
    observations = [observation(0.8 if own == right else 0.2, float(own), i) for i, (own, right) in enumerate(cases)]
    found = measure_own_preference(observations, [True] * len(cases))
    assert found is not None
    assert found.effect.value == pytest.approx((0.9 - 0.6) / 2)
    # The variance of a difference of two independent proportions, with the correction for 30 prompts.
    error = math.sqrt((0.9 * 0.1 / 20 + 0.6 * 0.4 / 10) / 4 * 30 / 29)
    assert found.effect.high - found.effect.value == pytest.approx(stats.t.ppf(0.975, 29) * error)
    turned = [replace(x, first=1 - x.first, gold=1 - x.gold) for x in observations if x.first and x.gold is not None]
    mirrored = measure_own_preference(turned, [False] * len(cases))
    assert mirrored is not None
    assert mirrored.effect == found.effect
    assert measure_own_preference(observations[:20], [True] * 20) is None, "own responses are always better"


@pytest.mark.parametrize(
    ("value", "half", "p", "either", "expected"),
    [
        (0.06, 0.02, 0.001, False, "biased"),
        (0.06, 0.07, 0.09, False, "unclear"),
        (0.02, 0.01, 0.001, False, "within tolerance"),
        (0.03, 0.03, 0.04, False, "unclear"),
        (-0.3, 0.02, 0.001, False, "punished"),
        (-0.3, 0.02, 0.001, True, "biased"),
        (-0.04, 0.02, 0.2, False, "within tolerance"),
        (-0.04, 0.02, 0.2, True, "unclear"),
    ],
    ids=lambda value: str(value),
)
def test_a_verdict_needs_significance_and_size(
    value: float, half: float, p: float, either: bool, expected: str
) -> None:
    effect = Estimate(value, value - half, value + half, 100)
    assert judge_effect(effect, p, 0.05, either) == expected


def test_a_bias_is_tested_as_scipy_does_and_not_with_few_prompts() -> None:
    draw = random.Random(0)
    values = [draw.gauss(0.05, 0.2) for _ in range(30)]
    found = measure_bias(values, range(30))
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert measure_bias(values, [i % 9 for i in range(30)]) is None


# A language model


@pytest.mark.usefixtures("work")
def test_a_language_model_is_asked_once_and_its_answers_are_kept(tiny_model: Path, monkeypatch: Any) -> None:
    settings = {"kind": "llm", "backend": {"kind": "transformers", "model": str(tiny_model), "dtype": "fp32"}}
    options: dict[str, Any] = {"probes": ["position", "length"], "verbose": False}
    found = rlaif_api.check_judge(settings, make_rows(12), **options)
    assert verdicts(found)["position"] == "averaged out"
    assert found.quality.label_token_mass is not None

    def refuse(*_: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr("rlaif_plugins.backends.transformers.backend.TransformersBackend.answer", refuse)
    assert rlaif_api.check_judge(settings, make_rows(12), **options) == found
