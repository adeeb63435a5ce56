"""What components return is validated and converted, with the component in the message."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlaif_framework import Answer, Ballot, Choose, Comparison, Evidence, Generate, Preference, Prompt, Question, Sample
from rlaif_framework.contracts import read_measures
from rlaif_framework.contracts.checked import check_returns
from rlaif_framework.contracts.protocols import TermedReward
from rlaif_framework.contracts.values import read_number, read_record
from rlaif_framework.errors import PluginError, RlaifError, TrainingError
from rlaif_framework.records.rows import read_preference

PROMPTS = [Prompt(f"p{i}", f"text {i}", f"text {i}") for i in range(4)]
RESPONSES = ["a", "b", "c", "d"]
PAIRS = [Comparison(f"c{i}", prompt, ("a", "b")) for i, prompt in enumerate(PROMPTS)]
OWNER = "of rlaif-acme 1.2"


# Numbers


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(0.25), 0.25),
        (np.array([0.25]), 0.25),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor([[0.5]], dtype=torch.bfloat16), 0.5),
        (Fraction(1, 2), 0.5),
        (Decimal("0.5"), 0.5),
    ],
    ids=repr,
)
def test_numbers_of_every_library_become_floats(value: object, number: float) -> None:
    found = read_number(value)
    assert found == number
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [None, "0.5", b"1", [0.5], {}, 1j, torch.ones(2), np.ones(2), torch.empty(1, device="meta"), 10**400, np.float32],
    ids=repr,
)
def test_what_is_not_a_number_is_none(value: object) -> None:
    assert read_number(value) is None


# Rewards


def load(scores: object, **methods: Any) -> Any:
    class Loaded:
        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> object:
            return scores

    for name, method in methods.items():
        setattr(Loaded, name, method)

    class Model:
        def fit(self, labels: Any, initial: Any, stage: Any) -> None: ...

        def load(self, folder: Path) -> Any:
            return Loaded()

    return check_returns(Model, "reward", f"reward 'acme/foo' {OWNER}")().load(Path())


@pytest.mark.parametrize(
    "scores",
    [
        [1, 2, 3, 4],
        (1.0, 2.0, 3.0, 4.0),
        np.array([1, 2, 3, 4]),
        np.array([1, 2, 3, 4], dtype=np.float16),
        torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True),
        [torch.tensor(1), np.float32(2), torch.tensor([3.0]), Fraction(4)],
        map(float, "1234"),
    ],
    ids=["list", "tuple", "int64", "float16", "tensor", "scalars", "iterator"],
)
def test_scores_of_every_form_become_floats(scores: object) -> None:
    found = load(scores).score(PROMPTS, RESPONSES)
    assert found == [1.0, 2.0, 3.0, 4.0]
    assert {type(score) for score in found} == {float}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0, 3.0], "returned 3 scores for 4 responses"),
        (torch.ones(5), "returned 5 scores for 4 responses"),
        (itertools.repeat(1.0), "returned more than 4 scores for 4 responses"),
        (iter([1.0]), "returned 1 scores for 4 responses"),
        (None, "returned None instead of 4 scores for 4 responses"),
        (0.5, "returned 0.5 instead of 4 scores for 4 responses"),
        (torch.tensor(0.5), "instead of 4 scores for 4 responses"),
        ("abcd", "returned 'abcd' instead of 4 scores for 4 responses"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "instead of 4 scores for 4 responses"),
        (
            [1.0, None, 3.0, 4.0],
            "the reward of a response to prompt 'p1' is None, not a number from -1e15 to 1e15",
        ),
        (["0.5"] * 4, "the reward of a response to prompt 'p0' is '0.5', not a number from -1e15 to 1e15"),
        (
            np.array([1, 2, np.nan, 4]),
            "the reward of a response to prompt 'p2' is nan, not a number from -1e15 to 1e15",
        ),
        (
            [1.0, 2.0, 3.0, -math.inf],
            "the reward of a response to prompt 'p3' is -inf, not a number from -1e15 to 1e15",
        ),
        ([2e15, 1, 1, 1], "the reward of a response to prompt 'p0' is 2000000000000000.0"),
        (np.ones((4, 2)), "the reward of a response to prompt 'p0' is [1.0, 1.0]"),
        ([torch.tensor([0.5, 0.1])] * 4, "the reward of a response to prompt 'p0' is tensor([0.5000, 0.1000])"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_scores_name_the_reward_its_distribution_and_version(scores: object, message: str) -> None:
    with pytest.raises(TrainingError) as caught:
        load(scores).score(PROMPTS, RESPONSES)
    assert str(caught.value).startswith("reward 'acme/foo' of rlaif-acme 1.2: ")
    assert message in str(caught.value)


def test_a_loaded_reward_keeps_its_own_attributes() -> None:
    reward = load([1.0], level=7)
    assert reward.level == 7
    with pytest.raises(AttributeError):
        reward.nothing  # noqa: B018


def test_terms_and_measures_are_converted_and_validated() -> None:
    def terms(self: object, prompts: object, responses: object) -> object:
        return {"good": torch.ones(4), "short": [0, 0, 0, -1]}

    reward = load([1, 1, 1, 0], score_terms=terms, measures=lambda self: {"mass": np.array([0.5])})
    assert reward.score_terms(PROMPTS, RESPONSES) == {"good": [1.0] * 4, "short": [0.0, 0.0, 0.0, -1.0]}
    assert read_measures(reward) == {"mass": [0.5]}
    assert isinstance(reward, TermedReward)
    assert not isinstance(load([1.0]), TermedReward)
    assert read_measures(load([1.0])) == {}


@pytest.mark.parametrize("terms", [None, {}, [1.0], {1: [1.0] * 4}, {"good": [1.0]}, {"good": [math.nan] * 4}])
def test_wrong_terms_name_the_reward(terms: object) -> None:
    reward = load([1.0] * 4, score_terms=lambda self, prompts, responses: terms)
    with pytest.raises(TrainingError, match=r"^reward 'acme/foo' of rlaif-acme 1\.2"):
        reward.score_terms(PROMPTS, RESPONSES)


@pytest.mark.parametrize("measures", [None, [0.5], {"mass": None}, {"mass": [math.nan]}, {1: [0.5]}, {"mass": "0.5"}])
def test_wrong_measures_name_the_reward(measures: object) -> None:
    with pytest.raises(TrainingError, match=r"^reward 'acme/foo' of rlaif-acme 1\.2: measures\(\) returned"):
        read_measures(load([1.0], measures=lambda self: measures))


def test_a_reward_that_cannot_be_loaded_is_named() -> None:
    class Model:
        def fit(self, labels: Any, initial: Any, stage: Any) -> None: ...

        def load(self, folder: Path) -> Any:
            return None

    with pytest.raises(PluginError, match=r"reward 'acme/foo' of rlaif-acme 1.2: load\(\) returned None, which has no"):
        check_returns(Model, "reward", f"reward 'acme/foo' {OWNER}")().load(Path())


# Labelers


def label(preferences: object, pairs: Sequence[Comparison] = PAIRS) -> list[Preference]:
    class Labeler:
        def label(self, comparisons: Sequence[Comparison]) -> object:
            return preferences

    labeler = check_returns(Labeler, "labeler", f"labeler 'acme/foo' {OWNER}")()
    return list(labeler.label(pairs))


def prefer(pair: Comparison, probabilities: Any = (0.75, 0.25), **evidence: Any) -> Preference:
    return Preference(pair.id, probabilities, Evidence("acme/foo", **evidence))


@pytest.mark.parametrize(
    "probabilities",
    [
        (0.75, 0.25),
        [0.75, 0.25],
        np.array([0.75, 0.25], dtype=np.float32),
        (np.float32(0.75), np.float64(0.25)),
        torch.tensor([0.75, 0.25]).requires_grad_(),
        (torch.tensor(0.75), torch.tensor(0.25)),
    ],
    ids=repr,
)
def test_probabilities_of_every_form_become_pairs_of_floats(probabilities: object) -> None:
    found = label(prefer(pair, probabilities) for pair in PAIRS)
    assert [p.probabilities for p in found] == [(0.75, 0.25)] * 4
    assert all(type(value) is float for p in found for value in p.probabilities or ())


def test_evidence_becomes_what_is_read_from_its_file() -> None:
    ballot = Ballot((np.float32(0.5), 0.5), mass=torch.tensor(0.5), rationale="because \ud800")  # type: ignore[arg-type]
    given = prefer(
        PAIRS[0], orders=[ballot], scores=np.array([1, 2]), prompt_tokens=np.int64(7), swapped=np.bool_(True)
    )
    (found,) = label([given], PAIRS[:1])
    evidence = Evidence(
        "acme/foo", (Ballot((0.5, 0.5), 0.5, "because ?"),), scores=(1.0, 2.0), prompt_tokens=7, swapped=True
    )
    assert found.evidence == evidence
    assert read_preference(json.loads(json.dumps(asdict(found)))) == found


def test_a_valid_preference_stays_as_it_is_to_the_last_bit() -> None:
    values = [(p, 1.0 - p) for p in np.random.default_rng(0).random(200).tolist()]
    pairs = [replace(PAIRS[0], id=str(i)) for i in range(200)]
    given = [prefer(pair, value, cost=value[0] / 3) for pair, value in zip(pairs, values, strict=True)]
    assert label(given, pairs) == given


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        ([prefer(pair) for pair in PAIRS[:3]], "returned 3 preferences for 4 comparisons"),
        ([prefer(pair) for pair in [*PAIRS, PAIRS[0]]], "returned more than 4 preferences for 4 comparisons"),
        (itertools.cycle(map(prefer, PAIRS)), "returned more than 4 preferences for 4 comparisons"),
        (None, "returned None instead of preferences for 4 comparisons"),
        ([0.5] * 4, "comparison 'c0': 0.5 is not of type Preference"),
        ([prefer(pair) for pair in PAIRS[::-1]], "returned a preference for 'c3', not 'c0'"),
        ([prefer(PAIRS[0], (0.7, 0.7))], "comparison 'c0': 0.7 and 0.7 are not probabilities that sum to 1"),
        ([prefer(PAIRS[0], (1.5, -0.5))], "1.5 and -0.5 are not probabilities that sum to 1"),
        (
            [prefer(PAIRS[0], (math.nan, 0.5))],
            "probabilities.0 is nan: Input should be a finite number",
        ),
        ([prefer(PAIRS[0], ("0.5", "0.5"))], "comparison 'c0': probabilities.0 is '0.5'"),
        ([prefer(PAIRS[0], (0.2, 0.3, 0.5))], "comparison 'c0': probabilities"),
        ([prefer(PAIRS[0], 0.5)], "comparison 'c0': probabilities is 0.5"),
        ([prefer(PAIRS[0], scores={1, 2})], "comparison 'c0': it cannot be written as JSON: {1, 2} is a set"),
        ([prefer(PAIRS[0], prompt_tokens="7")], "comparison 'c0': evidence.prompt_tokens is '7'"),
        ([prefer(PAIRS[0], orders=(object(),))], "comparison 'c0': it cannot be written as JSON"),
        ([Preference(7, (0.5, 0.5), Evidence("x"))], "comparison 'c0': comparison is 7"),  # type: ignore[arg-type]
        ([Preference("c0", (0.5, 0.5), None)], "comparison 'c0': evidence is None"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_preferences_name_the_labeler_its_distribution_and_version(preferences: object, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        label(preferences)
    assert str(caught.value).startswith("labeler 'acme/foo' of rlaif-acme 1.2")
    assert message in str(caught.value)


def test_too_many_preferences_are_noticed_by_a_caller_that_reads_only_as_many_as_it_needs() -> None:
    class Labeler:
        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            yield from map(prefer, [*comparisons, *comparisons])

    found = check_returns(Labeler, "labeler", "labeler 'x'")().label(PAIRS[:2])
    assert next(found).comparison == "c0"
    with pytest.raises(PluginError, match="more than 2 preferences for 2 comparisons"):
        next(found)


def test_a_labeler_that_scores_responses_is_validated_as_a_reward() -> None:
    class Labeler:
        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            yield from map(prefer, comparisons)

        def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Any:
            return np.ones(len(responses) - 1)

        def measures(self) -> Any:
            return {"mass": torch.ones(1)}

    labeler = check_returns(Labeler, "labeler", "labeler 'x'")()
    with pytest.raises(TrainingError, match="labeler 'x': returned 3 scores for 4 responses"):
        labeler.score(PROMPTS, RESPONSES)
    assert read_measures(labeler) == {"mass": [1.0]}


# Metrics


def measure(value: object) -> Any:
    class Measures:
        def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> object:
            return value

    metric = check_returns(Measures, "metric", f"metric 'acme/foo' {OWNER}")()
    return metric.measure(PROMPTS, RESPONSES)


def test_numbers_of_a_metric_become_floats_and_none_stays() -> None:
    found = measure({"a": np.array([1, 2, 3, 4]), "b": [torch.tensor(0.5), None, True, Fraction(1, 4)]})
    assert found == {"a": [1.0, 2.0, 3.0, 4.0], "b": [0.5, None, 1.0, 0.25]}
    assert all(type(number) is float for number in found["a"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "measure() returned None instead of a list of numbers by name"),
        ([1.0] * 4, "measure() returned [1.0, 1.0, 1.0, 1.0] instead of a list of numbers by name"),
        ({1: [1.0] * 4}, "instead of a list of numbers by name"),
        ({"a": 1.0}, "measure(): 'a': returned 1.0 instead of 4 numbers for 4 responses"),
        ({"a": [1.0]}, "measure(): 'a': returned 1 numbers for 4 responses"),
        ({"a": [1.0, 2.0, math.nan, 4.0]}, "a response to prompt 'p2': 'a' is nan, not a finite number or None"),
        ({"a": ["1"] * 4}, "a response to prompt 'p0': 'a' is '1', not a finite number or None"),
    ],
    ids=["none", "list", "unnamed", "number", "too-few", "nan", "text"],
)
def test_wrong_numbers_name_the_metric_its_distribution_and_version(value: object, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        measure(value)
    assert str(caught.value).startswith(f"metric 'acme/foo' {OWNER}: ")
    assert message in str(caught.value)


# Strategies, backends and algorithms

CHOOSE = Choose(Question("q"), ("1", "2"))


@pytest.mark.parametrize(
    ("ballot", "message"),
    [
        (None, "None is not of type Ballot"),
        (Ballot((0.5, 0.6)), "not probabilities"),
        (Ballot((1, None)), "probabilities"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_ballot_names_the_strategy(ballot: object, message: str) -> None:
    class Strategy:
        def elicit(self, ask: Any) -> Any:
            yield CHOOSE
            return ballot

    asked = check_returns(Strategy, "strategy", f"strategy 'acme/foo' {OWNER}")().elicit(
        type("A", (), {"identity": "c"})
    )
    assert next(asked) is CHOOSE
    with pytest.raises(PluginError, match=rf"^strategy 'acme/foo' of rlaif-acme 1\.2, comparison 'c': .*{message}"):
        asked.send(Answer())


def test_a_strategy_that_asks_nothing_is_named() -> None:
    class Strategy:
        def elicit(self, ask: Any) -> Any:
            return Ballot((0.5, 0.5))

    asked = check_returns(Strategy, "strategy", f"strategy 'acme/foo' {OWNER}")().elicit(None)
    with pytest.raises(
        PluginError, match=r"^strategy 'acme/foo' of rlaif-acme 1\.2: elicit\(\) returned Ballot.*yield"
    ):
        next(asked)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (None, "returned None instead of answers to 2 requests"),
        ([Answer()], "instead of (index of the request, answer)"),
        ([(2, Answer())], "answered request 2, but was asked 2"),
        ([(-1, Answer())], "answered request -1"),
        ([("0", Answer())], "answered request '0'"),
        ([(0, Answer()), (np.int64(0), Answer())], "answered request 0 twice"),
        ([(0, "yes")], "'yes' is not of type Answer"),
        ([(0, Answer((0.5, 0.5, 0.0)))], "not probabilities of 2 options"),
        ([(0, Answer((0.5, 0.6)))], "not probabilities of 2 options"),
        ([(0, Answer((math.nan, 1.0)))], "probabilities.0 is nan: Input should be a finite number"),
        ([(1, Answer(text=None))], "text is None"),  # type: ignore[arg-type]
        ([(1, Answer(text="x"))], "answered 1 of 2 requests"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_answer_names_the_backend(answers: object, message: str) -> None:
    class Backend:
        def answer(self, requests: Any) -> object:
            return answers

    backend = check_returns(Backend, "backend", f"backend 'acme/foo' {OWNER}")()
    with pytest.raises(PluginError) as caught:
        list(backend.answer([CHOOSE, Generate(Question("q"), 5)]))
    assert str(caught.value).startswith(f"backend 'acme/foo' {OWNER}: ")
    assert message in str(caught.value)


def test_answers_are_converted() -> None:
    class Backend:
        def answer(self, requests: Any) -> object:
            return {(np.int64(0), Answer(torch.tensor([0.25, 0.75]), mass=np.float32(0.5)))}  # type: ignore[arg-type]

    (found,) = check_returns(Backend, "backend", "backend 'x'")().answer([CHOOSE])
    assert found == (0, Answer((0.25, 0.75), mass=0.5))


def test_samples_of_an_algorithm_that_responds_are_converted_and_counted() -> None:
    class Algorithm:
        def improve(self, initial: Any, guidance: Any, prompts: Any, stage: Any) -> None: ...

        def respond(self, folder: Any, guidance: Any, prompts: Any, stage: Any, temperature: Any) -> object:
            return (Sample(torch.tensor([1, 2]), "ab", np.bool_(True)) for _ in range(2))  # type: ignore[arg-type]

    algorithm = check_returns(Algorithm, "algorithm", f"algorithm 'acme/foo' {OWNER}")()
    assert algorithm.respond(None, None, PROMPTS[:2], None, 1.0) == [Sample([1, 2], "ab", True)] * 2
    with pytest.raises(PluginError, match=r"algorithm 'acme/foo' of rlaif-acme 1\.2: returned 2 samples for 4 prompts"):
        algorithm.respond(None, None, PROMPTS, None, 1.0)


def test_the_class_keeps_its_name_its_module_and_its_kind() -> None:
    class Labeler:
        """Labels."""

        def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
            yield from ()

    checked = check_returns(Labeler, "labeler", "labeler 'x'")
    assert (checked.__name__, checked.__module__, checked.__doc__) == ("Labeler", __name__, "Labels.")
    assert issubclass(checked, Labeler)


def test_a_record_of_another_type_is_refused() -> None:
    with pytest.raises(RlaifError, match="here: 3 is not of type Sample"):
        read_record(Sample, 3, "here")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(3), "returned tensor([1., 1., 1.]) instead of two values"),
        ((torch.ones(3), None, None), "instead of two values"),
        ((np.ones(3), None), "returned a ndarray instead of a Tensor"),
        ((None, torch.ones(3)), "returned a NoneType instead of a Tensor"),
        ((torch.ones(2), None), "returned a tensor of shape (2,) for 3 tokens; return shape (3,)"),
        ((torch.ones(3, 1), None), "returned a tensor of shape (3, 1) for 3 tokens"),
        ((torch.ones(3), torch.ones(1)), "returned a tensor of shape (1,) for 3 tokens"),
        ((torch.tensor([0, math.nan, math.inf]), None), "returned nan for 2 of 3 tokens; return finite numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_advantages_name_the_algorithm(value: object, message: str) -> None:
    class Algorithm:
        def improve(self, initial: Any, guidance: Any, prompts: Any, stage: Any) -> None: ...

        def compute_advantages(self, rewards: Any, experience: Any) -> object:
            return value if experience is None else experience

        def surrogate(self, log_ratios: Any, advantages: Any, response_index: Any) -> object:
            return value

    algorithm = check_returns(Algorithm, "algorithm", f"algorithm 'acme/foo' {OWNER}")()
    right = torch.zeros(3), None
    assert algorithm.compute_advantages(torch.ones(3), right) == right
    calls: list[Callable[[], object]] = [lambda: algorithm.compute_advantages(torch.ones(3), None)]
    if "(1,)" not in message:  # the second value of a surrogate loss is for ratios, which may be of responses
        calls.append(lambda: algorithm.surrogate(torch.ones(3), torch.ones(3), torch.zeros(3)))
    for call in calls:
        with pytest.raises(TrainingError) as caught:
            call()
        assert str(caught.value).startswith(f"algorithm 'acme/foo' {OWNER}: ")
        assert str(caught.value).startswith(f"algorithm 'acme/foo' {OWNER}: ")
        assert message in str(caught.value)


def test_values_that_a_diverging_policy_makes_infinite_are_not_those_of_the_algorithm() -> None:
    class Algorithm:
        def improve(self, initial: Any, guidance: Any, prompts: Any, stage: Any) -> None: ...

        def compute_advantages(self, rewards: Any, experience: Any) -> object:
            return rewards, None

        def surrogate(self, log_ratios: Any, advantages: Any, response_index: Any) -> object:
            return log_ratios.exp() * advantages, log_ratios

    algorithm = check_returns(Algorithm, "algorithm", "algorithm")()
    rewards = torch.tensor([math.nan])
    assert algorithm.compute_advantages(rewards, None)[0] is rewards
    losses, _ = algorithm.surrogate(torch.tensor([100.0]), torch.ones(1), torch.zeros(1))
    assert losses.tolist() == [math.inf]


def test_what_a_backend_says_of_the_length_of_a_question_is_validated() -> None:
    class Backend:
        def identity(self) -> str:
            return "x"

        def fits(self, question: Any, new_tokens: int) -> object:
            return question

        def answer(self, requests: Any) -> Any:
            return iter(())

    backend = check_returns(Backend, "backend", f"backend 'acme/foo' {OWNER}")()
    assert backend.fits(np.True_, 1) is True
    with pytest.raises(PluginError, match=rf"^backend 'acme/foo' {OWNER}: fits\(\) returned None instead of a bool"):
        backend.fits(None, 1)
