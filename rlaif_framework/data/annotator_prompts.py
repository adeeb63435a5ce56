"""Prompt templates for annotators: preambles, exemplars, endings, ratings. A user can replace any of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from rlaif_framework.config import Config
from rlaif_framework.data.mappings import read_mapping
from rlaif_framework.data.templates import Template, TemplateFault
from rlaif_framework.errors import DataError, suggest
from rlaif_framework.records.annotation import Annotation
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.requests import Question


def _check_template(*names: str) -> Any:
    def check(text: str) -> str:
        # \0 cannot occur in a template, so a marker in the result shows that the template uses its value.
        try:
            rendered = Template("template", text).render(**{name: f"\0{name}\0" for name in names})
        except TemplateFault as fault:
            raise ValueError(f"not a valid template of {', '.join(names)}: {fault.reason}") from fault
        missing = [name for name in names if f"\0{name}\0" not in rendered]
        if missing:
            raise ValueError(f"it does not use {', '.join(f'{{{{ {name} }}}}' for name in missing)}")
        return text

    return AfterValidator(check)


class Exemplar(Config):
    """A comparison with its answer, shown before the comparison to label."""

    id: str
    """Id by which a strategy's `exemplars` selects it."""
    source: str
    """The text, or the dialogue up to the responses."""
    responses: tuple[str, str]
    """The two responses."""
    preferred: Literal[1, 2]
    """The correct answer to the question. For a harmlessness prompt, it is the MORE harmful response."""
    rationale: str
    """The reasoning that leads to the answer, for chain of thought."""


class RatingPrompt(Config):
    """The prompt for a score from 1 to 10 (RLAIF D)."""

    preamble: str
    """Describes what is rated and what the scores mean."""
    sample: Annotated[str, _check_template("source", "response")]
    """Template of the text and its response."""
    ending: str = "SCORE:"
    """The text right before the score."""


class AnnotatorPrompts(Config):
    """The parts of an annotator's prompt: preamble, exemplars, sample, ending (RLAIF Table 1)."""

    prefer: Literal["better", "worse"] = "better"
    """The response that the prompt asks for. If `worse`, the answer is inverted to get the label."""
    preambles: dict[str, str]
    """Descriptions of the annotator's role and of the criteria, by name: `base`, `detailed`, or your own."""
    label: str
    """Follows the preamble if the label is requested without an explanation."""
    explain: str
    """Follows the preamble if an explanation is requested first (chain of thought)."""
    verdict: str
    """Follows the preamble if the answer is free text. It asks for a last line `Verdict: 1`, `Verdict: 2` or
    `Verdict: tie`."""
    sample: Annotated[str, _check_template("source", "first", "second")]
    """Template of the comparison to label."""
    ending: str
    """The text right before the label, without a trailing space."""
    rationale_ending: str
    """The text right before an explanation."""
    few_shot_rationale_ending: str | None = None
    """Replaces `rationale_ending` if exemplars are shown. Their explanations begin with it as well."""
    exemplar: Annotated[str, _check_template("sample", "answer")] = (
        ">>>>>>>> Example >>>>>>>>\n\n{{ sample }}\n\n{{ answer }}"
    )
    """Template of an exemplar."""
    after_exemplars: str = ">>>>>>>> Follow the instructions and the example(s) above >>>>>>>>"
    """The text between the last exemplar and the sample."""
    exemplars: list[Exemplar] = Field([])
    """Exemplars for few-shot prompts."""
    principles: list[str] = Field([])
    """Principles, one of which is put after the preamble (Bai et al. 2022)."""
    rate: RatingPrompt
    """The prompt for a score."""

    @classmethod
    def load(cls, path: Path, own: Path | Mapping[str, Any] | None = None) -> AnnotatorPrompts:
        """Read a task's annotator prompts.

        Args:
            path: The task's file.
            own: What a user overrides key by key, as a file or a mapping. The parts of `rate` are keys of their own.

        Raises:
            DataError: A file is missing, not a mapping, or has an unknown or invalid key.
        """
        data = read_mapping(path, "annotator prompts")
        changes = read_mapping(own, "annotator prompts") if isinstance(own, Path) else own or {}
        for key, value in changes.items():
            nested = key == "rate" and isinstance(value, Mapping)
            data[key] = {**data[key], **value} if nested else value
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            where = "task.annotator_prompts" if isinstance(own, Mapping) else own or path  # the task's file is valid
            lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
            raise DataError(f"{where}: " + "\n  ".join(lines)) from error

    # Compiled once, since they are rendered for every comparison.

    @cached_property
    def _sample(self) -> Template:
        return Template("the annotator prompt 'sample'", self.sample)

    @cached_property
    def _exemplar(self) -> Template:
        return Template("the annotator prompt 'exemplar'", self.exemplar)

    @cached_property
    def _rate_sample(self) -> Template:
        return Template("the annotator prompt 'rate.sample'", self.rate.sample)

    def annotate(
        self,
        prompt: Prompt,
        responses: tuple[str, str],
        *,
        preamble: str = "base",
        identity: str = "",
        swapped: bool = False,
    ) -> Annotation:
        """Render one comparison in the given order.

        Args:
            prompt: The prompt of the comparison.
            responses: The responses in the order in which they are shown.
            preamble: Name of the preamble.
            identity: The comparison's id, for random choices of a strategy.
            swapped: True if the responses are shown in the other order than in the data.
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
            swapped=swapped,
        )

    def check_preamble(self, name: str) -> None:
        """Check that a preamble exists.

        Raises:
            DataError: There is no such preamble.
        """
        if name not in self.preambles:
            raise DataError(f"the task's annotator prompts have no preamble '{name}'; {suggest(name, self.preambles)}")

    def render(self, source: str, responses: tuple[str, str]) -> str:
        """Render the sample. Each response is put on one line, so that it cannot imitate the lines that follow it."""
        first, second = (flatten(text) for text in responses)
        return self._sample.render(source=source.strip(), first=first, second=second).strip()

    def render_exemplar(self, exemplar: Exemplar) -> tuple[str, str, str]:
        """Render an exemplar with its answer in the three forms of `Annotation.exemplars`."""
        label, rationale = f"{self.ending}{exemplar.preferred}", exemplar.rationale.strip()
        ending = self.few_shot_rationale_ending or self.rationale_ending
        # Free text has no ending of the prompt before it, but the rationale may continue the text of that ending.
        free_text = f"{(self.few_shot_rationale_ending or '').strip()} {rationale}".strip()
        sample = self.render(exemplar.source, exemplar.responses)
        first, second, third = (
            self._exemplar.render(sample=sample, answer=answer).strip()
            for answer in (
                label,
                f"{ending.strip()} {rationale}\n\n{label}",
                f"{free_text}\n\nVerdict: {exemplar.preferred}",
            )
        )
        return first, second, third

    def ask_rating(self, prompt: Prompt, response: str, ending: str | None = None) -> Question:
        """Create the question for a score of one response (RLAIF D); `ending` replaces the ending of the prompts."""
        sample = self._rate_sample.render(source=prompt.source.strip(), response=flatten(response))
        return Question(f"{self.rate.preamble.strip()}\n\n{sample.strip()}", prefill=ending or self.rate.ending)


def flatten(text: str) -> str:
    """Put a text on one line."""
    return " ".join(text.split())
