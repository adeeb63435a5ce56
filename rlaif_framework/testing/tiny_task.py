"""The task `testing/tiny`: notes with summaries, for tests of components that need data and annotator prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rlaif_framework.assembly.context import Context
from rlaif_framework.data.annotator_prompts import AnnotatorPrompts
from rlaif_framework.data.text import truncate_text
from rlaif_framework.errors import DataError
from rlaif_framework.plugins.component import Component
from rlaif_framework.plugins.configs import TaskConfig
from rlaif_framework.plugins.hookspecs import hookimpl
from rlaif_framework.records.preferences import Comparison, Prompt, Split

NAMES = ("Ada", "Ben", "Cleo", "Dev", "Eve", "Finn", "Gia", "Hugo", "Ida", "Jon")
EVENTS = (
    ("missed the ferry", "the bus broke down"),
    ("sold the old piano", "nobody played it"),
    ("moved to the coast", "the city was too loud"),
    ("left the party early", "the baby was ill"),
)
SIZES: Mapping[Split, int] = {"train": 20, "validation": 8, "test": 8}
"""Number of prompts in each split; each has one comparison."""


class TinyTaskConfig(TaskConfig):
    """Summarise short notes: embedded data for tests."""

    kind: Literal["testing/tiny"] = "testing/tiny"


class TinyTask:
    """36 notes that say what happened and why. The preferred response gives the reason, after `because`."""

    def __init__(self, config: TinyTaskConfig, context: Context) -> None:
        self.splits = _make_splits()

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Return the prompts of a split, with references."""
        return [comparison.prompt for comparison in self.splits[split]]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Return one comparison for each prompt. In every second one, the second response is the better one."""
        return self.splits[split]

    def truncate(self, prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
        """Truncate the note at its end."""
        short = prompt.replace_source(truncate_text(prompt.source, lambda text: fits(prompt.replace_source(text))))
        if not fits(short):
            raise DataError(f"prompt '{prompt.id}': not even one word fits; raise policy.max_prompt_tokens")
        return short

    def annotator_prompts(self) -> AnnotatorPrompts:
        """Return prompts with two preambles, two exemplars and two principles."""
        return AnnotatorPrompts.model_validate(ANNOTATOR_PROMPTS)

    def clean(self, response: str) -> str:
        """Strip white space."""
        return response.strip()

    def measure(self, prompt: Prompt, response: str) -> Mapping[str, float]:
        """Return the number of words."""
        return {"words": float(len(response.split()))}


def _make_splits() -> dict[Split, list[Comparison]]:
    notes = [_make_comparison(n, name, *event) for n, (name, event) in enumerate((n, e) for n in NAMES for e in EVENTS)]
    splits: dict[Split, list[Comparison]] = {}
    for split, size in SIZES.items():
        splits[split], notes = notes[:size], notes[size:]
    return splits


def _make_comparison(number: int, name: str, event: str, reason: str) -> Comparison:
    source = f"Yesterday {name} {event}. We all wondered about it. Later it turned out that {reason}."
    reference = f"{name} {event} because {reason}."
    prompt = Prompt(str(number), f"NOTE: {source}\n\nSUMMARY:", source, reference)
    pair = (f"{name} {event}, because {reason}", f"Something happened to {name}.")
    first = number % 2 == 0
    return Comparison(str(number), prompt, pair if first else pair[::-1], float(first), "human")


ANNOTATOR_PROMPTS: Mapping[str, Any] = {
    "preambles": {
        "base": "A good summary says what happened and why. Below are a note and two summaries.",
        "detailed": "A good summary is short, true and gives the reason. Below are a note and two summaries.",
    },
    "label": "Output 1 or 2 to say which summary is better.",
    "explain": "Explain which summary is better.",
    "verdict": 'Explain which summary is better. End with the line "Verdict: 1", "Verdict: 2" or "Verdict: tie".',
    "sample": "Note - {{ source }}\nSummary 1 - {{ first }}\nSummary 2 - {{ second }}",
    "ending": "Preferred Summary=",
    "rationale_ending": "Rationale:",
    "exemplars": [
        {
            "id": "keys",
            "source": "Kim lost the keys. There was a hole in the pocket.",
            "responses": ["Kim lost the keys because of a hole.", "Keys."],
            "preferred": 1,
            "rationale": "Summary 1 gives the reason.",
        },
        {
            "id": "train",
            "source": "Lou took the train. The car was at the garage.",
            "responses": ["A car.", "Lou took the train because the car was at the garage."],
            "preferred": 2,
            "rationale": "Summary 2 gives the reason.",
        },
    ],
    "principles": ["Judge by the reason alone.", "Judge by clarity alone."],
    "rate": {
        "preamble": "Rate the summary of a note from 1 (bad) to 10 (good).",
        "sample": "Note - {{ source }}\nSummary - {{ response }}",
    },
}


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `testing/tiny`."""
    yield Component("testing/tiny", TinyTaskConfig, f"{__name__}:TinyTask")
