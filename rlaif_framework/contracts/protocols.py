"""The interfaces of the kinds of components. A component's class is called as `Class(config, context)`."""

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
    from rlaif_framework.contracts.lifecycle import StepInfo
    from rlaif_framework.contracts.stage import Stage
    from rlaif_framework.contracts.tracking import Table, TrackedRun
    from rlaif_framework.data.annotator_prompts import AnnotatorPrompts
    from rlaif_framework.records.samples import Sample


@runtime_checkable
class Task(Protocol):
    """The data of a run, and the prompt templates for annotators."""

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the prompts of a split, with references where the data has them. Texts are not truncated."""
        ...

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return the comparisons of a split with their gold preferences; empty if the data has none."""
        ...

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Truncate the source of a prompt until it fits; the cue and the instruction stay as they are.

        `Prompt.replace_source` returns the prompt with a shorter source; `rlaif_framework.data.truncate_passage` and
        `truncate_dialogue` truncate texts and dialogues.

        Raises:
            DataError: The prompt does not fit even without its source.
        """
        ...

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return the prompt templates for annotators (RLAIF 2.1)."""
        ...

    def clean(self, response: str) -> str:
        """Clean a sampled response before it is scored or shown (RLAIF 4: superfluous trailing symbols)."""
        ...

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Compute metrics of a response that need no model, such as length, ROUGE and copy rate.

        `Context.build_metrics` builds metrics that measure them.
        """
        ...


@runtime_checkable
class DescribedData(Protocol):
    """A task that describes what it left out of its data; a run and `rlaif plan` print it."""

    def data_notes(self) -> Sequence[str]:
        """Return a sentence for each group of rows that were left out, such as those of two splits."""
        ...


@runtime_checkable
class PromptFormat(Protocol):
    """A task that makes a prompt from a text that a user types; without it, `rlaif try` sends the text as it is."""

    def format_prompt(self, text: str) -> Prompt:
        """Return the prompt that the policy would get for this text, such as a post, as in its training.

        Raises:
            DataError: The text alone makes no prompt.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """A language model that answers requests."""

    def identity(self) -> str:
        """Return a string that identifies the model's contents and all settings that change its answers.

        Answers are cached under it, so it must not contain secrets.
        """
        ...

    def fits(self, question: Question, new_tokens: int) -> bool:
        """Return True if a question and `new_tokens` tokens of answer fit into the model's context."""
        ...

    def answer(self, requests: Sequence[Request]) -> Iterable[tuple[int, Answer]]:
        """Answer requests: yield `(index of the request, answer)` in any order, each as soon as it is available.

        The backend chooses batching and concurrency. Each yielded answer is cached at once. A request that can never be
        answered gets an answer with the reason in `refused`, which is not cached.
        """
        ...


@runtime_checkable
class PromptStrategy(Protocol):
    """A way to elicit a preference from a language model, written for one comparison in one order."""

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Yield a request and receive its answer, or yield several and receive a list of answers; return the ballot."""
        ...


@runtime_checkable
class Labeler(Protocol):
    """Labels comparisons with preferences."""

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Yield one preference per comparison, in their order."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores responses. It receives text, so it can use any tokenizer."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Score the responses to prompts, pairwise; higher is better. A score must not depend on the rest of the
        batch."""
        ...


@runtime_checkable
class TermedReward(Protocol):
    """A reward that is a sum of terms, which are logged separately."""

    def score_terms(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """Return the terms of each response's score by name; they add up to the result of `score`."""
        ...


@runtime_checkable
class ReportingReward(Protocol):
    """A reward that measures something besides the scores, which is logged."""

    def measures(self) -> Mapping[str, Sequence[float]]:
        """Return what the last call of `score` measured about responses, by name, e.g. `label_token_mass`."""
        ...


@runtime_checkable
class RewardModel(Protocol):
    """A reward that can be trained on preferences. If there is nothing to train, `fit` does nothing."""

    def fit(self, labels: Sequence[LabelledComparison], initial: Path, stage: Stage) -> None:
        """Train on labelled comparisons and save into `stage.folder`.

        Args:
            labels: Comparisons and their soft labels.
            initial: The model folder of the supervised baseline.
            stage: Folder, log, checkpoints and seeds.
        """
        ...

    def load(self, folder: Path) -> Reward:
        """Load the reward from the folder that `fit` saved into."""
        ...


@dataclass(frozen=True, slots=True)
class Guidance:
    """The training signal of an algorithm: the reward of its arm, its labels, or both."""

    reward: Reward | None = None
    """The reward; None for an arm without one."""
    reward_folder: Path | None = None
    """The folder that the reward model saved, for algorithms that initialise a value model from it."""
    labels: Sequence[LabelledComparison] = ()
    """The labelled comparisons of the arm, for algorithms that are trained on preferences."""


@runtime_checkable
class Algorithm(Protocol):
    """Trains a policy on a reward or on preferences."""

    def improve(self, initial: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage) -> None:
        """Train the policy and save it into `stage.folder` as a `save_pretrained` folder.

        Args:
            initial: The model folder of the initial policy, which is also the KL reference: the supervised baseline, or
                in a later round the current policy.
            guidance: The reward or the labelled comparisons.
            prompts: Prompts to sample responses for.
            stage: Folder, log, checkpoints and seeds.
        """
        ...


@runtime_checkable
class Responder(Protocol):
    """An algorithm that answers test prompts itself; its config has `responds = True`."""

    def respond(
        self, folder: Path, guidance: Guidance, prompts: Sequence[Prompt], stage: Stage, temperature: float
    ) -> Sequence[Sample]:
        """Answer each prompt.

        Args:
            folder: The folder that `improve` saved.
            guidance: The reward of the arm.
            prompts: Test prompts, truncated to fit.
            stage: Seeds and progress.
            temperature: Sampling temperature of the evaluation; an algorithm may use its own.
        """
        ...


@runtime_checkable
class AdvantageEstimator(Protocol):
    """An algorithm whose base class is `PolicyGradient`. Tensors are `Any`, since this module is imported without
    torch."""

    def compute_advantages(self, rewards: Any, experience: Any) -> tuple[Any, Any]:
        """Compute the advantages of tokens, and the targets of the value model."""
        ...

    def surrogate(self, log_ratios: Any, advantages: Any, response_index: Any) -> tuple[Any, Any]:
        """Compute the losses of tokens, and where clipping removes the gradient."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Measures responses."""

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Measure the responses to prompts, pairwise.

        A number must not depend on the rest of the batch.

        Returns:
            For each of the config's `names`, a number per response; None for a response that it does not apply to,
            such as one to a prompt without a reference.
        """
        ...


@runtime_checkable
class Tracker(Protocol):
    """Writes the settings and metrics of a run elsewhere, such as to an experiment tracker.

    Only the main process calls it. An error in `run_started` stops the run before anything is computed. Errors in all
    other methods are reported once and stop nothing. What else a tracker can receive is in `StageTracker`,
    `TableTracker` and `ResultTracker`.
    """

    def run_started(self, run: TrackedRun) -> None:
        """Create the tracked run with its settings, or continue it if `run.resumed` is True."""
        ...

    def step_logged(self, step: StepInfo, number: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a training step. Those of a stage whose artefact is reused are sent when it finishes.

        Args:
            step: The step of the run; its name, such as `rlaif/policy`, is a good prefix for the names of metrics.
            number: Number of the training step, from 1.
            metrics: Finite numbers by name.
        """
        ...

    def run_finished(self, error: BaseException | None) -> None:
        """Finish the tracked run; `error` is the exception that stopped the run, or None."""
        ...


@runtime_checkable
class StageTracker(Protocol):
    """A tracker that is told when stages start and finish."""

    def stage_started(self, step: StepInfo, resumed_at: int) -> None:
        """Note that a stage starts, or resumes from the training step `resumed_at`. Steps after it follow, also those
        that have been logged before if the config's `rewinds` is True. Also called for a reused stage, if its metrics
        follow."""
        ...

    def stage_finished(self, step: StepInfo) -> None:
        """Note that the metrics of a stage are complete."""
        ...


@runtime_checkable
class TableTracker(Protocol):
    """A tracker that shows tables of texts."""

    def table_logged(self, step: StepInfo, table: Table) -> None:
        """Log the labels of an arm, or samples of policies. Each table of a tracked run is sent once."""
        ...


@runtime_checkable
class ResultTracker(Protocol):
    """A tracker that shows the results of a run: win rates, agreement, rewards."""

    def results_measured(self, results: Mapping[str, float], report: Path) -> None:
        """Log the results of the evaluation.

        Args:
            results: Values by name, such as `win_rate/rlaif-vs-sft`, with the ends of their 95 % intervals:
                `win_rate/rlaif-vs-sft/low` and `/high`.
            report: The file `report.html`.
        """
        ...


# `runtime_checkable` cannot check signatures, so `check_target` compares the names of methods.
PROTOCOLS: Mapping[str, type] = {
    "task": Task,
    "backend": Backend,
    "strategy": PromptStrategy,
    "labeler": Labeler,
    "reward": RewardModel,
    "algorithm": Algorithm,
    "metric": Metric,
    "tracker": Tracker,
}
