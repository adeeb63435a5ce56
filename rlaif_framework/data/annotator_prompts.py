"""The texts an annotator is asked with: preambles, exemplars, endings, rubric. A user can replace any of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from jinja2 import Environment, StrictUndefined, TemplateError
from pydantic import AfterValidator, Field, ValidationError

from rlaif_framework.config import Config
from rlaif_framework.errors import DataError, suggest
from rlaif_framework.records.annotation import Annotation
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.requests import Question

_JINJA = Environment(undefined=StrictUndefined, keep_trailing_newline=True)


def _check_template(*names: str) -> Any:
    def check(text: str) -> str:
        try:
            rendered = _JINJA.from_string(text).render({name: f"\0{name}\0" for name in names})
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"not a template over {', '.join(names)}: {error}") from error
        missing = [name for name in names if f"\0{name}\0" not in rendered]
        if missing:
            raise ValueError(f"it does not use {', '.join(f'{{{{ {name} }}}}' for name in missing)}")
        return text

    return AfterValidator(check)


class Exemplar(Config):
    """A comparison with its answer, shown before the one that is asked about."""

    id: str
    """Names it in a strategy's `exemplars`."""
    source: str
    """The text, or the dialogue so far."""
    responses: tuple[str, str]
    """Both responses."""
    preferred: Literal[1, 2]
    """The right answer to the question as it is put: of a harmlessness prompt, the MORE harmful response."""
    rationale: str
    """Thoughts that lead to the answer, for chain of thought."""


class RatingPrompt(Config):
    """The prompt for a score from 1 to 10 (RLAIF D)."""

    preamble: str
    """What is rated and what the numbers mean."""
    sample: Annotated[str, _check_template("source", "response")]
    """Template of the text and its response."""
    ending: str = "SCORE:"
    """Last words before the number."""


class AnnotatorPrompts(Config):
    """Everything an annotator reads, in the paper's order: preamble, exemplars, sample, ending (RLAIF Table 1)."""

    prefer: Literal["better", "worse"] = "better"
    """What the prompt asks for. `worse`: it asks which response is worse, and the answer is turned round before use."""
    preambles: dict[str, str]
    """Who the annotator is and what counts, by name: `base`, `detailed`, or your own."""
    label: str
    """Follows the preamble when the label is asked for at once."""
    explain: str
    """Follows it when an explanation is asked for first (chain of thought)."""
    verdict: str
    """Follows it when the answer is free text; asks for a last line `Verdict: 1`, `Verdict: 2` or `Verdict: tie`."""
    sample: Annotated[str, _check_template("source", "first", "second")]
    """Template of the sample to annotate."""
    ending: str
    """Last words before the label, without a trailing space."""
    rationale_ending: str
    """Last words before an explanation."""
    few_shot_rationale_ending: str | None = None
    """The same where exemplars are shown, whose explanations begin after it; default: `rationale_ending`."""
    exemplar: Annotated[str, _check_template("sample", "answer")] = (
        ">>>>>>>> Example >>>>>>>>\n\n{{ sample }}\n\n{{ answer }}"
    )
    """Template of an exemplar."""
    after_exemplars: str = ">>>>>>>> Follow the instructions and the example(s) above >>>>>>>>"
    """Stands between the last exemplar and the sample."""
    exemplars: list[Exemplar] = Field([])
    """Exemplars for few-shot prompts."""
    principles: list[str] = Field([])
    """Principles of which one is put after the preamble (Bai et al. 2022)."""
    rate: RatingPrompt
    """The prompt for a score."""

    @classmethod
    def load(cls, path: Path, own: Path | None = None) -> AnnotatorPrompts:
        """Read a task's annotator prompts; `own` is a user's file that replaces any of them, key by key.

        Raises:
            DataError: A file is missing, is no YAML mapping, or holds an unknown or wrong key.
        """
        data = _read(path)
        if own is not None:
            data |= _read(own)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            where = own or path
            lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
            raise DataError(f"{where}: " + "\n  ".join(lines)) from error

    @cached_property
    def _sample(self) -> Any:
        return _JINJA.from_string(self.sample)

    def annotate(
        self, prompt: Prompt, responses: tuple[str, str], *, preamble: str = "base", identity: str = ""
    ) -> Annotation:
        """Lay out one comparison in the order given.

        Args:
            prompt: Its prompt.
            responses: As they are shown.
            preamble: Name of the preamble.
            identity: The comparison's id, for choices a strategy makes at random.
        """
        self.check_preamble(preamble)
        return Annotation(
            preamble=self.preambles[preamble].strip(),
            label=self.label.strip(),
            explain=self.explain.strip(),
            verdict=self.verdict.strip(),
            sample=self.render(prompt.source, responses),
            ending=self.ending,
            rationale_ending=self.rationale_ending.strip(),
            after_exemplars=self.after_exemplars,
            identity=identity,
        )

    def check_preamble(self, name: str) -> None:
        """Refuse a name that no preamble has.

        Raises:
            DataError: The nearest name.
        """
        if name not in self.preambles:
            raise DataError(f"the task's annotator prompts have no preamble '{name}'; {suggest(name, self.preambles)}")

    def render(self, source: str, responses: tuple[str, str]) -> str:
        """The sample's text. Responses are put on one line each, so that none can pass for the lines after it."""
        first, second = (flatten(text) for text in responses)
        return str(self._sample.render(source=source.strip(), first=first, second=second)).strip()

    def render_exemplar(self, exemplar: Exemplar) -> tuple[str, str, str]:
        """An exemplar's text with its answer in the three forms of `Annotation.exemplars`."""
        label, rationale = f"{self.ending}{exemplar.preferred}", exemplar.rationale.strip()
        ending = self.few_shot_rationale_ending or self.rationale_ending
        # Free text begins with no words of ours, but a rationale's own beginning may be in the ending before it.
        said = f"{(self.few_shot_rationale_ending or '').strip()} {rationale}".strip()
        sample, template = self.render(exemplar.source, exemplar.responses), _JINJA.from_string(self.exemplar)
        first, second, third = (
            str(template.render(sample=sample, answer=answer)).strip()
            for answer in (
                label,
                f"{ending.strip()} {rationale}\n\n{label}",
                f"{said}\n\nVerdict: {exemplar.preferred}",
            )
        )
        return first, second, third

    def ask_rating(self, prompt: Prompt, response: str) -> Question:
        """The question for a score of one response (RLAIF D)."""
        sample = _JINJA.from_string(self.rate.sample).render(source=prompt.source.strip(), response=flatten(response))
        return Question(f"{self.rate.preamble.strip()}\n\n{sample.strip()}", prefill=self.rate.ending)


def flatten(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no file with annotator prompts at {path}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("<unicode string>", path.name)
        raise DataError(f"{path}: cannot be read as YAML: {reason}") from error
    except RecursionError as error:
        raise DataError(f"{path}: its lists and mappings are nested too deeply") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a mapping of texts, found {type(data).__name__}")
    return data
