"""Subclass the classes of components so that whatever their methods return is validated and converted.

This is the one place where values of plugins enter: whoever builds a component, a stage, another component or a test,
gets validated values. `check_returns` is called when the class of a component is imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from reprlib import repr as short
from types import new_class
from typing import TYPE_CHECKING, Any

from rlaif_framework.contracts.protocols import (
    AdvantageEstimator,
    DescribedData,
    Guidance,
    PromptFormat,
    ReportingReward,
    Responder,
    Reward,
    TermedReward,
)
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.contracts.task_checks import TaskRows, check_metrics, check_truncated
from rlaif_framework.contracts.validation import (
    check_answers,
    check_ballot,
    check_measures,
    check_metric,
    check_preferences,
    check_samples,
    check_scores,
    check_terms,
    check_token_values,
)
from rlaif_framework.contracts.values import check_text, check_type, read_items, to_plain
from rlaif_framework.errors import PluginError
from rlaif_framework.records.annotation import Annotation
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.preferences import Comparison, LabelledComparison, Preference, Prompt, Split
from rlaif_framework.records.requests import Answer, Asked, Question, Request
from rlaif_framework.records.samples import Sample

if TYPE_CHECKING:
    from rlaif_framework.data.annotator_prompts import AnnotatorPrompts

Overrides = Mapping[str, Callable[..., Any]]
"""Methods of a subclass, by name."""


@cache
def check_returns(target: type[Any], slot: str, owner: str) -> type[Any]:
    """Return a subclass of a component's class whose methods validate what the class returns.

    Args:
        target: The class. It satisfies the protocol of the slot.
        slot: The kind of component.
        owner: Title of the component with its distribution and version, for error messages.
    """
    overrides = _OVERRIDES[slot](target, owner)
    # The module stays: answers are cached under the code of the backend's module.
    names = {"__module__": target.__module__, "__qualname__": target.__qualname__, "__doc__": target.__doc__}
    return new_class(target.__name__, (target,), exec_body=lambda body: body.update({**overrides, **names}))


def _override_task(target: type[Any], owner: str) -> Overrides:
    def data(self: Any) -> TaskRows:
        # One for each task; the subclass has attributes even if the class limits them by `__slots__`.
        found: TaskRows = vars(self).setdefault("_checked_data", TaskRows(owner))
        return found

    def prompts(self: Any, split: Split) -> Sequence[Prompt]:
        return data(self).prompts(split, lambda split: target.prompts(self, split))

    def comparisons(self: Any, split: Split) -> Sequence[Comparison]:
        return data(self).comparisons(split, lambda split: target.comparisons(self, split))

    def truncate(self: Any, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        return check_truncated(target.truncate(self, prompt, fits), prompt, owner)

    def clean(self: Any, response: str) -> str:
        return check_text(target.clean(self, response), f"{owner}: clean()")

    def measure(self: Any, prompt: Prompt, response: str) -> Mapping[str, float]:
        return check_metrics(target.measure(self, prompt, response), prompt, owner)

    def annotator_prompts(self: Any) -> AnnotatorPrompts:
        from rlaif_framework.data.annotator_prompts import AnnotatorPrompts  # imports jinja2

        where = f"{owner}: annotator_prompts()"
        prompts = check_type(target.annotator_prompts(self), AnnotatorPrompts, where)
        check_text(json.dumps(prompts.model_dump(mode="json"), ensure_ascii=False), where)
        return prompts

    def data_notes(self: Any) -> Sequence[str]:
        notes = read_items(target.data_notes(self)) or []
        return [check_text(note, f"{owner}: data_notes()") for note in notes]

    def format_prompt(self: Any, text: str) -> Prompt:
        return check_type(target.format_prompt(self, text), Prompt, f"{owner}: format_prompt()")

    found: list[Callable[..., Any]] = [prompts, comparisons, truncate, clean, measure, annotator_prompts]
    found += [data_notes] if issubclass(target, DescribedData) else []
    found += [format_prompt] if issubclass(target, PromptFormat) else []
    return _collect(*found)


def _override_backend(target: type[Any], owner: str) -> Overrides:
    def identity(self: Any) -> str:
        return check_text(target.identity(self), f"{owner}: identity()")

    def fits(self: Any, question: Question, new_tokens: int) -> bool:
        return check_type(to_plain(target.fits(self, question, new_tokens)), bool, f"{owner}: fits()")

    def answer(self: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        return check_answers(target.answer(self, requests), requests, owner)

    return _collect(identity, fits, answer)


def _override_strategy(target: type[Any], owner: str) -> Overrides:
    def elicit(self: Any, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        asked = target.elicit(self, ask)
        if not isinstance(asked, Generator):  # a function without a yield returns the ballot itself
            raise PluginError(f"{owner}: elicit() returned {short(asked)} and yielded no request; yield one first")
        ballot = yield from asked
        return check_ballot(ballot, f"{owner}, comparison '{ask.identity}'")

    return _collect(elicit)


def _override_labeler(target: type[Any], owner: str) -> Overrides:
    def label(self: Any, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        return check_preferences(target.label(self, comparisons), comparisons, owner)

    return {**_collect(label), **_override_scores(target, owner)}


def _override_scores(target: type[Any], owner: str) -> Overrides:
    """Override the methods of a reward that a labeler which scores responses has."""

    def score(self: Any, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        return check_scores(target.score(self, prompts, responses), prompts, responses, owner)

    def measures(self: Any) -> Mapping[str, Sequence[float]]:
        return check_measures(target.measures(self), owner)

    found = [score] if issubclass(target, Reward) else []
    return _collect(*found, *([measures] if issubclass(target, ReportingReward) else []))


def _override_reward(target: type[Any], owner: str) -> Overrides:
    def fit(self: Any, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        stage.component = owner
        target.fit(self, labels, initial, stage)
        stage.read_facts()

    def load(self: Any, folder: Path) -> Reward:
        reward = target.load(self, folder)
        if not isinstance(reward, Reward):
            raise PluginError(f"{owner}: load() returned {short(reward)}, which has no method score()")
        return CheckedTermedReward(reward, owner) if isinstance(reward, TermedReward) else CheckedReward(reward, owner)

    return _collect(fit, load)


def _override_algorithm(target: type[Any], owner: str) -> Overrides:
    def improve(self: Any, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        stage.component = owner
        target.improve(self, initial, guidance, prompts, stage)
        stage.read_facts()

    def respond(
        self: Any, folder: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, temperature: float
    ) -> Sequence[Sample]:
        return check_samples(target.respond(self, folder, guidance, prompts, stage, temperature), prompts, owner)

    found: list[Callable[..., Any]] = [improve, *([respond] if issubclass(target, Responder) else [])]
    return {**_collect(*found), **_override_policy_gradient(target, owner)}


def _override_policy_gradient(target: type[Any], owner: str) -> Overrides:
    """Override the methods that an algorithm with `PolicyGradient` as its base class defines."""

    def compute_advantages(self: Any, rewards: Any, experience: Any) -> tuple[Any, Any]:
        value = target.compute_advantages(self, rewards, experience)
        return check_token_values(
            value, rewards, f"{owner}: compute_advantages()", both=True, finite=bool(rewards.isfinite().all())
        )

    def surrogate(self: Any, log_ratios: Any, advantages: Any, response_index: Any) -> tuple[Any, Any]:
        value = target.surrogate(self, log_ratios, advantages, response_index)
        # The ratio of a policy that diverges overflows, which is no fault of the algorithm.
        finite = bool(log_ratios.detach().exp().isfinite().all())
        return check_token_values(value, log_ratios, f"{owner}: surrogate()", both=False, finite=finite)

    return _collect(compute_advantages, surrogate) if issubclass(target, AdvantageEstimator) else {}


def _override_metric(target: type[Any], owner: str) -> Overrides:
    def measure(self: Any, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        return check_metric(target.measure(self, prompts, responses), prompts, owner)

    return _collect(measure)


_OVERRIDES: Mapping[str, Callable[[type[Any], str], Overrides]] = {
    "task": _override_task,
    "backend": _override_backend,
    "strategy": _override_strategy,
    "labeler": _override_labeler,
    "reward": _override_reward,
    "algorithm": _override_algorithm,
    "metric": _override_metric,
    "tracker": lambda target, owner: {},  # its methods return nothing
}


def _collect(*methods: Callable[..., Any]) -> Overrides:
    return {method.__name__: method for method in methods}


class CheckedReward:
    """A loaded reward whose scores and measures are validated. Its other attributes are those of the reward."""

    def __init__(self, reward: Reward, owner: str) -> None:
        self._reward, self._owner = reward, owner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_reward":  # of a copy, which has no reward yet
            raise AttributeError(name)
        return getattr(self._reward, name)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score responses; see `Reward.score`."""
        return check_scores(self._reward.score(prompts, responses), prompts, responses, self._owner)

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return what the last call of `score` measured; see `ReportingReward.measures`."""
        reward = self._reward
        return check_measures(reward.measures(), self._owner) if isinstance(reward, ReportingReward) else {}


class CheckedTermedReward(CheckedReward):
    """A loaded reward whose terms are validated as well."""

    def score_terms(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """Return the terms of the scores; see `TermedReward.score_terms`."""
        reward = self._reward
        assert isinstance(reward, TermedReward)
        return check_terms(reward.score_terms(prompts, responses), prompts, responses, self._owner)
