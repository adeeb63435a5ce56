"""The free-form strategy: ask for free text, and parse the verdict in its last line."""

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
    hookimpl,
)

EMPHASIS = re.compile(r"[*_`]")  # of Markdown
RULE = " \t#>-=~"
"""Characters of lines without words, such as the rule `---` that some models put at the end."""
VERDICT = re.compile(
    r"""[\s#-]*verdict\s*:\s*["'(\[]?(?:answer|response|summary)?\s*\#?\s*(1|2|tie)["')\]]?[\s.!]*""", re.IGNORECASE
)
PROBABILITIES = {"1": (1.0, 0.0), "2": (0.0, 1.0), "tie": (0.5, 0.5)}


class FreeFormConfig(StrategyConfig):
    """Ask for free text that ends with a line `Verdict: 1`, `Verdict: 2` or `Verdict: tie`."""

    kind: Literal["free-form"] = "free-form"
    max_new_tokens: int = Field(512, ge=1)
    """Maximum length of the answer."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature; 0 is greedy."""

    @property
    def longest_answer(self) -> int:
        """The maximum length of the answer."""
        return self.max_new_tokens


class FreeForm:
    """Asks for free text, for models that cannot answer with a single token. Probabilities are then 0, 0.5 or 1."""

    def __init__(self, config: FreeFormConfig, context: Context) -> None:
        self.config = config
        self.seed = context.seed

    def elicit(self, ask: Annotation) -> Generator[Asked, Any, Ballot]:
        """Ask for free text, and parse the verdict."""
        seed = ask.derive_seed(self.seed, "free form")
        answer = yield Generate(ask.ask_verdict(), self.config.max_new_tokens, self.config.temperature, seed=seed)
        verdict = read_verdict(answer.text)
        return Ballot(verdict, rationale=answer.text, sampled=0 if verdict is None else 1)


def read_verdict(text: str) -> tuple[float, float] | None:
    """Parse the verdict of a free-form answer.

    The last line that contains a word must be `Verdict:` followed by 1, 2 or tie. It may be called answer, response or
    summary, numbered with `#`, quoted and emphasised: `**Verdict: Answer 2**`, `Verdict: Summary #2.` Earlier verdicts
    are ignored, since they are part of the reasoning, and so are quotations (`> Verdict: 1`).

    Returns:
        Probabilities of the two responses; None if the last line is anything else, e.g. ambiguous (`Verdict: 1 or 2`).
    """
    plain = (EMPHASIS.sub("", line) for line in text.splitlines())
    lines = [line for line in plain if line.strip(RULE)]
    # `fullmatch`: a line such as `Verdict: 1 or 2` must not be read as 1.
    found = VERDICT.fullmatch(lines[-1]) if lines else None
    return PROBABILITIES[found[1].lower()] if found else None


@hookimpl
def rlaif_prompt_strategies() -> Iterable[Component]:
    """Offer `free-form`."""
    yield Component("free-form", FreeFormConfig, "rlaif_plugins.strategies.free_form:FreeForm")
