"""Chat templates render as in transformers, within the bound on their work."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer

from rlaif_framework.data import TemplateFault
from rlaif_framework.models.chat import fix_date
from rlaif_framework.models.chat_templates import render_chat
from rlaif_framework.records.preferences import Turn

TRL = find_spec("trl")
FOLDERS = TRL.submodule_search_locations or [] if TRL else []
TEMPLATES = sorted(path for folder in FOLDERS for path in Path(folder, "chat_templates").glob("*.jinja"))
DIALOGUES = [
    [Turn("user", "Why is the sky blue?")],
    [
        Turn("system", "Be brief."),
        Turn("user", "Hi"),
        Turn("assistant", "<think>hm</think>Hello  "),
        Turn("user", "And?\n"),
    ],
]


@pytest.mark.skipif(not TEMPLATES, reason="TRL is not installed")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("continued", [True, False])
def test_published_templates_render_as_in_transformers(path: Path, continued: bool, tiny_model: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = fix_date(path.read_text(encoding="utf-8"))
    for turns in DIALOGUES:
        messages = [turn._asdict() for turn in turns]
        try:
            expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=continued)
        except TemplateError:
            with pytest.raises(TemplateFault):
                render_chat(tokenizer, turns, continued)
        else:
            assert render_chat(tokenizer, turns, continued) == expected
