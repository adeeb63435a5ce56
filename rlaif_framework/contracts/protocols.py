"""The contracts of the six kinds of components. A component's class is called as `Class(config, context)`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rlaif_framework.records.annotation import Annotation
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.preferences import Comparison, LabelledComparison, Preference, Prompt, Split
from rlaif_framework.records.requests import Answer, Asked, Question, Request

if TYPE_CHECKING:
    from rlaif_framework.contracts.stage import Stage
    from rlaif_framework.data.annotator_prompts import AnnotatorPrompts
    from rlaif_framework.records.samples import Sample


@runtime_checkable
class Task(Protocol):
    """The data and the words: prompts, comparisons, and how an annotator is asked about them."""

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Prompts of a split, with a reference where there is one. Texts are whole: see `shorten`."""
        ...

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Comparisons of a split with their known preferences; empty if the data has none."""
        ...

    def truncate(self, prompt: Prompt, fits: Callable[[str], bool]) -> Prompt:
        """Cut the source of a prompt until `fits(prompt.text)`; never the cue, never a response."""
        ...

    def annotator_prompts(self) -> AnnotatorPrompts:
        """The texts an annotator is asked with (RLAIF 2.1)."""
        ...

    def clean(self, response: str) -> str:
        """Tidy a sampled response before it is scored or shown (RLAIF 4: superfluous trailing symbols)."""
        ...

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Metrics of one response that need no model, such as length, ROUGE and copy rate."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A language model that can generate and score."""

    def identity(self) -> str:
        """What tells its answers from another backend's: the model's contents and all settings that change answers.

        Answers are cached under it. It must hold no secret.
        """
        ...

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Whether a question and an answer of so many tokens fit into the model's context."""
        ...

    def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
        """Answer requests: yield `(index of the request, answer)` in any order, each as soon as it is known.

        Batching and concurrency are the backend's own business. An answer is kept as soon as it is yielded. A request
        that cannot be answered whatever the others are is answered with the reason in `refused`, which is not kept.
        """
        ...


@runtime_checkable
class PromptStrategy(Protocol):
    """How a labeler elicits a preference from a backend, written for one comparison in one order."""

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Yield a request and receive its answer, or several and receive a list of answers; return the ballot."""
        ...


@runtime_checkable
class Labeler(Protocol):
    """Comparisons in, preferences out."""

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Yield one preference for each comparison, in their order."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores responses. Text goes in, so any tokenizer may be inside."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score each response to the prompt at the same place; higher is better. Never depends on the batch."""
        ...


@runtime_checkable
class TermedReward(Protocol):
    """A reward that is a sum of terms, each of which is worth a curve of its own."""

    def score_terms(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """The terms of each response's score by name; for each response they add up to what `score` gives."""
        ...


@runtime_checkable
class RewardModel(Protocol):
    """Fits preferences and gives a `Reward`. One that needs no fitting leaves `fit` empty."""

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train on labelled comparisons and save into `stage.folder`.

        Args:
            labels: Comparisons and their soft labels.
            initial: The model folder of the supervised baseline, to start from.
            stage: Where to write, log, checkpoint and draw seeds.
        """
        ...

    def load(self, folder: Path) -> Reward:
        """Open what `fit` saved."""
        ...


@dataclass(frozen=True, slots=True)
class Guidance:
    """What tells an algorithm which responses are better: its arm's reward, its labels, or both."""

    reward: Reward | None = None
    """Scores responses; None for an arm without a reward."""
    reward_folder: Path | None = None
    """What the reward model saved, for algorithms that start their value model from it."""
    labels: Sequence[LabelledComparison] = ()
    """The arm's labelled comparisons, for algorithms that are trained on preferences."""


@runtime_checkable
class Algorithm(Protocol):
    """Improves a policy against a reward, or from preferences."""

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy and save it into `stage.folder` as a `save_pretrained` folder.

        Args:
            initial: The model folder it starts from (the supervised baseline; in a later round, the policy so far):
                policy and KL reference both start here.
            guidance: Tells which responses are better.
            prompts: To sample responses to.
            stage: Where to write, log, checkpoint and draw seeds.
        """
        ...


@runtime_checkable
class Responder(Protocol):
    """An algorithm that answers test prompts itself; its config says `responds = True`."""

    def respond(
        self, folder: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, temperature: float
    ) -> Sequence[Sample]:
        """Answer each prompt.

        Args:
            folder: What `improve` saved.
            guidance: The arm's reward.
            prompts: Test prompts, source_truncated to fit.
            stage: Seeds and progress.
            temperature: What other policies are sampled with; an algorithm may have its own.
        """
        ...


PROTOCOLS: Mapping[str, type] = {
    "task": Task,
    "backend": Backend,
    "strategy": PromptStrategy,
    "labeler": Labeler,
    "reward": RewardModel,
    "algorithm": Algorithm,
}
