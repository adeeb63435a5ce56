"""Questions rendered by chat templates that hold a date or open a thought."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rlaif_framework import Choose, Context, PluginManager, Question, Spec
from rlaif_framework.models import QuestionTemplate
from rlaif_framework.models.chat import complete_prompt, fix_date
from rlaif_plugins.backends.transformers import TransformersConfig
from rlaif_plugins.backends.transformers.backend import TransformersBackend

DAY = datetime.date(2024, 7, 9)
BODY = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>"
# As in the templates of Llama 3.1 and Granite.
DATED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    "{%- endif %}Today: {{ date_string }} or {{ strftime_now('%B %-d, %Y') }}" + BODY + "{% endif %}"
)


def render(tiny_model: Path, template: str, text: str = "hello") -> QuestionTemplate:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = fix_date(template, DAY)
    complete_prompt(tokenizer)
    return QuestionTemplate(tokenizer)


def test_a_template_gets_the_same_date_every_day(tiny_model: Path) -> None:
    rendered = render(tiny_model, DATED).render("hello")
    assert rendered == "Today: 09 Jul 2024 or July 9, 2024<user>hello<assistant>"


def test_a_template_without_a_date_is_unchanged() -> None:
    assert fix_date(BODY, DAY) == BODY


@pytest.mark.parametrize(
    "opening",
    [
        "",
        "<think>\n",  # DeepSeek R1, QwQ
        "<think>",
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",  # Qwen 3
    ],
)
def test_an_opened_thought_is_closed_before_the_answer(tiny_model: Path, opening: str) -> None:
    template = render(tiny_model, BODY + opening + "{% endif %}")
    closed = "<think>\n\n</think>\n\n" if opening else ""
    # The text may hold the tag as well.
    assert template.render("Is <think> a tag?") == f"<user>Is <think> a tag?<assistant>{closed}"
    assert template.has_empty_thought == bool(opening)


def test_the_label_is_read_after_the_thought(
    manager: PluginManager, tiny_spec: Callable[..., Spec], tiny_model: Path
) -> None:
    config = TransformersConfig(model=str(tiny_model), dtype="fp32", chat="yes")
    backend = TransformersBackend(config, Context.from_spec(tiny_spec(), manager))
    before = backend.identity()
    question = Question("Which is better?", "Preferred Summary=")
    (answer,) = dict(backend.answer([Choose(question, ("1", "2"))])).values()
    assert answer.read_from == ""
    plain = backend.render(question)
    backend.tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    complete_prompt(backend.tokenizer)
    start = plain.removesuffix(question.prefill)
    assert backend.render(question) == f"{start}<think>\n\n</think>\n\n{question.prefill}"
    assert backend.identity() != before
    (answer,) = dict(backend.answer([Choose(question, ("1", "2"))])).values()
    assert answer.read_from == "empty_thought", "the evidence does not say so"
    assert answer.mass
