"""Prompts and responses are encoded as the chat template of a model writes them."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer, Prepend, Replace, Sequence
from tokenizers.pre_tokenizers import Metaspace, PreTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlaif_framework import ModelError, Prompt, RlaifError, Turn
from rlaif_framework.data.templates import Template
from rlaif_framework.models import (
    encode_continuation,
    encode_prompt,
    encode_response,
    encode_text,
    find_stop_ids,
    load_model,
    load_tokenizer,
)
from rlaif_framework.models.chat import fix_date
from rlaif_framework.models.sampling import _decode_sample
from support.chat_models import TEMPLATES, TURN_ENDS, UNMARKED, save_chat_model

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
def test_tokens_are_those_of_the_template(
    tokenizer: PreTrainedTokenizerBase, turns: tuple[Turn, ...], family: str
) -> None:
    prompt = encode_prompt(tokenizer, Prompt("p", "not shown", "source", turns=turns))
    asked = tokenizer.apply_chat_template(messages(turns), add_generation_prompt=True, return_dict=False)
    assert prompt == asked
    response = encode_response(tokenizer, ANSWER)
    whole: Any = tokenizer.apply_chat_template(messages([*turns, Turn("assistant", ANSWER)]), tokenize=False)
    if family == "glm":  # a turn has no end of its own
        whole += tokenizer.eos_token
    if family == "r1":  # dialogues are written without thoughts
        whole = f"<think>\n\n</think>\n\n{ANSWER}".join(whole.rsplit(ANSWER, 1))
    # A template may go on after the end of the turn, as with a line break.
    assert prompt + response == tokenizer(whole, add_special_tokens=False)["input_ids"][: len(prompt) + len(response)]


def test_a_response_is_nothing_but_its_text(tokenizer: PreTrainedTokenizerBase) -> None:
    response = encode_response(tokenizer, ANSWER)
    assert _decode_sample(response, tokenizer, find_stop_ids(tokenizer)).text == ANSWER
    prompt = encode_prompt(tokenizer, "Hi")
    whole = str(tokenizer.decode(prompt + response))
    assert whole.count("<think>") == whole.count("</think>") == ("think" in str(tokenizer.chat_template))
    assert whole.count("<|channel|>") == ("<|channel|>" in str(tokenizer.chat_template))


def test_a_completed_template_stays_the_same(tokenizer: PreTrainedTokenizerBase, family: str, tmp_path: Path) -> None:
    plain: Any = AutoTokenizer.from_pretrained(tmp_path / family)
    plain.chat_template = fix_date(plain.chat_template)
    for turns in ((QUESTION, Turn("assistant", ANSWER)), (*DIALOGUE, Turn("assistant", "Less."))):
        # Only the generation prompt differs from the model's.
        expected = plain.apply_chat_template(messages(turns), tokenize=False)
        assert tokenizer.apply_chat_template(messages(turns), tokenize=False) == expected
    shutil.copytree(tmp_path / family, tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").chat_template == tokenizer.chat_template


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


def test_control_tokens_in_data_are_text(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    control = [*tokenizer.all_special_tokens, *UNMARKED.get(family, [])]
    hostile = f"He wrote {' '.join(control)} to me."
    empty = encode_prompt(tokenizer, Prompt("p", "", "", turns=(Turn("user", "x"),)))
    filled = encode_prompt(tokenizer, Prompt("p", "", "", turns=(Turn("user", hostile),)))
    response, plain = (encode_response(tokenizer, text, finished=False) for text in (hostile, "x"))
    for token in (tokenizer.get_vocab()[token] for token in control):
        assert filled.count(token) == empty.count(token)
        assert response.count(token) == plain.count(token)
    for token in tokenizer.all_special_ids:
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


def test_tokens_of_hostile_texts_are_those_of_transformers(tokenizer: PreTrainedTokenizerBase, family: str) -> None:
    control = f"{tokenizer.bos_token}{tokenizer.eos_token}{''.join(UNMARKED.get(family, []))}"
    hostile = f"{tokenizer.eos_token} a {control}\U000f0000b\U000f0001 <|x|> "
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


@pytest.mark.parametrize("form", ["%F", "%D %T", "%e %B %-y", "%-d/%-m/%Y %R", "%A %H:%M:%S", "%d %b %Y"])
def test_dates_may_have_any_form(form: str) -> None:
    template = Template("the date", fix_date(f"{{{{ strftime_now('{form}') }}}}", datetime.date(2026, 3, 9)), chat=True)
    assert template.render() == datetime.datetime(2026, 3, 9, 12).strftime(form)


SENTENCEPIECE = [
    (Sequence([Prepend("▁"), Replace(" ", "▁")]), None),  # Llama 2, at the start of every piece of text
    (None, Metaspace(prepend_scheme="first", split=False)),  # only at the start of the text
]


def make_sentencepiece(normalizer: Normalizer | None, pre_tokenizer: PreTokenizer | None) -> Tokenizer:
    characters = ["\n", *map(chr, range(32, 127))]
    backend = Tokenizer(BPE({c: i for i, c in enumerate(["▁", *characters, "▁▁"])}, [("▁", "▁")]))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    return backend


@pytest.mark.parametrize(("normalizer", "pre_tokenizer"), SENTENCEPIECE)
@pytest.mark.parametrize("family", ["llama2", "chatml", "harmony", "qwen3"], indirect=True)
def test_sentencepiece_puts_no_further_space(
    folder: Path, normalizer: Normalizer | None, pre_tokenizer: PreTokenizer | None
) -> None:
    backend, other = make_sentencepiece(normalizer, pre_tokenizer), load_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=other.bos_token, eos_token=other.eos_token)
    tokenizer.add_tokens(list(other.added_tokens_decoder.values()))
    tokenizer.chat_template = other.chat_template
    turns = messages([QUESTION, Turn("assistant", ANSWER)])
    whole: Any = tokenizer.apply_chat_template(turns, return_dict=False)
    ids = encode_prompt(tokenizer, QUESTION.content) + encode_response(tokenizer, ANSWER)
    assert ids == whole[: len(ids)]


@pytest.mark.parametrize(("normalizer", "pre_tokenizer"), SENTENCEPIECE)
def test_sentencepiece_puts_no_further_space_before_a_response_to_plain_text(
    normalizer: Normalizer | None, pre_tokenizer: PreTokenizer | None
) -> None:
    backend = make_sentencepiece(normalizer, pre_tokenizer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    whole = tokenizer(f"POST: a TL;DR: {ANSWER}", add_special_tokens=False)["input_ids"]
    before = encode_text(tokenizer, "POST: a TL;DR:")
    for ids in (encode_response(tokenizer, ANSWER), encode_continuation(tokenizer, ANSWER)):
        assert before + ids == [*whole, tokenizer.eos_token_id]


def test_chat_templates_without_a_default_are_an_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = save_chat_model("chatml", tiny_model, tmp_path / "chatml")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"tool_use": TEMPLATES["chatml"]}
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="has the chat templates tool_use and none named 'default'; rename"):
        load_tokenizer(folder)


def test_text_is_one_user_turn_or_plain(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode_prompt(tokenizer, "Hi") == encode_prompt(tokenizer, Prompt("p", "Hi", "Hi"))
    tokenizer.chat_template = None
    assert encode_prompt(tokenizer, Prompt("p", "Hi", "Hi", turns=(QUESTION,))) == encode_text(tokenizer, "Hi")
    response = encode_response(tokenizer, " yes ")
    assert response == [*tokenizer(" yes", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def test_the_start_token_of_a_template_is_not_doubled(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    assert encode_text(tokenizer, f"{tokenizer.bos_token}Hi") == encode_text(tokenizer, "Hi")
