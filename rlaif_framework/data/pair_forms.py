"""Read pairs of responses from rows in every supported form of preference data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, takewhile
from reprlib import repr as short
from typing import Any

from rlaif_framework.data.faults import RowFault
from rlaif_framework.data.fields import suggest_fields
from rlaif_framework.data.messages import (
    check_dialogue,
    convert_marks,
    decode,
    decode_messages,
    has_turn,
    is_messages,
    is_transcript,
    read_messages,
    strip_turns,
    to_prompt,
)
from rlaif_framework.data.transcripts import ASSISTANT_CUE, SPEAKERS, split_transcript
from rlaif_framework.records.preferences import Turn

_WHOLE_WORDS = re.compile(r".*\S(?=\s)", re.DOTALL)
_LOOKS_LIKE_STRINGS = re.compile(r"\s*\[\s*(['\"]).*\1\s*\]\s*", re.DOTALL)

FORMS = (  # for error messages
    "prompt + responses, prompt + chosen + rejected, prompt + response_a + response_b (+ label), "
    "chosen + rejected as whole dialogues or with a common beginning, or another form of docs/labelling.md"
)

LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5}
"""Probability that the first response is the better one, by the row's `label`."""

WINNERS = {
    **LABELS,
    "model_a": 1.0,
    "model_b": 0.0,
    "response_a": 1.0,
    "response_b": 0.0,
    "tie (bothbad)": 0.5,
    "both_bad": 0.5,
    "bothbad": 0.5,
}
"""The same, by the row's `winner`, as in Chatbot Arena's data."""

STRENGTHS = {"preference_strength": ("response_1", "response_2"), "overall_preference": ("response1", "response2")}
"""Columns of HelpSteer with a preference from -3 (the first is much better) to 3, and the columns of the responses."""

TEXT_KEYS = ("answer", "response", "text", "content", "completion")
SCORE_KEYS = ("score", "overall_score", "rating", "pm_score")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PairRow:
    """What a row says about one pair of responses."""

    prompt: str | None
    """The prompt as in the row, or as a transcript; None if the row has none of this name."""
    responses: tuple[str, str]
    """Without surrounding white space."""
    raw_responses: tuple[str, str]
    """As they are in the row."""
    preference: float | None
    """Probability that the first response is the better one."""
    confidence: float | None = None
    """The rater's confidence in [0, 1]."""
    part: str = ""
    """Which responses of the row these are, if it has more than two, such as `1-3`."""
    post: Row | None = None
    """The part of the row that describes the prompt, if it is not the row itself."""
    reversed: bool = False
    """True if the responses are in the opposite order of the row."""


def read_forms(row: Row) -> list[PairRow]:
    """Read the pairs of a row; empty for a row of another data set in the same file.

    Raises:
        RowFault: The row is invalid, or in none of the supported forms.
    """
    for has_form, read in _FORMS:
        if has_form(row):
            pairs = read(row)
            for pair in pairs:
                _check_dialogue(pair)
            return pairs
    raise RowFault(f"expected {FORMS}; found {', '.join(map(str, list(row)[:8])) or 'no columns'}")


def has_responses(row: Row) -> bool:
    """Return True if a row has one of the supported forms, without regard to empty columns."""
    filled = {name: value for name, value in row.items() if value not in (None, "")}
    return is_rated(filled) or any(has_form(filled) for has_form, _ in _FORMS)


def is_rated(row: Row) -> bool:
    """Return True for a row with one response and its score, as in HelpSteer: consecutive rows make pairs."""
    return "response" in row and ("helpfulness" in row or "score" in row) and not any(has(row) for has, _ in _FORMS)


def combine_rated(rows: Sequence[Row]) -> Row:
    """Combine rows with one rated response each to the same prompt into one row with several.

    Raises:
        RowFault: There is only one.
    """
    if len(rows) < 2:
        raise RowFault("the row has one response, and the rows around it have other prompts, so there is no pair")
    answers = []
    for row in rows:
        name = "helpfulness" if row.get("score") is None else "score"
        score = None if row.get(name) is None else _number(row[name], name, 1)
        answers.append({"answer": _text(row, "response"), "score": score})
    return {**{key: value for key, value in rows[0].items() if key != "score"}, "answers": answers}


def read_fraction(row: Row, name: str) -> float | None:
    """Read a number in [0, 1]; None if it is missing.

    Raises:
        RowFault: The value is not such a number.
    """
    value = _read_number(row.get(name))
    if value is None:
        return None
    if not isinstance(value, float) or not 0 <= value <= 1:  # the comparison fails for NaN as well
        raise _wrong(name, row[name], "a number between 0 and 1")
    return value


def check_responses(first: str, second: str) -> tuple[str, str]:
    """Strip two responses and check that neither is empty and that they differ.

    Raises:
        RowFault: A response is empty, or they are identical.
    """
    first, second = first.strip(), second.strip()
    if not first or not second:
        raise RowFault("a response is empty")
    if first == second:
        raise RowFault("the two responses are identical")
    return first, second


def hash_texts(*texts: str) -> str:
    """Return a short hash, for ids of rows without one and for choices that must not depend on the order of a file."""
    # With a separator that texts do not contain: ("ab", "c") and ("a", "bc") must differ.
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _read_openai(row: Row) -> list[PairRow]:
    """OpenAI's comparisons (Stiennon et al. 2020); rows about news articles (CNN/DM) are another task."""
    info, summaries, choice = row["info"], row["summaries"], row.get("choice")
    if not isinstance(info, dict):
        raise _wrong("info", info, "the fields of a post")
    if not info.get("post"):
        return []
    if not (isinstance(summaries, list) and len(summaries) == 2 and all(isinstance(s, dict) for s in summaries)):
        raise RowFault("'summaries' is not a list of two summaries with a 'text' each")
    if "choice" not in row:
        raise RowFault("'choice' is missing")
    if isinstance(choice, bool) or choice not in (0, 1):
        raise _wrong("choice", choice, "0 or 1")
    extra = row.get("extra") or {}
    rated = extra.get("confidence") if isinstance(extra, dict) else extra
    if rated is not None and (isinstance(rated, bool) or not isinstance(rated, int | float) or not 1 <= rated <= 9):
        raise _wrong("extra.confidence", rated, "a number between 1 and 9")
    # 1 means certainly the first, 9 certainly the second, 5 undecided: the confidence is the distance from 5.
    confidence = None if rated is None else abs(rated - 5) / 4
    raw = _text(summaries[0], "text"), _text(summaries[1], "text")
    prompt = _text(info, "post")
    return [PairRow(prompt, check_responses(*raw), raw, 1.0 if choice == 0 else 0.0, confidence, post=info)]


def _read_ranked(row: Row) -> list[PairRow]:
    """Several responses with ranks or scores, as in Nectar and UltraFeedback: every two of them are a pair."""
    name, answers = _find_ranked(row)
    prompt, confidence = read_prompt(row), read_fraction(row, "confidence")
    kept: list[tuple[int, str, float | None]] = []
    for number, (text, value) in enumerate(answers, 1):
        # Rankings have a few repeated and empty responses, of which there is no pair.
        if text.strip() and text.strip() not in (other.strip() for _, other, _ in kept):
            kept.append((number, text, value))
    if len(kept) < 2:
        raise RowFault(f"'{name}' has fewer than two different responses")
    pairs = []
    for (i, first, high), (j, second, low) in combinations(kept, 2):
        preference = None if high is None or low is None else _compare(high, low)
        pair = PairRow(prompt, check_responses(first, second), (first, second), preference, confidence, part=f"{i}-{j}")
        pairs.append(_shuffle(pair) if preference in (0.0, 1.0) else pair)
    return pairs


def _find_ranked(row: Row) -> tuple[str, list[tuple[str, float | None]]]:
    """Return the column of ranked responses, and each response with a number that is higher for better ones."""
    name = next(name for name in ("answers", "completions", "responses") if name in row)
    answers = decode(row[name])
    if not isinstance(answers, list):
        raise _wrong(name, answers, "a list of responses")
    texts = [_read_answer(answer, name) for answer in answers]
    own = [_read_own_score(answer, name) for answer in answers]
    values = next((v for key in ("ranks", "scores", "ratings") if (v := decode(row.get(key))) is not None), None)
    matches = isinstance(values, list) and len(values) == len(answers)
    if any(score is not None for score in own) or (not matches and any(isinstance(answer, dict) for answer in answers)):
        return name, list(zip(texts, own, strict=True))
    if not isinstance(values, list) or not matches:
        raise RowFault(f"'{name}' has {len(answers)} responses without a rank or score for each")
    sign = -1 if row.get("ranks") is not None else 1
    return name, [(text, _number(value, "ranks or scores", sign)) for text, value in zip(texts, values, strict=True)]


def _read_answer(answer: object, name: str) -> str:
    """Read the text of a response in a list, which is a text or an object with one."""
    if not isinstance(answer, dict):
        return _string(answer, name)
    key = next((key for key in TEXT_KEYS if key in answer), None)
    if key is None:
        raise RowFault(f"'{name}' has a response without one of {', '.join(TEXT_KEYS)}")
    return _string(answer[key], f"{name}.{key}")


def _read_own_score(answer: object, name: str) -> float | None:
    """Read a number that is higher for better responses from an object with a response; None if it has none."""
    scores = answer if isinstance(answer, dict) else {}
    rated = next((key for key in ("rank", *SCORE_KEYS) if scores.get(key) is not None), None)
    return None if rated is None else _number(scores[rated], f"{name}.{rated}", -1 if rated == "rank" else 1)


def _read_listed(row: Row) -> list[PairRow]:
    """`responses`: a list of two, with or without `human`, `label` or `winner`."""
    responses = decode(row["responses"])
    if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(r, str | dict) for r in responses)):
        raise RowFault("'responses' is not a list of two strings")
    first, second = (_read_answer(response, "responses") for response in responses)
    return [_unordered(row, read_prompt(row), (first, second), _read_vote(row))]


def _read_conversations(row: Row) -> list[PairRow]:
    """`conversation_a` and `conversation_b` as whole dialogues, as in Chatbot Arena's data."""
    first, second = (_read_dialogue(row, name) for name in ("conversation_a", "conversation_b"))
    prompt = _common_prompt(first, second, ("conversation_a", "conversation_b"))
    return [_unordered(row, to_prompt(prompt), (first[-1][1], second[-1][1]), _read_winner(row))]


def _read_shp(row: Row) -> list[PairRow]:
    """`history`, `human_ref_A`, `human_ref_B`, as in SHP; `labels` is 1 if A is preferred."""
    label = read_fraction(row, "labels")
    raw = _text(row, "human_ref_A"), _text(row, "human_ref_B")
    return [_unordered(row, _text(row, "history"), raw, label)]


def _read_strength(row: Row) -> list[PairRow]:
    """Two responses with a preference from -3 to 3, as in HelpSteer2 and HelpSteer3."""
    name = next(name for name in STRENGTHS if name in row)
    value = _read_number(row[name])
    if value is not None and not (isinstance(value, float) and -3 <= value <= 3):
        raise _wrong(name, row[name], "a number between -3 and 3")
    strength = value if isinstance(value, float) else None
    first, second = STRENGTHS[name]
    prompt = read_prompt(row, "prompt" if row.get("prompt") is not None else "context")
    stated = None if strength is None else _compare(-strength, strength)
    pair = _unordered(row, prompt, (_text(row, first), _text(row, second)), stated)
    return [pair if strength is None or pair.confidence is not None else replace(pair, confidence=abs(strength) / 3)]


def _read_numbered(row: Row) -> list[PairRow]:
    """`response_0`, `response_1` and `better_response_id`, which is 0 or 1, as in PKU-SafeRLHF."""
    better = _read_number(row["better_response_id"])
    if better not in (None, 0.0, 1.0) or isinstance(better, bool):
        raise _wrong("better_response_id", better, "0 or 1")
    stated = None if better is None else float(better == 0)
    return [_unordered(row, read_prompt(row), (_text(row, "response_0"), _text(row, "response_1")), stated)]


def _read_lettered(row: Row) -> list[PairRow]:
    """`response_a` and `response_b`, with or without `label` or a vote of Chatbot Arena."""
    stated = _read_vote(row)
    turns = [_string_list(row.get(name)) for name in ("prompt", "response_a", "response_b")]
    if turns[0] is not None and turns[1] is not None and turns[2] is not None:
        first, second = (_interleave(turns[0], answers) for answers in (turns[1], turns[2]))
        prompt = _common_prompt(first, second, ("response_a", "response_b"))
        return [_unordered(row, to_prompt(prompt), (first[-1][1], second[-1][1]), stated)]
    texts = [row.get(name) for name in ("prompt", "response_a", "response_b")]
    if all(isinstance(text, str) and _LOOKS_LIKE_STRINGS.fullmatch(text) for text in texts):
        raise RowFault(
            "'prompt' and the responses look like lists, but are neither JSON nor Python literals; numpy prints lists "
            "without commas"
        )
    # Only the last message: in some data sets, a response is a whole dialogue or a list of one message.
    a, b = (decode_messages(row.get(name), name) for name in ("response_a", "response_b"))
    if is_messages(a) or is_messages(b):
        prompt_text, raw = _read_pair_of_dialogues(
            {**row, "response_a": a, "response_b": b}, "response_a", "response_b"
        )
        return [_unordered(row, prompt_text, raw, stated)]
    return [_unordered(row, read_prompt(row), (_text(row, "response_a"), _text(row, "response_b")), stated)]


def _read_chosen(row: Row) -> list[PairRow]:
    """`chosen` and `rejected`: responses, whole dialogues or texts, or messages, as TRL reads them."""
    prompt: str | None
    chosen, rejected = (decode_messages(row.get(name), name) for name in ("chosen", "rejected"))
    if is_messages(chosen) or is_messages(rejected):
        prompt, raw = _read_pair_of_dialogues({**row, "chosen": chosen, "rejected": rejected}, "chosen", "rejected")
    elif row.get("prompt") is None and not _has_post(row):
        prompt, raw = _split_transcripts(row)
    else:
        prompt = read_prompt(row)
        raw = _strip_prompt(prompt, _text(row, "chosen"), _text(row, "rejected"))
    pair = PairRow(prompt, check_responses(*raw), raw, 1.0, read_fraction(row, "confidence"))
    if row.get("human") is not None:
        raise RowFault("the row states its preference twice, by 'human' and by its form; remove one of them")
    return [_shuffle(pair)]


def _unordered(row: Row, prompt: str | None, raw: tuple[str, str], stated: float | None) -> PairRow:
    """Create the pair of a row whose form does not say which response is better."""
    human = read_fraction(row, "human")
    if human is not None and stated is not None:
        raise RowFault("the row states its preference twice, by 'human' and by its form; remove one of them")
    return PairRow(
        prompt, check_responses(*raw), raw, human if stated is None else stated, read_fraction(row, "confidence")
    )


def _shuffle(pair: PairRow) -> PairRow:
    """Order the responses by a hash, so that neither position nor content reveals the preference."""
    keys = [hash_texts(pair.prompt or "", response) for response in pair.responses]
    if keys[0] < keys[1]:
        return pair
    preference = None if pair.preference is None else 1 - pair.preference
    return replace(
        pair,
        responses=pair.responses[::-1],
        raw_responses=pair.raw_responses[::-1],
        preference=preference,
        reversed=True,
    )


def _read_vote(row: Row) -> float | None:
    """Read `label`, or a vote of Chatbot Arena."""
    label, winner = row.get("label"), _read_winner(row)
    if label is None:
        return winner
    if not (isinstance(label, str) and label in LABELS):
        raise _wrong("label", label, "'a', 'b' or 'tie'")
    if winner is not None:
        raise RowFault("the row states its preference twice, by 'label' and by a winner; remove one of them")
    return LABELS[label]


def _read_winner(row: Row) -> float | None:
    """Read a vote of Chatbot Arena: `winner`, or a column for each outcome."""
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    if any(row.get(name) is not None for name in names):
        first, second, tie = (read_fraction(row, name) or 0.0 for name in names)
        if abs(first + second + tie - 1) > 1e-3:
            raise RowFault("'winner_model_a', 'winner_model_b' and 'winner_tie' do not add up to 1")
        return first + tie / 2
    winner = row.get("winner")
    if winner is None:
        return None
    if not (isinstance(winner, str) and winner.strip().lower() in WINNERS):
        raise _wrong("winner", winner, f"one of {', '.join(WINNERS)}")
    return WINNERS[winner.strip().lower()]


def read_prompt(row: Row, name: str = "prompt") -> str | None:
    """Read the prompt as text; a list of messages becomes a transcript.

    Returns:
        None if there is none, and the row has a post instead, from which a task makes a prompt.

    Raises:
        RowFault: It is missing, or not a prompt.
    """
    value = decode_messages(row.get(name), name)
    if value is None and _has_post(row):
        return None
    if is_messages(value):
        turns = strip_turns(read_messages(value, name))
        check_dialogue(turns)
        return to_prompt(turns)
    return convert_marks(_string(value, name))


def _has_post(row: Row) -> bool:
    return row.get("post") is not None


def _read_pair_of_dialogues(row: Row, *names: str) -> tuple[str, tuple[str, str]]:
    """Read a prompt and two responses, of which at least one is a list of messages."""
    value = decode_messages(row.get("prompt"), "prompt")
    start = strip_turns(read_messages(value, "prompt")) if is_messages(value) else []
    dialogues = []
    for name in names:
        turns = _read_dialogue(row, name)
        # In some data sets, the messages of the prompt are repeated.
        repeated = bool(start) and strip_turns(turns)[: len(start)] == start
        dialogues.append(turns if repeated else [*start, *turns])
    common = _common_prompt(dialogues[0], dialogues[1], names)
    raw = dialogues[0][-1][1], dialogues[1][-1][1]
    if isinstance(value, str) and value.strip() and len(common) <= 1:
        prompt = convert_marks(value)
        turns = split_transcript(prompt)
        if common and common[0].role == "system":
            common = [*common, *(turns[1:] if turns[0] == common[0] else turns)]
        elif not common or _has_words(common, [value]) or _has_words(common, [turn.content for turn in turns]):
            return prompt, raw
        else:
            raise RowFault(f"'prompt' is another text than the first turn of '{names[0]}'; remove one of them")
    if not common:
        raise RowFault(f"'prompt' is missing, and '{names[0]}' has no turn before its last")
    check_dialogue(common)
    return to_prompt(common), raw


def _has_words(turns: Sequence[Turn], texts: Sequence[str]) -> bool:
    """Return True if turns have these texts, but for white space."""
    return [turn.content.split() for turn in turns] == [text.split() for text in texts]


def _read_dialogue(row: Row, name: str) -> list[Turn]:
    """Read a column with messages, or with one response as text."""
    value = decode_messages(row.get(name), name)
    turns = read_messages(value, name) if is_messages(value) else [Turn("assistant", _string(value, name))]
    if turns[-1][0] != "assistant":
        raise RowFault(f"'{name}' ends with a turn of {SPEAKERS[turns[-1][0]]}, not with a response")
    return turns


def _common_prompt(first: Sequence[Turn], second: Sequence[Turn], names: Sequence[str]) -> list[Turn]:
    """Return the turns before the responses, which must be the same."""
    prompt = strip_turns(first[:-1])
    if prompt != strip_turns(second[:-1]):
        raise RowFault(f"'{names[0]}' and '{names[1]}' differ before their last turn")
    return prompt


def _split_transcripts(row: Row) -> tuple[str, tuple[str, str]]:
    """Split two transcripts at their last turn of the assistant, or other texts after their common beginning."""
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    if not has_turn(chosen) and not has_turn(rejected):
        return _split_beginning(row, chosen, rejected)
    before, cue, better = chosen.rpartition(ASSISTANT_CUE)
    other, _, worse = rejected.rpartition(ASSISTANT_CUE)
    if not cue:
        raise RowFault("'prompt' is missing, and 'chosen' is not a transcript: it has no '\\n\\nAssistant:'")
    if before != other:
        raise RowFault("'chosen' and 'rejected' differ before their last '\\n\\nAssistant:'")
    for name, response in (("chosen", better), ("rejected", worse)):
        if has_turn(response):
            raise RowFault(f"'{name}' ends with a turn of Human, not with a response")
    check_dialogue(split_transcript(before))
    return before + cue, (better, worse)


def _split_beginning(row: Row, chosen: str, rejected: str) -> tuple[str, tuple[str, str]]:
    """Split two texts after the words that both begin with, which are the prompt in TRL's form without one."""
    if suggest_fields(map(str, row)):  # the prompt is probably in a column with another name
        raise RowFault("'prompt' is missing")
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    beginning = _WHOLE_WORDS.match("".join(character for character, _ in shared))
    if beginning is None:
        raise RowFault(
            "'prompt' is missing, and 'chosen' is not a transcript with '\\n\\nAssistant:' and does not begin with the "
            "same words as 'rejected', which would be the prompt"
        )
    end = beginning.end()
    return chosen[:end], (chosen[end:], rejected[end:])


def _strip_prompt(prompt: str | None, chosen: str, rejected: str) -> tuple[str, str]:
    """Remove the prompt from whole transcripts; responses alone are returned unchanged."""
    if prompt is None:
        return chosen, rejected
    turns = split_transcript(prompt)
    parts = [text.rpartition(ASSISTANT_CUE) for text in (chosen, rejected)]
    if all(is_transcript(before + cue) and split_transcript(before) == turns for before, cue, _ in parts):
        return parts[0][2], parts[1][2]
    start = prompt.rstrip()
    if is_transcript(prompt) and chosen.startswith(start) and rejected.startswith(start):
        return chosen[len(start) :], rejected[len(start) :]
    return chosen, rejected


def _check_dialogue(pair: PairRow) -> None:
    """Check the turns of a pair whose prompt is a transcript."""
    if pair.prompt is None or not is_transcript(pair.prompt):
        return
    check_dialogue(split_transcript(pair.prompt))
    if any(has_turn(response) for response in pair.responses):
        raise RowFault("a response holds another turn ('\\n\\nHuman:' or '\\n\\nAssistant:')")


def _string_list(value: object) -> list[str] | None:
    """Return the strings of a list that is stored as JSON text, as in Chatbot Arena's data; None for other values."""
    found = decode(value) if isinstance(value, str) else None
    if not isinstance(found, list) or not found or not all(isinstance(x, str | None) for x in found):
        return None
    return [x or "" for x in found]


def _interleave(questions: Sequence[str], answers: Sequence[str]) -> list[Turn]:
    if len(questions) != len(answers):
        raise RowFault("'prompt' and the responses are lists of different lengths")
    return [
        turn
        for question, answer in zip(questions, answers, strict=True)
        for turn in (Turn("user", question), Turn("assistant", answer))
    ]


def _compare(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def _read_number(value: object) -> float | object | None:
    """Convert a number, or text that is one as in CSV files; other values are returned unchanged."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value) if abs(value) < 2**53 else value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _number(value: object, name: str, sign: int) -> float:
    number = _read_number(value)
    if not isinstance(number, float) or number != number:
        raise _wrong(name, value, "a number")
    return sign * number


def _text(row: Row, name: str) -> str:
    return _string(row.get(name), name)


def _string(value: object, name: str) -> str:
    if value is None:
        raise RowFault(f"'{name}' is missing")
    if not isinstance(value, str):
        raise RowFault(f"'{name}' must be a string, not {type(value).__name__}")
    return value


def _wrong(name: str, value: object, expected: str) -> RowFault:
    return RowFault(f"'{name}' is {short(value)}, not {expected}", kind=f"'{name}' is not {expected}")


def _is_ranked(row: Row) -> bool:
    if row.get("answers") is not None or row.get("completions") is not None:
        return not _is_pair(row)
    responses = decode(row.get("responses"))
    if not isinstance(responses, list):
        return False
    if row.get("human") is not None or _read_winner(row) is not None or str(row.get("label")) in LABELS:
        return False
    has_values = any(row.get(name) is not None for name in ("ranks", "scores", "ratings"))
    return has_values or any(isinstance(response, dict) for response in responses)


def _is_pair(row: Row) -> bool:
    return any(name in row for name in ("chosen", "rejected", "response_a", "response_b"))


_FORMS: Sequence[tuple[Callable[[Row], bool], Callable[[Row], list[PairRow]]]] = (
    (lambda row: "summaries" in row and "info" in row, _read_openai),
    (_is_ranked, _read_ranked),
    (lambda row: "responses" in row, _read_listed),
    (lambda row: "conversation_a" in row or "conversation_b" in row, _read_conversations),
    (lambda row: "human_ref_A" in row or "human_ref_B" in row, _read_shp),
    (lambda row: any(n in row and all(r in row for r in STRENGTHS[n]) for n in STRENGTHS), _read_strength),
    (lambda row: {"response_0", "response_1", "better_response_id"} <= row.keys(), _read_numbered),
    (lambda row: "response_a" in row or "response_b" in row, _read_lettered),
    (lambda row: "chosen" in row or "rejected" in row, _read_chosen),
)
"""Each form: whether a row has it, and how it is read. The first one that a row has is used."""
