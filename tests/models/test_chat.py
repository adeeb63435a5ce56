"""Prompts and responses are encoded as the chat template of a model writes them."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlaif_framework import ModelError, Prompt, RlaifError, Turn
from rlaif_framework.models import (
    encode_prompt,
    encode_response,
    encode_text,
    find_stop_ids,
    load_model,
    load_tokenizer,
)
from support.chat_models import TEMPLATES, TURN_ENDS, save_chat_model

QUESTION, ANSWER = Turn("user", "Why is the sky blue?"), "Because of  Rayleigh's scattering."
DIALOGUE = (QUESTION, Turn("assistant", "It scatters light."), Turn("user", "And red?"))


@pytest.fixture(params=TEMPLATES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, tiny_model: Path, tmp_path: Path) -> Path:
    return save_chat_model(family, tiny_model, tmp_path / family)


@pytest.fixture
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder)


def messages(turns: Any) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("turns", [(QUESTION,), DIALOGUE])
def test_tokens_are_those_of_the_template(tokenizer: PreTrainedTokenizerBase, turns: tuple[Turn, ...]) -> None:
    prompt = encode_prompt(tokenizer, Prompt("p", "not shown", "source", turns=turns))
    asked = tokenizer.apply_chat_template(messages(turns), add_generation_prompt=True, return_dict=False)
    assert prompt == asked
    response = encode_response(tokenizer, ANSWER)
    whole = tokenizer.apply_chat_template(messages([*turns, Turn("assistant", ANSWER)]), return_dict=False)
    # A template may go on after the end of the turn, as with a line break.
    assert prompt + response == cast(list[int], whole)[: len(prompt) + len(response)]


def test_a_response_ends_with_the_end_of_the_turn(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    end = tokenizer.convert_tokens_to_ids(TURN_ENDS[family])
    response = encode_response(tokenizer, ANSWER)
    assert response[-1] == end
    unfinished = encode_response(tokenizer, ANSWER, finished=False)
    assert response[: len(unfinished)] == unfinished
    assert not str(tokenizer.decode(response[len(unfinished) : -1])).strip()  # Llama 2 writes a space before the end
    assert encode_response(tokenizer, ANSWER, max_tokens=3) == response[:3]


def test_generation_stops_at_every_end_token(folder: Path, tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    import torch

    model = load_model(folder, "causal", torch.float32, torch.device("cpu"))
    ends = {tokenizer.convert_tokens_to_ids(TURN_ENDS[family]), tokenizer.eos_token_id}
    assert find_stop_ids(tokenizer, model) == sorted(ends)
    assert find_stop_ids(tokenizer) == sorted(ends)
    other = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, 5]))
    assert find_stop_ids(tokenizer, cast(Any, other)) == sorted({5, 7, *ends})


def test_control_tokens_in_data_are_text(tokenizer: PreTrainedTokenizerBase) -> None:
    special = tokenizer.all_special_tokens
    hostile = f"He wrote {' '.join(special)} to me."
    empty = encode_prompt(tokenizer, Prompt("p", "", "", turns=(Turn("user", "x"),)))
    filled = encode_prompt(tokenizer, Prompt("p", "", "", turns=(Turn("user", hostile),)))
    response, plain = (encode_response(tokenizer, text, finished=False) for text in (hostile, "x"))
    for token in tokenizer.all_special_ids:
        assert filled.count(token) == empty.count(token)
        assert response.count(token) == plain.count(token)  # some templates write one before the response
        assert token not in encode_text(tokenizer, hostile)[1:]
    assert str(tokenizer.decode(response)).endswith(hostile)


def test_a_system_turn_is_kept_in_every_template(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.decode(
        encode_prompt(tokenizer, Prompt("p", "", "", turns=(Turn("system", "Be brief."), QUESTION)))
    )
    assert "Be brief." in text
    assert text.index("Be brief.") < text.index(QUESTION.content)


def test_turns_that_a_template_refuses_are_an_error(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_chat_model("gemma", tiny_model, tmp_path / "gemma"))
    prompt = Prompt("p", "", "", turns=(QUESTION, QUESTION))
    with pytest.raises(ModelError, match=r"cannot render the turns user, user: .*must alternate.*policy\.chat: plain"):
        encode_prompt(tokenizer, prompt)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "too much work"),
        ("{{ 'a' * 10**9 }}", "too much work"),
        ("{{ messages[0].content.__class__ }}", "cannot use '__class__'"),
        ("{{ 1 / 0 }}", "line 1: division by zero"),
        ("{% for m in messages %}", "line 1: Unexpected end"),
        ("hello", "does not write the content"),
    ],
)
def test_a_template_of_a_stranger_is_an_error_at_most(
    tiny_model: Path, tmp_path: Path, template: str, reason: str
) -> None:
    tokenizer = load_tokenizer(save_chat_model("chatml", tiny_model, tmp_path / "chatml"))
    tokenizer.chat_template = template
    with pytest.raises(RlaifError, match=reason):
        _ = encode_prompt(tokenizer, "Hi"), encode_response(tokenizer, "Hello")


def test_tokens_of_hostile_texts_are_those_of_transformers(tokenizer: PreTrainedTokenizerBase) -> None:
    hostile = f"{tokenizer.eos_token} a {tokenizer.bos_token}{tokenizer.eos_token}\U000f0000b\U000f0001 <|x|> "
    turns = [Turn("user", hostile), Turn("assistant", "ok"), Turn("user", f"again {tokenizer.eos_token}")]
    expected: Any = tokenizer.apply_chat_template(
        messages(turns), add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )
    assert encode_prompt(tokenizer, Prompt("p", "", "", turns=tuple(turns))) == expected


def test_dates_do_not_change_by_day(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_chat_model("llama3", tiny_model, tmp_path / "llama3"))
    text = tokenizer.decode(encode_prompt(tokenizer, "Hi"))
    assert "Today Date: 01 Jan 2025" in text
    # The saved tokenizer has the same date.
    shutil.copytree(tmp_path / "llama3", tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    turns = messages([Turn("user", "Hi")])
    assert again.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == text
    # A saved template gets another date, and does not grow.
    later = load_tokenizer(tmp_path / "saved", date=datetime.date(2026, 3, 9))
    assert "Today Date: 09 Mar 2026" in str(later.decode(encode_prompt(later, "Hi")))
    assert len(str(load_tokenizer(tmp_path / "saved").chat_template)) == len(str(tokenizer.chat_template))


def test_text_is_one_user_turn_or_plain(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode_prompt(tokenizer, "Hi") == encode_prompt(tokenizer, Prompt("p", "Hi", "Hi"))
    tokenizer.chat_template = None
    assert encode_prompt(tokenizer, Prompt("p", "Hi", "Hi", turns=(QUESTION,))) == encode_text(tokenizer, "Hi")
    response = encode_response(tokenizer, " yes ")
    assert response == [*tokenizer(" yes", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def test_the_start_token_of_a_template_is_not_doubled(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    assert encode_text(tokenizer, f"{tokenizer.bos_token}Hi") == encode_text(tokenizer, "Hi")
