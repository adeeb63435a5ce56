"""The free-form prompt strategy: an answer in words, whose last line is read."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import Any, Literal

from pydantic import Field

from rlaif_framework import (
    Annotation,
    Asked,
    Ballot,
    Component,
    Context,
    Generate,
    StrategyConfig,
    derive_seed,
    hookimpl,
)

EMPHASIS = re.compile(r"[*_`]")
RULE = " \t#>-=~"
"""What a line without a word is made of, such as the rule `---` that some models end with."""
VERDICT = re.compile(
    r"""[\s#-]*verdict\s*:\s*["'(\[]?(?:answer|response|summary)?\s*\#?\s*(1|2|tie)["')\]]?[\s.!]*""", re.IGNORECASE
)
PROBABILITIES = {"1": (1.0, 0.0), "2": (0.0, 1.0), "tie": (0.5, 0.5)}


class FreeFormConfig(StrategyConfig):
    """Ask for an answer in words that ends with a line `Verdict: 1`, `Verdict: 2` or `Verdict: tie`."""

    kind: Literal["free-form"] = "free-form"
    max_new_tokens: int = Field(512, ge=1)
    """Length of the answer at most."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature; 0 is greedy."""

    @property
    def longest_answer(self) -> int:
        """The maximum length of the answer."""
        return self.max_new_tokens


class FreeForm:
    """For models that only answer in words; a preference is then all or nothing."""

    def __init__(self, config: FreeFormConfig, context: Context) -> None:
        self.config = config
        self.seed = derive_seed(context.seed, "free form")

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask once, and read the verdict."""
        answer = yield Generate(ask.ask_verdict(), self.config.max_new_tokens, self.config.temperature, seed=self.seed)
        verdict = read_verdict(answer.text)
        return Ballot(verdict, rationale=answer.text, sampled=0 if verdict is None else 1)


def read_verdict(text: str) -> tuple[float, float] | None:
    """Probabilities of a free-form answer.

    The grammar: the last line with a word in it is `Verdict:` and one of 1, 2, tie, which may be called answer,
    response or summary, numbered by `#`, quoted and emphasised: `**Verdict: Answer 2**`, `Verdict: Summary #2.`
    Earlier verdicts are thoughts and are not looked at, and a quotation (`> Verdict: 1`) is somebody else's. A last
    line that says anything else, or more than one thing (`Verdict: 1 or 2`), is unparsed: None, never a number.
    """
    plain = (EMPHASIS.sub("", line) for line in text.splitlines())
    lines = [line for line in plain if line.strip(RULE)]
    found = VERDICT.fullmatch(lines[-1]) if lines else None
    return PROBABILITIES[found[1].lower()] if found else None


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `free-form`."""
    yield Component("free-form", FreeFormConfig, "rlaif_plugins.strategies.free_form:FreeForm")
